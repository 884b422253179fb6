// What pods that come and go cost the card: a day of them under the fake clock, with the real memory over files that count
// what reaches the disk, in whole blocks, with the blocks that the file system itself writes for a new time, length or name:
// on ext4 a flush of one block was seen to take four, and a file that is replaced eight.
import { mkdtempSync, rmSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger as log } from "#base/log.ts";
import type { Transport } from "#client/transport.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { NodeMemory } from "../memory.ts";
import { defaultBounds, type StoreBounds } from "./allowance.ts";
import type { StoreFiles } from "./store.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-wear-");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const block = 4096;
/** Inode, and the journal's head and end. */
const inodeBlocks = 3;
/** The same for the file and its folder, each flushed by itself, and the folder's block. */
const replaceBlocks = 2 * inodeBlocks + 1;
const removeBlocks = inodeBlocks + 1;

class CountingDisk implements StoreFiles {
  bytes = 0;
  flushes = 0;
  readonly blocks: BlockFiles;
  readonly #files = new Map<string, string>();

  constructor() {
    const inner = new RecordedFiles();
    this.blocks = {
      open: (path, options) => this.#counted(inner.open(path, options)),
      exists: (path) => inner.exists(path),
      remove: (path) => inner.remove(path),
      rename: (from, to) => inner.rename(from, to),
      syncFolderOf: () => this.#add(inodeBlocks + 1, 1),
    };
  }
  readonly write: StoreFiles["write"] = async (path, text) => {
    this.#files.set(path, text);
    this.#add(Math.ceil(Buffer.byteLength(text) / block) + replaceBlocks, 2);
  };
  readonly remove: StoreFiles["remove"] = async (path) => {
    if (this.#files.delete(path)) this.#add(removeBlocks, 0);
  };
  #add(blocks: number, flushes: number): void {
    this.bytes += blocks * block;
    this.flushes += flushes;
  }
  #counted(file: BlockFile): BlockFile {
    let dirty = new Set<number>();
    const flushed = () => {
      this.#add(dirty.size + inodeBlocks, 1);
      dirty = new Set();
    };
    return {
      ...file,
      write(from, position) {
        for (let at = Math.floor(position / block); at * block < position + from.length; at++) dirty.add(at);
        file.write(from, position);
      },
      sync() {
        file.sync();
        flushed();
      },
      async flush() {
        await file.flush();
        flushed();
      },
    };
  }
}

const api: Transport = {
  request: async ({ method, path }) => {
    if (method === "POST") return { metadata: {}, status: { token: "t".repeat(900) } };
    if (path.endsWith("/services")) return { kind: "ServiceList", metadata: {}, items: [] };
    return {
      kind: "ConfigMap",
      metadata: { name: "m", namespace: "ns" },
      data: { "ca.crt": "c".repeat(600) },
    } as never;
  },
  watch: () => {
    throw new Error("nothing is watched");
  },
};
const spec = (restartPolicy: string) => ({
  restartPolicy,
  containers: [{ name: "main", image: "registry.example.com/team/image:1.2.3", args: ["x".repeat(1_800)] }],
  volumes: [{ name: "ca", projected: { sources: [{ configMap: { name: "kube-root-ca.crt" } }] } }],
});

/** Of the loop, between two moments: the longest chain is two flushes of the journal, each a turn. More take most of the time. */
const turns = 6;

interface Life {
  readonly restartPolicy: string;
  /** A new one so often. */
  readonly everyMs: number;
  readonly runsMs: number;
  /** Ended ones stay so long. */
  readonly keptMs: number;
}

async function wearOf(life: Life | undefined, hours: number, bounds: Partial<StoreBounds> = {}) {
  const clock = new FakeClock(undefined, { turns });
  const disk = new CountingDisk();
  const options = { folder, nodeName: "n", bounds: { ...defaultBounds, ...bounds } };
  const memory = await NodeMemory.open(options, {
    ...{ clock, log, random: seededRandom(1), files: disk },
    probe: () => Promise.resolve(),
  });
  const stop = new AbortController();
  const tasks = memory.services.map((service) => service.run(stop.signal, () => {}));
  const transport = memory.transport(api);
  const live = new Map<string, Pod>();
  const events: { atMs: number; run: () => Promise<void> | void }[] = [];
  const at = (atMs: number, run: () => Promise<void> | void) => events.push({ atMs, run });
  const podOf = (uid: string, phase: string, state: object, more: object = {}) =>
    ({
      metadata: { name: `job-${uid}`, namespace: "ns", uid, labels: { "batch.kubernetes.io/job-name": uid }, ...more },
      spec: spec(life?.restartPolicy ?? ""),
      status: { phase, containerStatuses: [{ name: "main", restartCount: 0, state, image: "i", imageID: "i" }] },
    }) as unknown as Pod;
  const say = (pod: Pod) => {
    live.set(pod.metadata.uid ?? "", pod);
    memory.remember(pod);
  };
  const run = { running: { startedAt: "2026-01-01T00:00:00Z" } };
  const over = { terminated: { exitCode: 0, finishedAt: "2026-01-01T00:00:00Z" } };
  const born = (uid: string, { runsMs, keptMs, restartPolicy }: Life, nowMs: number) => {
    const pending = podOf(uid, "Pending", { waiting: { reason: "ContainerCreating" } });
    at(nowMs, async () => {
      memory.heard(pending);
      say(pending);
      const path = "/api/v1/namespaces/ns";
      await transport.request({ method: "GET", path: `${path}/configmaps/kube-root-ca.crt` });
      await transport.request({ method: "GET", path: `${path}/services` });
      const body = { spec: { audiences: [], boundObjectRef: { uid } } };
      await transport.request({ method: "POST", path: `${path}/serviceaccounts/default/token`, body } as never);
    });
    at(nowMs + 1_000, () => say(podOf(uid, "Running", run)));
    const isService = restartPolicy === "Always";
    const deleted = { deletionTimestamp: "2026-01-01T00:00:00Z" };
    if (isService) at(nowMs + runsMs, () => say(podOf(uid, "Running", run, deleted)));
    at(nowMs + runsMs + 300, () => {
      say(podOf(uid, "Succeeded", over, isService ? deleted : {}));
      memory.heard(podOf(uid, "Succeeded", over));
    });
    at(nowMs + runsMs + keptMs + 500, async () => {
      live.delete(uid);
      await memory.forget(uid, [...live.values()]);
    });
  };
  await memory.keep([]);
  if (life) {
    for (let n = 0; n * life.everyMs < hours * 3600_000; n++) born(`u${n}`, life, 10_000 + n * life.everyMs);
  }
  for (const atMs of [10_000, hours * 3600_000]) at(atMs, () => {});
  events.sort((a, b) => a.atMs - b.atMs);
  let atStart: { bytes: number; flushes: number } | undefined;
  for (const event of events) {
    await clock.advance(event.atMs - clock.monotonicMs());
    // What the first start of a node writes is no wear.
    if (clock.monotonicMs() >= 10_000) atStart ??= { bytes: disk.bytes, flushes: disk.flushes };
    await event.run();
  }
  // What the last one has set going.
  await clock.advance(0);
  const used = { bytes: disk.bytes - atStart!.bytes, flushes: disk.flushes - atStart!.flushes };
  stop.abort();
  await Promise.all(tasks);
  return used;
}

const minute = 60_000;
const day = 24;
const cronJob: Life = { restartPolicy: "OnFailure", everyMs: minute, runsMs: 10_000, keptMs: 3 * minute };
const longJob: Life = { ...cronJob, runsMs: 90_000 };
const rollout: Life = { restartPolicy: "Always", everyMs: minute, runsMs: 5 * minute, keptMs: 0 };
const unbounded = { vitalBurstBytes: 2 ** 30, vitalDailyBytes: 2 ** 30 };

test("a node on which nothing happens writes nothing", async () => {
  expect(await wearOf(undefined, day)).toEqual({ bytes: 0, flushes: 0 });
});

const often: Life = { ...rollout, everyMs: minute / 4 };

test.each<[string, Life, number, number]>([
  ["a CronJob every minute", cronJob, 0, 0],
  ["one whose pods run for longer than a minute", longJob, 8e6, 1_500],
  ["a service that is replaced every minute", rollout, 8e6, 1_500],
])(
  "a day of it costs no more than a card can take: %s",
  async (_, life, mostBytes, mostFlushes) => {
    const used = await wearOf(life, day);
    expect(used.bytes).toBeLessThanOrEqual(mostBytes);
    expect(used.flushes).toBeLessThanOrEqual(mostFlushes);
  },
  120_000,
);

test("it is the day's budget that keeps it there, however often pods come and go", async () => {
  const hours = 3;
  // That pods which were written down have ended is owed, and may be written on credit.
  const owedBytes = 2 ** 19;
  const most = owedBytes + defaultBounds.vitalBurstBytes + (defaultBounds.vitalDailyBytes * hours) / day;
  expect((await wearOf(often, hours)).bytes).toBeLessThan(most);
  expect((await wearOf(often, hours, unbounded)).bytes).toBeGreaterThan(most);
}, 120_000);
