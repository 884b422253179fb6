// The same operations to Debian's etcd and to mote: every answer must be the same, field by field, and so must what
// watchers are told. `npm run test:etcd -- --operations N --seed N` makes it longer; the seed of a failure repeats it.
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { etcdMethods, type ResponseHeader, type WatchRequest } from "#wire/gen/etcd.ts";
import { isGrpcError } from "#wire/grpc.ts";
import type { WireInput } from "#wire/protobuf.ts";
import { createGenerator, type History, normalized, type Operation, plain } from "./operations.ts";
import { type Answer, codec, etcdPath, type Peer, startEtcd, startMote } from "./peers.ts";
import { RawClient } from "./raw-client.ts";
import { WatchProbe } from "./watcher.ts";

/** A minute or two: both peers answer each before the next, and all of it shares two cores with other tests. */
const operations = Number(process.env["MOTE_ETCD_OPERATIONS"] ?? 100_000);
const seed = Number(process.env["MOTE_ETCD_SEED"] ?? 20261121);
/** Between two looks at what the watchers were told. */
const roundSize = 100;
const maxWatches = 16;
/** Operations between two changes of who watches, and how many change. */
const changeEvery = 500;
const changes = 20;

const path = await etcdPath();
let etcd: Peer;
let mote: Peer;
let clients: readonly RawClient[] = [];

beforeAll(async () => {
  if (!path) return;
  [etcd, mote] = await Promise.all([startEtcd(path), startMote()]);
  const portOf = ({ address }: Peer) => Number(address.split(":").at(-1));
  clients = await Promise.all([etcd, mote].map((peer) => RawClient.open(portOf(peer))));
});
afterAll(async () => {
  for (const client of clients) client.close();
  await etcd?.close();
  await mote?.close();
});

interface Raw {
  readonly bytes?: Uint8Array;
  readonly answer?: Answer;
}

/** An answer as bytes, or the error. */
async function ask(client: RawClient, { method }: Operation, message: Uint8Array): Promise<Raw> {
  try {
    return { bytes: await client.unary(etcdMethods[method].path, message) };
  } catch (error) {
    if (!isGrpcError(error)) throw error;
    return { answer: { code: error.code, message: error.message } };
  }
}

/** The header, first in every answer, and what is behind it. */
function split(bytes: Uint8Array): { readonly revision: number; readonly rest: Uint8Array } {
  const size = bytes[1]!;
  if (bytes[0] !== 10 || size > 127) throw new Error("an answer does not begin with a header");
  const header = codec.decode<ResponseHeader>("ResponseHeader", bytes.subarray(2, 2 + size));
  return { revision: Number(header.revision), rest: bytes.subarray(2 + size) };
}

function decoded({ method }: Operation, raw: Raw): Answer {
  return raw.bytes ? { ok: codec.decode(etcdMethods[method].response, raw.bytes) } : raw.answer!;
}

/** Held against each other byte by byte; field by field where these differ, for etcd leaves some things open. */
function compare(operation: Operation, what: string, theirs: Raw, ours: Raw): void {
  if (theirs.bytes && ours.bytes) {
    const [a, b] = [split(theirs.bytes), split(ours.bytes)];
    if (a.revision === b.revision && Buffer.compare(a.rest, b.rest) === 0) return;
  }
  const [expected, actual] = [theirs, ours].map((raw) => normalized(operation, decoded(operation, raw)));
  if (isDeepStrictEqual(actual, expected)) return;
  expect(actual, `${what}: ${operation.method} ${JSON.stringify(plain(operation.request))}`).toEqual(expected);
}

test.skipIf(!path)(
  `${operations} operations are answered as etcd answers them (seed ${seed})`,
  { timeout: 60_000 + operations * 20 },
  async () => {
    const generate = createGenerator(seededRandom(seed));
    const history: History = { revision: 1, compacted: 0 };
    const codes = new Map<string, number>();
    let owed = (): void => {};
    /** What the answers say is looked at while the next one is under way. */
    const run = async (operation: Operation, what: string): Promise<boolean> => {
      const message = codec.encode(etcdMethods[operation.method].request, operation.request as object);
      const asked = Promise.all(clients.map((client) => ask(client, operation, message)));
      owed();
      owed = () => {};
      const [theirs, ours] = (await asked) as [Raw, Raw];
      if (theirs.bytes) history.revision = split(theirs.bytes).revision;
      owed = () => compare(operation, what, theirs, ours);
      const failure = theirs.answer as { message?: string } | undefined;
      const outcome = failure?.message ?? `${operation.method} ok`;
      codes.set(outcome, (codes.get(outcome) ?? 0) + 1);
      return theirs.bytes !== undefined;
    };
    // An etcd that was never compacted takes revision -1 for one that is there; nobody relies on that.
    await run({ method: "KV/Compact", request: { revision: 1 } }, "the first compaction");
    history.compacted = 1;
    const all = { key: Buffer.from("\0"), rangeEnd: Buffer.from("\0") };
    const probes = [await WatchProbe.open(etcd.client, "etcd"), await WatchProbe.open(mote.client, "mote")] as const;
    // One that sees everything is always there: without a watch etcd tells no progress.
    for (const probe of probes) probe.request({ createRequest: { ...all, prevKv: true, watchId: 1000 } });
    await Promise.all(probes.map((probe) => probe.barrier(history.revision)));
    const open = new Set<number>();
    let told = 0;
    for (let done = 0; done < operations; ) {
      for (let i = 0; i < roundSize; i++, done++) {
        await run(generate.next(history), `operation ${done} of seed ${seed}`);
      }
      owed();
      await Promise.all(probes.map((probe) => probe.barrier(history.revision)));
      const [theirs, ours] = probes.map((probe) => probe.take());
      if (!isDeepStrictEqual(ours, theirs)) {
        expect(ours, `watchers after operation ${done} of seed ${seed}`).toEqual(theirs);
      }
      for (const [id, { notices, events }] of Object.entries(theirs!)) {
        told += events.length;
        for (const notice of notices as { created: boolean; canceled: boolean }[]) {
          if (notice.canceled) open.delete(Number(id));
          else if (Number(id) !== 1000) open.add(Number(id));
        }
      }
      if (generate.chance(0.3)) {
        const request = generate.compaction(history);
        const isDone = await run({ method: "KV/Compact", request }, `compaction after ${done} of seed ${seed}`);
        if (isDone) history.compacted = request.revision;
      }
      await run({ method: "KV/Range", request: all }, `everything after operation ${done} of seed ${seed}`);
      owed();
      owed = () => {};
      if (done % changeEvery > 0) continue;
      // Watches begin and end between two operations, to both: what is under way may or may not be told. Many at once,
      // for etcd takes a tenth of a second to look at those that begin in the past.
      const atOnce: WireInput<WatchRequest>[] = [];
      const ended: WireInput<WatchRequest>[] = [];
      const ids = new Set<number>();
      for (let i = 0; i < changes; i++) {
        if (open.size > 0 && generate.chance(0.4)) {
          const watchId = [...open][generate.pick(open.size)]!;
          open.delete(watchId);
          atOnce.push({ cancelRequest: { watchId } });
        } else if (open.size + atOnce.length + ended.length < maxWatches) {
          const watch = generate.watch(history);
          // The second of two with one id is refused, unless the first has ended meanwhile.
          const watchId = ids.has(watch.watchId) ? 0 : watch.watchId;
          ids.add(watchId);
          const isCompacted = watch.startRevision > 0 && watch.startRevision <= history.compacted;
          (isCompacted ? ended : atOnce).push({ createRequest: { ...watch, watchId } });
        }
      }
      // Those that end at once are gone before an id of theirs may be asked for.
      for (const requests of [ended, atOnce]) {
        for (const request of requests) for (const probe of probes) probe.request(request);
        await Promise.all(probes.map((probe) => probe.barrier(history.revision)));
      }
    }
    for (const probe of probes) await probe.close();
    // The test means something only where much of the API was met.
    expect(told).toBeGreaterThan(operations / 10);
    expect([...codes.keys()].length).toBeGreaterThan(12);
    if (process.env["MOTE_ETCD_OPERATIONS"])
      console.log(
        [...codes].sort((a, b) => b[1] - a[1]),
        { told },
      );
  },
);
