// Random requests of the etcd API, valid ones and others, from a seed; and what of two answers must be the same. What etcd
// leaves open, or names after itself, is taken out: member ids, raft terms, the order of equal sort keys, a second of TTL.
import type { Random } from "#base/clock.ts";
import type { Compare, EtcdMethods, RangeRequest, RequestOp, TxnRequest } from "#wire/gen/etcd.ts";
import type { WireInput } from "#wire/protobuf.ts";
import type { Answer } from "./peers.ts";

export interface Operation<K extends keyof EtcdMethods = keyof EtcdMethods> {
  readonly method: K;
  readonly request: WireInput<EtcdMethods[K]["request"]>;
}

/** What the generator knows of the past. */
export interface History {
  revision: number;
  compacted: number;
}

type Txn = WireInput<TxnRequest>;
type Range = WireInput<RangeRequest>;
const maxInt64 = 9_223_372_036_854_775_807n;

export function createGenerator(random: Random) {
  const pick = (n: number) => Math.floor(random.float() * n);
  const chance = (p: number) => random.float() < p;
  const one = <T>(...items: readonly T[]): T => items[pick(items.length)] as T;
  const bytes = (text: string) => Buffer.from(text, "latin1");
  const folders = ["/n/", "/a/", "/b/", "b", "\xff\xfe", "/a/b/"];
  /** Only these are deleted within nested transactions, and none of them is put there: etcd overlooks some overlaps. */
  const nestedDelete = () => bytes(`/n/${pick(4)}`);
  const key = () => bytes(one(...folders) + one("", "0", "1", "2", "3", "x\x00", "\x00", "\xff") || "k");
  const value = () => (chance(0.01) ? random.bytes(pick(60_000)) : random.bytes(pick(12)));
  const leaseId = () => (chance(0.7) ? 0 : anyLease());
  const anyLease = () => one<number | bigint>(0, 1, 2, 3, 4, 5, maxInt64, -1);

  const range = (plain = false): { key: Buffer; rangeEnd?: Buffer } => {
    const from = key();
    switch (pick(plain ? 3 : 7)) {
      case 0:
      case 1:
        return { key: from };
      case 2: {
        const prefix = bytes(one("/a/", "/b/", "/", "b"));
        const end = Buffer.from(prefix);
        end[end.length - 1]!++;
        return { key: prefix, rangeEnd: end };
      }
      case 3:
        return { key: from, rangeEnd: bytes("\0") };
      case 4:
        return { key: bytes("\0"), rangeEnd: bytes("\0") };
      case 5:
        return { key: from, rangeEnd: key() };
      default:
        return { key: from, rangeEnd: Buffer.concat([from, bytes("\0")]) };
    }
  };
  const somewhere = (h: History) =>
    one(0, 0, 0, h.revision, h.compacted, h.compacted - 1, h.compacted + 1, h.revision + 1, -3, pick(h.revision) + 1);
  const bound = (h: History) => (chance(0.1) ? pick(h.revision) + 1 : 0);

  const rangeRequest = (h: History): Range => ({
    ...range(),
    limit: chance(0.4) ? pick(6) : 0,
    revision: chance(0.5) ? 0 : somewhere(h),
    sortOrder: one<0 | 1 | 2>(0, 0, 0, 1, 2),
    sortTarget: one<0 | 1 | 2 | 3 | 4>(0, 0, 0, 0, 1, 2, 3, 4),
    serializable: chance(0.3),
    keysOnly: chance(0.2),
    countOnly: chance(0.15),
    minModRevision: bound(h),
    maxModRevision: bound(h),
    minCreateRevision: bound(h),
    maxCreateRevision: bound(h),
  });
  const putRequest = (depth = 0) => {
    const [ignoreValue, ignoreLease] = [chance(0.08), chance(0.08)];
    return {
      key: chance(0.01) ? bytes("") : depth > 0 ? bytes(`/a/${pick(6)}`) : key(),
      value: ignoreValue && chance(0.9) ? bytes("") : value(),
      lease: ignoreLease && chance(0.9) ? 0 : leaseId(),
      prevKv: chance(0.3),
      ignoreValue,
      ignoreLease,
    };
  };
  const compare = (h: History): WireInput<Compare> => {
    const common = { ...(chance(0.8) ? { key: key() } : range()), result: one<0 | 1 | 2 | 3>(0, 1, 2, 3) };
    switch (pick(5)) {
      case 0:
        return { ...common, target: 0, version: pick(4) };
      case 1:
        return { ...common, target: 1, createRevision: chance(0.5) ? 0 : pick(h.revision + 2) };
      case 2:
        return { ...common, target: 2, modRevision: chance(0.5) ? 0 : pick(h.revision + 2) };
      case 3:
        return { ...common, target: 3, value: value() };
      default:
        return { ...common, target: 4, lease: pick(3) };
    }
  };
  const op = (h: History, depth: number): WireInput<RequestOp> => {
    const kind = random.float();
    if (kind < 0.4) return { requestPut: putRequest(depth) };
    if (kind < 0.7) return { requestRange: rangeRequest(h) };
    if (kind < 0.9 || depth >= 3)
      return { requestDeleteRange: { ...(depth > 0 ? { key: nestedDelete() } : range(true)), prevKv: chance(0.5) } };
    return { requestTxn: txn(h, depth + 1) };
  };
  const txn = (h: History, depth: number): Txn => ({
    compare: Array.from({ length: pick(3) }, () => compare(h)),
    success: Array.from({ length: pick(4) }, () => op(h, depth)),
    failure: Array.from({ length: pick(3) }, () => op(h, depth)),
  });

  return {
    /** A random operation; never a compaction. */
    next(h: History): Operation {
      const kind = random.float();
      const make = <K extends keyof EtcdMethods>(method: K, request: WireInput<EtcdMethods[K]["request"]>): Operation =>
        ({ method, request }) as unknown as Operation;
      if (kind < 0.3) return make("KV/Put", putRequest());
      if (kind < 0.58) return make("KV/Range", rangeRequest(h));
      if (kind < 0.65) return make("KV/DeleteRange", { ...(chance(0.8) ? range(true) : range()), prevKv: chance(0.5) });
      if (kind < 0.9) return make("KV/Txn", txn(h, 0));
      if (kind < 0.94) {
        const ttl = one<number | bigint>(600, 700, 800, 9_000_000_001, maxInt64);
        return make("Lease/LeaseGrant", { ID: 1 + pick(5), TTL: ttl });
      }
      if (kind < 0.96) return make("Lease/LeaseRevoke", { ID: anyLease() });
      if (kind < 0.98) return make("Lease/LeaseTimeToLive", { ID: anyLease(), keys: chance(0.7) });
      return make("Lease/LeaseLeases", {});
    },
    compaction: (h: History) => ({
      revision: one(h.compacted, h.revision + 1, h.revision, h.compacted + pick(h.revision - h.compacted + 1)),
      physical: chance(0.5),
    }),
    watch: (h: History) => ({
      ...range(),
      // Not the compacted revision itself, which etcd serves as far as it still can and mote does not.
      startRevision: one(
        0,
        0,
        Math.max(h.revision, h.compacted + 1) + pick(10),
        h.compacted + 1 + pick(h.revision - h.compacted + 1),
        h.compacted > 1 ? 1 : 0,
      ),
      prevKv: chance(0.5),
      filters: chance(0.75) ? [] : [one<0 | 1>(0, 1)],
      fragment: chance(0.3),
      progressNotify: chance(0.2),
      watchId: chance(0.8) ? 0 : pick(20),
    }),
    pick,
    chance,
  };
}

/** The parts of an answer that both must give. */
export function normalized(operation: Operation, answer: Answer): unknown {
  if (!("ok" in answer)) return answer;
  const { method, request } = operation;
  return plain(strip(method, request as Record<string, unknown>, answer.ok as Record<string, unknown>));
}

function strip(method: string, request: Record<string, unknown>, answer: Record<string, unknown>): object {
  const { header, ...rest } = answer as { header?: { revision: unknown } };
  const out: Record<string, unknown> = { revision: header?.revision, ...rest };
  if (method === "KV/Range") return { ...out, ...ordered(request as unknown as RangeRequest, rest as never) };
  if (method === "KV/Txn") {
    const chosen = (answer["succeeded"] ? request["success"] : request["failure"]) as Record<string, unknown>[];
    const responses = answer["responses"] as Record<string, Record<string, unknown>>[];
    out["responses"] = responses.map((response, i) => {
      const asked = chosen?.[i] ?? {};
      if (response["responseRange"]) {
        return { range: strip("KV/Range", asked["requestRange"] as never, response["responseRange"]) };
      }
      if (response["responseTxn"]) {
        return { txn: strip("KV/Txn", asked["requestTxn"] as never, response["responseTxn"]) };
      }
      return Object.fromEntries(
        Object.entries(response).map(([name, inner]) => [name, inner ? strip("", {}, inner) : inner]),
      );
    });
    return out;
  }
  if (method === "Lease/LeaseTimeToLive") {
    out["keys"] = (answer["keys"] as Buffer[]).map((k) => Buffer.from(k).toString("hex")).sort();
    out["TTL"] = Math.round(Number(answer["TTL"]) / 100);
  }
  if (method === "Lease/LeaseLeases") {
    out["leases"] = (answer["leases"] as { ID: unknown }[]).map(({ ID }) => String(ID)).sort();
  }
  return out;
}

const sortKeys = ["key", "version", "createRevision", "modRevision", "value"];

/** Where keys are not the order, equals may come in any: then only what they were sorted by is compared. */
function ordered(request: Partial<RangeRequest>, answer: { kvs: Record<string, unknown>[] }): object {
  const target = request.sortTarget ?? 0;
  if (target === 0) return {};
  const cut = Number(request.limit ?? 0) > 0;
  const text = (value: unknown) => (value instanceof Uint8Array ? Buffer.from(value).toString("hex") : String(value));
  const sorted = request.keysOnly && target === 4 ? [] : answer.kvs.map((kv) => text(kv[sortKeys[target]!]));
  const all = cut ? answer.kvs.length : answer.kvs.map((kv) => JSON.stringify(plain(kv))).sort();
  return { kvs: { sorted, all } };
}

/** Comparable: bytes as text, big and small numbers alike. */
export function plain(value: unknown): unknown {
  if (value instanceof Uint8Array)
    return value.length > 64 ? `${value.length} bytes ${sum(value)}` : Buffer.from(value).toString("latin1");
  if (typeof value === "bigint") return String(value);
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)]));
  }
  return value;
}

const sum = (bytes: Uint8Array): number => bytes.reduce((a, b) => (a * 31 + b) >>> 0, 7);
