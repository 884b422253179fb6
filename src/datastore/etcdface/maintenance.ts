// The Maintenance and Cluster services: state of the store, alarms, hashes, snapshots. There is one member and no raft:
// indexes are revisions. Hashes are over keys, values and their revisions, in our own form: they agree between stores
// of the same content and history, not with etcd's. Upstream counterpart: etcd api/v3rpc/maintenance.go.
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { GrpcStream } from "#platform/grpc-server.ts";
import type { AlarmRequest, HashKVRequest } from "#wire/gen/etcd.ts";
import { GrpcError } from "#wire/grpc.ts";
import { revision as asRevision, type Backend } from "../backend.ts";
import { etcdError } from "./errors.ts";
import { toNumber } from "./kv.ts";
import type { Identity } from "./messages.ts";

export interface StoreSizes {
  readonly totalBytes: number;
  readonly usedBytes: number;
}

/** A consistent image of the store; its size is a multiple of 512, as etcdctl expects. */
export interface SnapshotSource {
  readonly sizeBytes: number;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export interface MaintenanceDeps {
  readonly backend: Backend;
  readonly identity: Identity;
  readonly alarms: Alarms;
  /** What is said to be served: clients choose what they ask for by it. */
  readonly etcdVersion: string;
  readonly clientUrls: readonly string[];
  readonly sizes: () => Promise<StoreSizes>;
  readonly openSnapshot: (() => Promise<SnapshotSource>) | undefined;
  header(): object;
}

const alarmNames = ["NONE", "NOSPACE", "CORRUPT"] as const;
const noSpace = 1;
const corrupt = 2;
/** One for each member that a client cares to name. */
const maxAlarms = 64;

interface AlarmMember {
  readonly memberID: number | bigint;
  readonly alarm: number;
}

/** Raised by clients, and NOSPACE while the store refuses writes for want of space; that one ends by itself. */
export class Alarms {
  readonly #self: number;
  readonly #raised = new Map<string, AlarmMember>();
  #full = false;

  constructor(memberId: number) {
    this.#self = memberId;
  }

  /** What a write of ours met. */
  note(full: boolean): void {
    this.#full = full;
  }

  /** Throws where an alarm forbids what adds to the store, or everything. */
  check(adds: boolean): void {
    for (const { alarm } of this.#raised.values()) {
      if (alarm === corrupt) throw etcdError("corrupt");
      if (alarm === noSpace && adds) throw etcdError("noSpace");
    }
  }

  list(alarm = 0): AlarmMember[] {
    const own = { memberID: this.#self, alarm: noSpace };
    const raised = [...this.#raised.values()];
    if (this.#full && !raised.some((a) => a.alarm === noSpace && a.memberID === this.#self)) raised.push(own);
    return raised.filter((a) => alarm === 0 || a.alarm === alarm);
  }

  raise(member: AlarmMember): boolean {
    if (this.#raised.size >= maxAlarms) throw new GrpcError("RESOURCE_EXHAUSTED", "etcdserver: too many alarms");
    this.#raised.set(nameOf(member), member);
    return true;
  }

  clear(member: AlarmMember): boolean {
    const full = this.#full && member.alarm === noSpace && Number(member.memberID) === this.#self;
    if (full) this.#full = false;
    return this.#raised.delete(nameOf(member)) || full;
  }
}

const nameOf = ({ memberID, alarm }: AlarmMember): string => `${memberID}/${alarm}`;

export async function alarm({ alarms, header }: MaintenanceDeps, request: AlarmRequest): Promise<object> {
  const { action, alarm: type, memberID } = request;
  if (action === 0) return { header: header(), alarms: alarms.list(type) };
  if (type !== noSpace && type !== corrupt) return { header: header() };
  const member = { memberID, alarm: type };
  const done = action === 1 ? alarms.raise(member) : alarms.clear(member);
  return { header: header(), alarms: done ? [member] : [] };
}

export async function status(deps: MaintenanceDeps): Promise<object> {
  const { backend, identity, alarms, etcdVersion, header } = deps;
  const { totalBytes, usedBytes } = await deps.sizes();
  return {
    header: header(),
    version: etcdVersion,
    dbSize: totalBytes,
    dbSizeInUse: usedBytes,
    leader: identity.memberId,
    raftIndex: backend.revision(),
    raftAppliedIndex: backend.revision(),
    raftTerm: identity.raftTerm,
    errors: alarms.list().map((a) => `memberID:${a.memberID} alarm:${alarmNames[a.alarm]} `),
  };
}

export async function hash(deps: MaintenanceDeps): Promise<object> {
  const { backend, header } = deps;
  return { header: header(), hash: await hashAt(backend, backend.revision()) };
}

export async function hashKv(deps: MaintenanceDeps, request: HashKVRequest): Promise<object> {
  const { backend, header } = deps;
  const asked = toNumber(request.revision);
  const at = asked > 0 ? asked : backend.revision();
  const result = await hashAt(backend, at);
  return { header: header(), hash: result, compactRevision: backend.compactedRevision() };
}

/** Keys of one slice: what else the process does must not wait for the whole key space. */
const hashPageKeys = 500;

async function hashAt(backend: Backend, at: number): Promise<number> {
  let sum = 0;
  let key = "\0";
  for (;;) {
    const page = await backend.range({ key, end: "\0", revision: asRevision(at), limit: hashPageKeys });
    for (const kv of page.kvs) {
      const numbers = Buffer.alloc(40);
      for (const [i, n] of [kv.modRevision, kv.createRevision, kv.version, kv.lease, kv.key.length].entries())
        numbers.writeDoubleLE(n, i * 8);
      sum = crc32(kv.value, crc32(Buffer.from(kv.key, "latin1"), crc32(numbers, sum)));
    }
    if (!page.more) return sum >>> 0;
    key = `${page.kvs[page.kvs.length - 1]!.key}\0`;
  }
}

/** The image in messages, then its SHA-256, as etcdctl checks it. */
export async function serveSnapshot(
  stream: GrpcStream,
  deps: MaintenanceDeps & { frame(answer: object): Uint8Array },
): Promise<void> {
  for await (const _ of stream.messages) break;
  if (!deps.openSnapshot)
    throw new GrpcError("UNIMPLEMENTED", "etcdserver: this datastore has no snapshots of its own");
  const { sizeBytes, chunks } = await deps.openSnapshot();
  const digest = createHash("sha256");
  let sent = 0;
  for await (const blob of chunks) {
    stream.signal.throwIfAborted();
    digest.update(blob);
    sent += blob.length;
    if (!stream.write(deps.frame({ remainingBytes: Math.max(0, sizeBytes - sent), blob }))) await stream.drained();
  }
  if (sent !== sizeBytes) throw new GrpcError("DATA_LOSS", `etcdserver: snapshot of ${sizeBytes} bytes had ${sent}`);
  stream.write(deps.frame({ remainingBytes: 0, blob: digest.digest() }));
}

export async function memberList({ identity, clientUrls, header }: MaintenanceDeps): Promise<object> {
  return { header: header(), members: [{ ID: identity.memberId, name: "mote", clientURLs: clientUrls }] };
}
