// The same operations to Debian's etcd and to mote: every answer must be the same, field by field, and so must what
// watchers are told. `npm run test:etcd -- --operations N --seed N` makes it longer; the seed of a failure repeats it.
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createGenerator, type History, normalized, type Operation, plain } from "./operations.ts";
import { etcdPath, type Peer, startEtcd, startMote } from "./peers.ts";
import { WatchProbe } from "./watcher.ts";

const operations = Number(process.env["MOTE_ETCD_OPERATIONS"] ?? 4000);
const seed = Number(process.env["MOTE_ETCD_SEED"] ?? 20261121);
/** Between two looks at what the watchers were told. */
const roundSize = 100;
const maxWatches = 12;

const path = await etcdPath();
let etcd: Peer;
let mote: Peer;

beforeAll(async () => {
  if (!path) return;
  [etcd, mote] = await Promise.all([startEtcd(path), startMote()]);
});
afterAll(async () => {
  await etcd?.close();
  await mote?.close();
});

async function both(operation: Operation, what: string): Promise<Record<string, unknown>> {
  const [theirs, ours] = await Promise.all([
    etcd.client.call(operation.method, operation.request as never),
    mote.client.call(operation.method, operation.request as never),
  ]);
  const [expected, actual] = [normalized(operation, theirs as never), normalized(operation, ours as never)];
  if (!isDeepStrictEqual(actual, expected)) {
    expect(actual, `${what}: ${operation.method} ${JSON.stringify(plain(operation.request))}`).toEqual(expected);
  }
  return actual as Record<string, unknown>;
}

test.skipIf(!path)(
  `${operations} operations are answered as etcd answers them (seed ${seed})`,
  { timeout: 60_000 + operations * 20 },
  async () => {
    const generate = createGenerator(seededRandom(seed));
    const history: History = { revision: 1, compacted: 0 };
    const run = async (operation: Operation, what: string) => {
      const answer = await both(operation, what);
      if (typeof answer["revision"] === "string") history.revision = Number(answer["revision"]);
      return answer;
    };
    // An etcd that was never compacted takes revision -1 for one that is there; nobody relies on that.
    await run({ method: "KV/Compact", request: { revision: 1 } }, "the first compaction");
    history.compacted = 1;
    const all = { key: Buffer.from("\0"), rangeEnd: Buffer.from("\0") };
    const probes = [await WatchProbe.open(etcd.client, "etcd"), await WatchProbe.open(mote.client, "mote")] as const;
    // One that sees everything is always there: without a watch etcd tells no progress.
    for (const probe of probes) probe.request({ createRequest: { ...all, prevKv: true, watchId: 1000 } });
    const open = new Set<number>();
    const codes = new Map<string, number>();
    let told = 0;
    for (let done = 0; done < operations; ) {
      for (let i = 0; i < roundSize; i++, done++) {
        if (generate.chance(0.02)) {
          // A watch begins and ends between two operations, to both: what is under way may or may not be told.
          await Promise.all(probes.map((probe) => probe.barrier(history.revision)));
          const request =
            open.size < maxWatches
              ? { createRequest: generate.watch(history) }
              : { cancelRequest: { watchId: [...open][generate.pick(open.size)]! } };
          if ("cancelRequest" in request) open.delete(request.cancelRequest.watchId);
          for (const probe of probes) probe.request(request as never);
          await Promise.all(probes.map((probe) => probe.barrier(history.revision)));
        }
        const operation = generate.next(history);
        const answer = await run(operation, `operation ${done} of seed ${seed}`);
        const outcome = typeof answer["message"] === "string" ? answer["message"] : `${operation.method} ok`;
        codes.set(outcome, (codes.get(outcome) ?? 0) + 1);
      }
      await Promise.all(probes.map((probe) => probe.barrier(history.revision)));
      const [theirs, ours] = probes.map((probe) => probe.take());
      expect(ours, `watchers after operation ${done} of seed ${seed}`).toEqual(theirs);
      for (const [id, { notices, events }] of Object.entries(theirs!)) {
        told += events.length;
        for (const notice of notices as { created: boolean; canceled: boolean }[]) {
          if (notice.canceled) open.delete(Number(id));
          else if (Number(id) !== 1000) open.add(Number(id));
        }
      }
      if (generate.chance(0.3)) {
        const request = generate.compaction(history);
        const answer = await run({ method: "KV/Compact", request }, `compaction after ${done} of seed ${seed}`);
        if (answer["code"] === undefined) history.compacted = request.revision;
      }
      await run({ method: "KV/Range", request: all }, `everything after operation ${done} of seed ${seed}`);
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
