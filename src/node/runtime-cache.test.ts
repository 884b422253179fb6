// What the cache makes of containerd's events: ends are asked about alone, and lack of memory is told before the status is.
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import * as wire from "#wire/gen/cri.ts";
import { GrpcError } from "#wire/grpc.ts";
import { type Cri, type TaskEvent, taskEvent } from "./cri.ts";
import { annotations, labels, RuntimeCache } from "./runtime-cache.ts";

const running = wire.ContainerState.CONTAINER_RUNNING;
const exited = wire.ContainerState.CONTAINER_EXITED;

interface Fake {
  state: wire.ContainerState;
  reason: string;
  exitCode: number;
}

/** A runtime with one pod of one container, and events that the test sends. */
function rig(
  options: {
    readonly limit?: string;
    readonly kills?: () => number | undefined;
    readonly machineKills?: () => number | undefined;
  } = {},
) {
  const clock = new FakeClock();
  const container: Fake = { state: running, reason: "", exitCode: 0 };
  const calls = { lists: 0, statuses: 0 };
  const of = { [labels.podUid]: "u", [labels.podName]: "p", [labels.podNamespace]: "ns" };
  const queue: TaskEvent[] = [];
  let wake = () => {};
  let isGone = false;
  let id = "c1";
  const cri = {
    async listSandboxes() {
      calls.lists++;
      return [{ id: "s1", labels: of, state: wire.PodSandboxState.SANDBOX_READY, createdAt: 1 }];
    },
    sandboxStatus: async () => ({ id: "s1", state: wire.PodSandboxState.SANDBOX_READY }),
    async listContainers() {
      const resources = options.limit === undefined ? {} : { limits: { memory: options.limit } };
      return [
        {
          ...{ id, podSandboxId: "s1", metadata: { name: "main", attempt: 0 }, state: container.state },
          annotations: { [annotations.resources]: JSON.stringify(resources) },
          labels: { ...of, [labels.containerName]: "main" },
        },
      ];
    },
    async containerStatus() {
      calls.statuses++;
      if (isGone) throw new GrpcError("NOT_FOUND", "gone");
      return { ...container, id, createdAt: 1, startedAt: 1, finishedAt: 2 };
    },
    async *taskEvents(signal: AbortSignal) {
      while (!signal.aborted) {
        const next = queue.shift();
        if (next) yield next;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    },
  } as unknown as Cri;
  const cache = new RuntimeCache({
    cri,
    clock,
    log: silentLogger,
    oomKills: options.kills ?? (() => undefined),
    machineOomKills: options.machineKills ?? (() => 7),
  });
  const changed: string[] = [];
  cache.onChange = (uid) => changed.push(uid);
  const send = (kind: TaskEvent["kind"], containerId = "c1") => {
    queue.push({ kind, containerId });
    wake();
  };
  const stop = new AbortController();
  return {
    ...{ cache, clock, container, calls, changed, send, stop },
    remove: () => {
      isGone = true;
    },
    /** There is another container instead. */
    young: (other: string) => {
      id = other;
      isGone = false;
    },
    watch: () => cache.watch(stop.signal),
    end: () => {
      stop.abort(new Error("done"));
      wake();
    },
  };
}

const settled = () => new Promise<void>((resolve) => setTimeout(resolve, 5));
const reasonOf = async (r: ReturnType<typeof rig>) => (await r.cache.refresh("u", "ns", "p")).containers[0]?.reason;

test("an end is told when the runtime shows it, without a list of the whole node", async () => {
  const r = rig();
  await r.cache.relist();
  const watching = r.watch();
  await settled();
  r.changed.length = 0;
  const { lists } = r.calls;
  r.send("exit");
  await settled();
  expect(r.changed).toEqual([]);
  r.container.state = exited;
  await r.clock.advance(10);
  await settled();
  expect(r.changed).toEqual(["u"]);
  expect(r.calls.lists).toBe(lists);
  // One that the cache has never seen is found by a list.
  r.send("exit", "unknown");
  await settled();
  expect(r.calls.lists).toBeGreaterThan(lists);
  r.end();
  await r.clock.advance(60_000);
  await watching;
});

test("a container that was removed has ended", async () => {
  const r = rig();
  await r.cache.relist();
  const watching = r.watch();
  await settled();
  r.changed.length = 0;
  r.remove();
  r.send("exit");
  await settled();
  expect(r.changed).toEqual(["u"]);
  r.end();
  await r.clock.advance(60_000);
  await watching;
});

test.each([
  ["the kernel's count for the pod has grown", 137, [3, 4], "OOMKilled"],
  ["it has not", 137, [3, 3], ""],
  ["it ended by itself", 1, [3, 4], ""],
])("a killed container counts as out of memory where %s", async (_, exitCode, counts, reason) => {
  let at = 0;
  const r = rig({ kills: () => counts[at] });
  await r.cache.relist();
  at = 1;
  Object.assign(r.container, { state: exited, exitCode });
  expect(await reasonOf(r)).toBe(reason);
});

test.each([
  ["16Mi", [7, 8], "OOMKilled"],
  ["16Mi", [7, 7], ""],
  // Somebody else's.
  [undefined, [7, 8], ""],
  ["16Mi", [undefined, undefined], ""],
] as const)(
  "where the kernel does not count for pods, its count for the machine is believed of limit %s, %j",
  async (limit, counts, reason) => {
    let at = 0;
    const r = rig({ ...(limit === undefined ? {} : { limit }), machineKills: () => counts[at] });
    await r.cache.relist();
    at = 1;
    Object.assign(r.container, { state: exited, exitCode: 137 });
    expect(await reasonOf(r)).toBe(reason);
    // One kill is one container's.
    r.young("c2");
    expect(await reasonOf(r)).toBe("");
  },
);

test("a container that runs out of memory before any list has it is told as that", async () => {
  const r = rig({ limit: "16Mi" });
  const watching = r.watch();
  r.remove();
  await settled();
  r.send("oom", "c2");
  await settled();
  r.container.state = exited;
  r.container.exitCode = 137;
  r.young("c2");
  expect(await reasonOf(r)).toBe("OOMKilled");
  r.end();
  await r.clock.advance(60_000);
  await watching;
});

test("a word that comes too late puts right what was told", async () => {
  const r = rig();
  await r.cache.relist();
  const watching = r.watch();
  await settled();
  Object.assign(r.container, { state: exited, exitCode: 137 });
  expect(await reasonOf(r)).toBe("");
  r.changed.length = 0;
  r.send("oom");
  await settled();
  expect(r.changed).toEqual(["u"]);
  expect(await reasonOf(r)).toBe("OOMKilled");
  r.end();
  await r.clock.advance(60_000);
  await watching;
});

const bytes = (number: number, value: Uint8Array | string): Buffer => {
  const content = Buffer.from(value as string);
  return Buffer.concat([Buffer.from([(number << 3) | 2, content.length]), content]);
};
const envelope = (topic: string, value: Buffer) =>
  Buffer.concat([bytes(2, "k8s.io"), bytes(3, topic), bytes(4, Buffer.concat([bytes(1, "type"), bytes(2, value)]))]);

test.each([
  ["/tasks/exit", Buffer.concat([bytes(1, "c1"), bytes(2, "c1")]), { kind: "exit", containerId: "c1" }],
  // The end of an exec.
  ["/tasks/exit", Buffer.concat([bytes(1, "c1"), bytes(2, "exec")]), undefined],
  ["/tasks/oom", bytes(1, "c1"), { kind: "oom", containerId: "c1" }],
])("an envelope of %s is read", (topic, value, event) => {
  expect(taskEvent(envelope(topic, value))).toEqual(event);
});
