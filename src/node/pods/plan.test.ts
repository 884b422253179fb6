import { describe, expect, test } from "vitest";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { BackOff } from "./back-off.ts";
import type { ObservedContainer, PodObservation, ProbeView } from "./observation.ts";
import { type Action, containerHash, type PlanInput, planPod, resizeHold } from "./plan.ts";
import { recall } from "./recall.ts";

const nowMs = 1_000_000_000;
const box = (name: string, extra: Partial<Container> = {}): Container =>
  ({ name, image: "box", ...extra }) as Container;
const podOf = (spec: Partial<Pod["spec"]> = {}, status?: Pod["status"]): Pod =>
  ({
    metadata: { name: "p", namespace: "ns", uid: "u1" },
    spec: { containers: [box("main")], ...spec },
    ...(status ? { status } : {}),
  }) as Pod;

let serial = 0;
const seen = (name: string, extra: Partial<ObservedContainer> = {}): ObservedContainer => ({
  id: `c${serial++}`,
  name,
  sandboxId: "s0",
  attempt: 0,
  state: "running",
  createdAtMs: nowMs - 60_000,
  startedAtMs: nowMs - 60_000,
  finishedAtMs: 0,
  exitCode: 0,
  reason: "",
  message: "",
  image: "box",
  imageId: "sha256:1",
  hash: containerHash(box(name)),
  logPath: "",
  ...extra,
});
const exited = (name: string, exitCode: number, extra: Partial<ObservedContainer> = {}) =>
  seen(name, { state: "exited", exitCode, finishedAtMs: nowMs - 1_000, ...extra });
const observed = (containers: ObservedContainer[] = [], ready = true): PodObservation => ({
  uid: "u1",
  name: "p",
  namespace: "ns",
  sandboxes: [{ id: "s0", attempt: 0, ready, createdAtMs: 0, ips: ["10.0.0.1"] }],
  containers,
});
const nothing: PodObservation = { uid: "u1", name: "p", namespace: "ns", sandboxes: [], containers: [] };
const healthy: ProbeView = { started: true, ready: true };

const plan = (pod: Pod, seenNow: PodObservation, extra: Partial<PlanInput> = {}) =>
  planPod({
    pod,
    nowMs,
    observed: seenNow,
    probe: () => healthy,
    backOffMs: () => 0,
    holdUntilMs: () => 0,
    ...extra,
  });
const short = (actions: readonly Action[]) =>
  actions.map((a) => {
    if (a.kind === "start") return `start ${a.container.name}#${a.attempt}`;
    if (a.kind === "create-sandbox") return `sandbox#${a.attempt}`;
    if (a.kind === "kill") return `kill ${a.name}`;
    return a.kind === "stop-pod" ? `stop ${a.why}` : a.kind;
  });

describe("restart policy", () => {
  // policy, exit code, what happens, whether the pod is finished
  const cases: [string, number, string[], boolean][] = [
    ["Always", 0, ["start main#1"], false],
    ["Always", 1, ["start main#1"], false],
    ["OnFailure", 0, ["stop finished"], true],
    ["OnFailure", 1, ["start main#1"], false],
    ["Never", 0, ["stop finished"], true],
    ["Never", 1, ["stop finished"], true],
  ];
  test.each(cases)("%s after exit %i", (restartPolicy, exitCode, expected, finished) => {
    const result = plan(podOf({ restartPolicy }), observed([exited("main", exitCode)]));
    expect(short(result.actions)).toEqual(expected);
    expect(result.finished).toBe(finished);
  });

  test("Never with one of two ended waits for the other", () => {
    const pod = podOf({ restartPolicy: "Never", containers: [box("a"), box("b")] });
    expect(short(plan(pod, observed([exited("a", 1), seen("b")])).actions)).toEqual([]);
  });
  test("an ended phase is never started again, even with nothing left", () => {
    const result = plan(podOf({ restartPolicy: "OnFailure" }, { phase: "Succeeded" }), nothing);
    expect(result).toMatchObject({ actions: [], finished: true });
  });
  test("a created container that never ran is made anew", () => {
    const result = plan(podOf({ restartPolicy: "Never" }), observed([seen("main", { state: "created" })]));
    expect(short(result.actions)).toEqual(["start main#1"]);
  });
});

describe("sandbox", () => {
  test("nothing there: sandbox first", () => expect(short(plan(podOf(), nothing).actions)).toEqual(["sandbox#0"]));
  test("ready and empty: containers", () =>
    expect(short(plan(podOf({ containers: [box("a"), box("b")] }), observed()).actions)).toEqual([
      "start a#0",
      "start b#0",
    ]));
  test("lost with running containers: everything down first", () =>
    expect(short(plan(podOf(), observed([seen("main")], false)).actions)).toEqual(["stop sandbox-changed"]));
  test("lost with ended containers: next attempt", () =>
    expect(short(plan(podOf(), observed([exited("main", 137)], false)).actions)).toEqual(["sandbox#1"]));
  test("containers of a lost sandbox count on in the new one", () => {
    const fresh: PodObservation = {
      ...observed([exited("main", 137)]),
      sandboxes: [{ id: "s1", attempt: 1, ready: true, createdAtMs: 1, ips: [] }],
    };
    expect(short(plan(podOf(), fresh).actions)).toEqual(["start main#1"]);
  });
  test("a failed sandbox is held back", () => {
    const result = plan(podOf(), nothing, { holdUntilMs: () => nowMs + 5_000 });
    expect(result).toMatchObject({ actions: [], wakeAtMs: nowMs + 5_000 });
  });
});

describe("init containers", () => {
  const pod = podOf({ initContainers: [box("i1"), box("i2")] });
  const cases: [string, ObservedContainer[], string[]][] = [
    ["first first", [], ["start i1#0"]],
    ["one at a time", [seen("i1")], []],
    ["next after success", [exited("i1", 0)], ["start i2#0"]],
    ["again after failure", [exited("i1", 1)], ["start i1#1"]],
    ["main after all", [exited("i2", 0), exited("i1", 0)], ["start main#0"]],
    ["not again once main was up", [exited("main", 0), exited("i2", 0), exited("i1", 0)], ["start main#1"]],
  ];
  test.each(cases)("%s", (_, containers, expected) => {
    expect(short(plan(pod, observed(containers)).actions)).toEqual(expected);
  });
  test("before there is a sandbox all wait for the initialization", () => {
    const { waiting } = plan(pod, nothing);
    expect([...waiting.values()].map((w) => w.reason)).toEqual([
      "PodInitializing",
      "PodInitializing",
      "PodInitializing",
    ]);
  });
  test("main waits as PodInitializing", () => {
    expect(plan(pod, observed([seen("i1")])).waiting.get("main")).toEqual({ reason: "PodInitializing" });
  });
  test("Never and a failed one: the pod is over", () => {
    const result = plan(podOf({ initContainers: [box("i1")], restartPolicy: "Never" }), observed([exited("i1", 2)]));
    expect(result.finished).toBe(true);
  });
  test("a sidecar starts before main, which waits until it has started", () => {
    const withSidecar = podOf({ initContainers: [box("side", { restartPolicy: "Always" })] });
    expect(short(plan(withSidecar, observed()).actions)).toEqual(["start side#0"]);
    const starting = { probe: () => ({ started: false, ready: false }) };
    expect(short(plan(withSidecar, observed([seen("side")]), starting).actions)).toEqual([]);
    expect(short(plan(withSidecar, observed([seen("side")])).actions)).toEqual(["start main#0"]);
    expect(short(plan(withSidecar, observed([seen("main"), exited("side", 0)])).actions)).toEqual(["start side#1"]);
  });
  test("a finished pod takes its sidecars down", () => {
    const done = podOf({ initContainers: [box("side", { restartPolicy: "Always" })], restartPolicy: "Never" });
    expect(short(plan(done, observed([exited("main", 0), seen("side")])).actions)).toEqual(["stop finished"]);
  });
});

describe("probes", () => {
  const failing = { probe: (): ProbeView => ({ started: true, ready: false, failed: "liveness" }) };
  test("a failed liveness probe ends the container", () => {
    const result = plan(podOf(), observed([seen("main")]), failing);
    expect(result.actions).toMatchObject([
      { kind: "kill", message: "Container main failed liveness probe, will be restarted" },
    ]);
  });
  test("which with Never is not started again", () => {
    const result = plan(podOf({ restartPolicy: "Never" }), observed([seen("main")]), failing);
    expect(result.actions).toMatchObject([{ kind: "kill", message: "Container main failed liveness probe" }]);
  });
  test("a changed image replaces the container", () => {
    const pod = podOf({ containers: [box("main", { image: "other" })] });
    expect(short(plan(pod, observed([seen("main")])).actions)).toEqual(["kill main"]);
  });
});

describe("back-off", () => {
  test("a crashed container waits and says so", () => {
    const result = plan(podOf(), observed([exited("main", 1)]), { backOffMs: () => 80_000 });
    expect(result.actions).toEqual([]);
    expect(result.wakeAtMs).toBe(nowMs - 1_000 + 80_000);
    expect(result.waiting.get("main")).toEqual({
      reason: "CrashLoopBackOff",
      message: "back-off 1m20s restarting failed container=main pod=p_ns(u1)",
    });
  });
  test("10 s, doubled to 5 min, forgotten after 10 quiet minutes", () => {
    const backOff = new BackOff({ initialMs: 10_000, maxMs: 300_000 });
    const delays: number[] = [];
    let atMs = 0;
    for (let i = 0; i < 7; i++) {
      backOff.next("c", atMs, atMs);
      delays.push(backOff.delayMs("c", atMs));
      atMs += 1_000;
    }
    expect(delays).toEqual([10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    expect(backOff.delayMs("c", atMs + 601_000)).toBe(0);
    expect(backOff.delayMs("other", 0)).toBe(0);
  });
});

describe("the rest", () => {
  test("the deadline ends the pod", () => {
    const startTime = new Date(nowMs - 61_000).toISOString();
    const result = plan(podOf({ activeDeadlineSeconds: 60 }, { startTime }), observed([seen("main")]));
    expect(short(result.actions)).toEqual(["stop deadline"]);
    expect(result.failure?.reason).toBe("DeadlineExceeded");
  });
  test("dead containers beyond state and lastState are removed", () => {
    const containers = [seen("main", { attempt: 3 }), exited("main", 1), exited("main", 1), exited("main", 1)];
    expect(plan(podOf(), observed(containers)).actions).toEqual([
      { kind: "remove", id: containers[2]!.id },
      { kind: "remove", id: containers[3]!.id },
    ]);
  });
});

describe("what nobody can tell about", () => {
  const status = (state: object, extra: object = {}): Pod["status"] =>
    ({
      phase: "Running",
      containerStatuses: [
        {
          name: "main",
          state,
          ready: true,
          restartCount: 2,
          image: "box",
          imageID: "",
          containerID: "containerd://x",
          ...extra,
        },
      ],
    }) as Pod["status"];
  const running = status({ running: { startedAt: "2026-01-01T00:00:00Z" } });
  const ended = status({ terminated: { exitCode: 0, containerID: "containerd://x" } });
  const cases: [string, string, Pod["status"], string[], boolean][] = [
    ["Never, ran when last seen", "Never", running, [], true],
    ["Never, had ended", "Never", ended, [], true],
    ["OnFailure, ran when last seen", "OnFailure", running, ["sandbox#0"], false],
    ["OnFailure, had succeeded", "OnFailure", ended, [], true],
    ["Always, ran when last seen", "Always", running, ["sandbox#0"], false],
    ["Never, never ran", "Never", status({ waiting: { reason: "ContainerCreating" } }), ["sandbox#0"], false],
  ];
  test.each(cases)("%s", (_, restartPolicy, told, expected, finished) => {
    const pod = podOf({ restartPolicy }, told);
    const result = plan(pod, recall(pod, nothing, nowMs));
    expect(short(result.actions)).toEqual(expected);
    expect(result.finished).toBe(finished);
  });
  test("a lost container counts on from what the API knows", () => {
    const pod = podOf({ restartPolicy: "Always" }, running);
    expect(short(plan(pod, recall(pod, observed(), nowMs)).actions)).toEqual(["start main#3"]);
  });
  test("what the runtime still knows is not made up", () => {
    const pod = podOf({}, running);
    const now = observed([seen("main")]);
    expect(recall(pod, now, nowMs)).toBe(now);
  });
  test("unknown to a runtime that lost sight of it: ended first, then by policy", () => {
    const unknown = observed([seen("main", { state: "unknown" })]);
    expect(short(plan(podOf({ restartPolicy: "Always" }), unknown).actions)).toEqual(["kill main"]);
    const never = plan(podOf({ restartPolicy: "Never" }), unknown);
    expect(short(never.actions)).toEqual(["stop finished"]);
    expect(never.finished).toBe(true);
  });
});

describe("ephemeral containers", () => {
  const pod = podOf({ ephemeralContainers: [box("debug")] as never });
  test("start in a running pod, once", () => {
    expect(short(plan(pod, observed([seen("main")])).actions)).toEqual(["start debug#0"]);
    expect(plan(pod, observed([seen("main"), exited("debug", 1)])).actions).toEqual([]);
    expect(plan(pod, observed([seen("main"), seen("debug")])).actions).toEqual([]);
  });
  test("start while the pod is being initialized, and do not hold it up", () => {
    const waiting = podOf({ initContainers: [box("i1")], ephemeralContainers: [box("debug")] as never });
    expect(short(plan(waiting, observed([seen("i1")])).actions)).toEqual(["start debug#0"]);
  });
  test("do not keep a pod from its end", () => {
    const done = podOf({ restartPolicy: "Never", ephemeralContainers: [box("debug")] as never });
    expect(short(plan(done, observed([exited("main", 0), seen("debug")])).actions)).toEqual(["stop finished"]);
  });
});

describe("grace of probes", () => {
  const probe = { terminationGracePeriodSeconds: 5 } as never;
  const cases: [string, Partial<Container>, "liveness" | "startup", number | undefined][] = [
    ["the failed one's own", { livenessProbe: probe }, "liveness", 5],
    ["not another's", { livenessProbe: probe }, "startup", undefined],
    ["the startup probe's", { startupProbe: probe }, "startup", 5],
  ];
  test.each(cases)("%s", (_, extra, failed, expected) => {
    const pod = podOf({ containers: [box("main", extra)] });
    const result = plan(pod, observed([seen("main")]), { probe: () => ({ started: true, ready: false, failed }) });
    expect((result.actions[0] as { graceSeconds?: number }).graceSeconds).toBe(expected);
  });
});

test("a pod that the node ends is taken down and stays failed", () => {
  const failure = { reason: "Evicted", message: "The node was low on resource: memory." };
  const result = plan(podOf(), observed([seen("main")]), { ending: { failure } });
  expect(short(result.actions)).toEqual(["stop ended"]);
  expect(result).toMatchObject({ finished: true, failure });
});

describe("resize", () => {
  const size = (cpu: string, memory = "64Mi") => ({ requests: { cpu, memory }, limits: { cpu, memory } });
  const limits = (milliCpu: number, mebibytes = 64) => ({
    cpuShares: Math.floor((milliCpu * 1024) / 1000),
    cpuQuotaUs: milliCpu * 100,
    memoryBytes: mebibytes * 2 ** 20,
  });
  const memoryRestarts = { resizePolicy: [{ resourceName: "memory", restartPolicy: "RestartContainer" }] };
  const pod = podOf({
    restartPolicy: "OnFailure",
    containers: [box("main", { resources: size("1"), ...memoryRestarts })],
  });

  test("what has what it was allocated is left alone", () => {
    const result = plan(pod, observed([seen("main", { limits: limits(1000) })]));
    expect([short(result.actions), result.resizing]).toEqual([[], undefined]);
  });
  test("other processors: changed while it runs", () => {
    const running = seen("main", { limits: limits(500) });
    const result = plan(pod, observed([running]));
    expect(short(result.actions)).toEqual(["resize"]);
    expect(result.actions[0]).toMatchObject({ updates: [{ id: running.id, from: limits(500) }] });
    expect(result.resizing).toBe(true);
  });
  test("other memory: ended, and started again at once with any exit code", () => {
    const running = seen("main", { limits: limits(1000, 32) });
    const result = plan(pod, observed([running]), { cgroupIsStale: true });
    expect(short(result.actions)).toEqual(["kill main", "resize"]);
    expect(result.actions[0]).toMatchObject({ restarts: true, message: "Container main resize requires restart" });
    const back = plan(pod, observed([exited("main", 0, { mustRestart: true })]), { backOffMs: () => 60_000 });
    expect(short(back.actions)).toEqual(["start main#1"]);
    expect(back.actions[0]).not.toHaveProperty("afterExitMs");
    // The control: a container of this policy that ends well by itself stays ended.
    expect(short(plan(pod, observed([exited("main", 0)])).actions)).toEqual(["stop finished"]);
  });
  test("the pod's cgroup changes before something starts in it", () => {
    const two = podOf({ containers: [box("main", { resources: size("1") }), box("late", { resources: size("1") })] });
    const result = plan(two, observed([seen("main", { limits: limits(500) })]), { cgroupIsStale: true });
    expect(short(result.actions)).toEqual(["resize", "start late#0"]);
  });
  test("what cannot be done now waits, and holds nothing else up", () => {
    const holdUntilMs = (name: string) => (name === resizeHold ? nowMs + 5_000 : 0);
    const two = podOf({ containers: [box("main", { resources: size("1") }), box("late")] });
    const result = plan(two, observed([seen("main", { limits: limits(500) })]), { holdUntilMs });
    expect(short(result.actions)).toEqual(["start late#0"]);
    expect([result.wakeAtMs, result.resizing]).toEqual([nowMs + 5_000, true]);
  });
  test("a container that failed its probe is ended as ever", () => {
    const failed = plan(pod, observed([seen("main", { limits: limits(500) })]), {
      probe: () => ({ ...healthy, failed: "liveness" }),
    });
    expect(short(failed.actions)).toEqual(["kill main"]);
    expect(failed.actions[0]).not.toHaveProperty("restarts");
  });
});
