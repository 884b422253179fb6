import { expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import type { FileSystemSize } from "#platform/folders.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { until } from "#test/harness/until.ts";
import { Sampler } from "./sampler.ts";

const size: FileSystemSize = { totalBytes: 10, freeBytes: 4, inodes: 0, inodesFree: 0 };

/** A node with a pod per folder, each with one claim; folders that begin with `dead` answer when they are woken. */
function setup(...folders: string[]) {
  const clock = new FakeClock();
  const waiting = new Map<string, (() => void)[]>();
  const asked: string[] = [];
  async function fileSystemSize(folder: string): Promise<FileSystemSize> {
    asked.push(folder);
    if (folder.startsWith("/gone")) throw new Error("ENOENT");
    if (folder.startsWith("/dead")) {
      await new Promise<void>((resolve) => waiting.set(folder, [...(waiting.get(folder) ?? []), resolve]));
    }
    return size;
  }
  const sandbox = { id: "s", ready: true, attempt: 0, createdAtMs: 0, ips: [] };
  const pods = folders.map((folder) => ({
    pod: {
      metadata: { uid: folder, name: folder, namespace: "ns" },
      spec: { containers: [], volumes: [{ name: "data", persistentVolumeClaim: { claimName: folder } }] },
    } as unknown as Pod,
    observed: { uid: folder, name: folder, namespace: "ns", sandboxes: [sandbox], containers: [] },
  }));
  const sampler = new Sampler({
    ...{
      clock,
      podsCgroup: "/kubepods",
      podLogRoot: "/none",
      podFolder: () => "/none",
      pods: () => pods,
      fileSystemSize,
    },
    cri: { containerStats: async () => [] },
    mountedAt: (uid: string) => uid,
  });
  /** Asks what is known of the named folders; the answer comes in its own time. */
  const start = (which: readonly string[]) => {
    let found: string[] | undefined;
    const done = sampler
      .usageOf((pod) => which.includes(pod.metadata.uid ?? ""))
      .then((usage) => {
        found = usage.filter((one) => one.volumes.length > 0).map((one) => one.uid);
      });
    return { found: () => found, done };
  };
  /** What is known of the named folders, while `ms` pass. */
  const sample = async (ms: number, which: readonly string[] = folders) => {
    const { found, done } = start(which);
    let passedMs = 0;
    // The rest of a sample is read from the real machine.
    await until(async () => {
      if (found()) return true;
      if (passedMs >= ms) return false;
      await clock.advance(500);
      passedMs += 500;
      return false;
    }, "an answer");
    return { found: found(), done };
  };
  const wake = () => {
    for (const resolve of [...waiting.values()].flat()) resolve();
    waiting.clear();
  };
  return { clock, asked, start, sample, wake };
}

test("one that does not answer leaves the others their figures, and is not asked again meanwhile", async () => {
  const { clock, asked, start, sample, wake } = setup("/dead/1", "/live/1", "/gone/1", "/live/2");
  expect((await sample(3000)).found).toEqual(["/live/1", "/live/2"]);
  await clock.advance(61_000);
  expect((await sample(0)).found).toEqual(["/live/1", "/live/2"]);
  expect(asked.filter((folder) => folder === "/dead/1")).toHaveLength(1);
  wake();
  await clock.advance(61_000);
  const last = start(["/dead/1", "/live/1", "/gone/1", "/live/2"]);
  // Asked anew once it has answered.
  await until(() => asked.filter((folder) => folder === "/dead/1").length === 2);
  wake();
  await last.done;
});

test("however many do not answer, two threads wait at most, and nobody else waits for them", async () => {
  const dead = ["/dead/1", "/dead/2", "/dead/3", "/dead/4", "/dead/5"];
  const { clock, asked, sample } = setup(...dead, "/live/1");
  // Which of them come first is left to the machine: pods are looked at beside each other.
  expect((await sample(5000, dead)).found).toEqual([]);
  expect(asked).toHaveLength(2);
  expect((await sample(5000)).found).toEqual([]);
  expect(asked).toHaveLength(2);
  await clock.advance(61_000);
  expect((await sample(0)).found).toEqual([]);
  expect(asked).toHaveLength(2);
  expect(clock.pending).toBe(0);
});

test("at once, folders that answer wait for each other and all have figures", async () => {
  const folders = ["/dead/1", "/dead/2", "/dead/3"];
  const { start, sample, wake, asked } = setup(...folders);
  const started = folders.map((folder) => start([folder]));
  await until(() => asked.length >= 2);
  await settle();
  expect(asked).toHaveLength(2);
  wake();
  await until(() => asked.length >= 3);
  wake();
  await Promise.all(started.map((one) => one.done));
  expect(asked.toSorted()).toEqual(folders);
  expect((await sample(0)).found).toEqual(folders);
});
