import { describe, expect, test } from "vitest";
import type { Container, Pod, PodStatus } from "#model/gen/core-v1.ts";
import type { ObservedContainer, PodObservation, ProbeView } from "./observation.ts";
import type { Waiting } from "./plan.ts";
import { podStatus, type StatusInput } from "./status.ts";
import { statusPatch } from "./status-patch.ts";

const nowMs = Date.UTC(2026, 0, 1);
const box = (name: string): Container => ({ name, image: "box" }) as Container;
const podOf = (spec: Partial<Pod["spec"]> = {}, status: PodStatus = {}): Pod =>
  ({
    metadata: { name: "p", namespace: "ns", uid: "u1" },
    spec: { containers: [box("main")], ...spec },
    status,
  }) as Pod;
const seen = (extra: Partial<ObservedContainer> = {}): ObservedContainer => ({
  id: "c1",
  name: "main",
  sandboxId: "s0",
  attempt: 0,
  state: "running",
  createdAtMs: nowMs,
  startedAtMs: nowMs,
  finishedAtMs: 0,
  exitCode: 0,
  reason: "",
  message: "",
  image: "box",
  imageId: "sha256:1",
  hash: "",
  logPath: "",
  ...extra,
});
const exited = (exitCode: number, extra: Partial<ObservedContainer> = {}) =>
  seen({ state: "exited", exitCode, finishedAtMs: nowMs, ...extra });
const observed = (containers: ObservedContainer[], ready = true): PodObservation => ({
  uid: "u1",
  name: "p",
  namespace: "ns",
  sandboxes: [{ id: "s0", attempt: 0, ready, createdAtMs: 0, ips: ["10.0.0.1"] }],
  containers,
});
const status = (pod: Pod, now: PodObservation, extra: Partial<StatusInput> & { waiting?: [string, Waiting][] } = {}) =>
  podStatus({
    pod,
    observed: now,
    plan: { waiting: new Map(extra.waiting ?? []), finished: false },
    probe: (): ProbeView => ({ started: true, ready: true }),
    hostIps: ["192.0.2.1"],
    nowMs,
    terminationMessage: () => "",
    ...extra,
  });
const condition = (of: PodStatus, type: string) => of.conditions?.find((c) => c.type === type);

describe("phase", () => {
  const cases: [string, string, ObservedContainer[], boolean, string][] = [
    ["nothing yet", "Always", [], false, "Pending"],
    ["running", "Always", [seen()], false, "Running"],
    ["between two runs", "Always", [exited(1)], false, "Running"],
    ["Always, taken down cleanly", "Always", [exited(0)], true, "Succeeded"],
    ["Always, killed", "Always", [exited(137)], true, "Failed"],
    ["OnFailure, failed, comes again", "OnFailure", [exited(1)], false, "Running"],
    ["OnFailure, done", "OnFailure", [exited(0)], false, "Succeeded"],
    ["Never, failed", "Never", [exited(1)], false, "Failed"],
  ];
  test.each(cases)("%s", (_, restartPolicy, containers, ended, phase) => {
    expect(status(podOf({ restartPolicy }), observed(containers), { ended }).phase).toBe(phase);
  });
  test("a final phase stays", () => {
    expect(status(podOf({}, { phase: "Failed" }), observed([seen()])).phase).toBe("Failed");
  });
  test("a failed init container with Never", () => {
    const pod = podOf({ restartPolicy: "Never", initContainers: [box("i")] });
    expect(status(pod, observed([exited(1, { name: "i" })])).phase).toBe("Failed");
  });
});

test("a ready pod", () => {
  const result = status(podOf(), observed([seen()]));
  expect(result).toMatchObject({
    podIP: "10.0.0.1",
    podIPs: [{ ip: "10.0.0.1" }],
    hostIP: "192.0.2.1",
    qosClass: "BestEffort",
  });
  for (const type of ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]) {
    expect(condition(result, type)?.status, type).toBe("True");
  }
  expect(result.containerStatuses?.[0]).toMatchObject({ ready: true, started: true, containerID: "containerd://c1" });
});
test("an unready container is named", () => {
  const result = status(podOf(), observed([seen()]), { probe: () => ({ started: true, ready: false }) });
  expect(condition(result, "Ready")).toMatchObject({
    status: "False",
    reason: "ContainersNotReady",
    message: "containers with unready status: [main]",
  });
});
test("crash loop: waiting now, terminated before", () => {
  const result = status(podOf(), observed([exited(3, { attempt: 4 })]), {
    waiting: [["main", { reason: "CrashLoopBackOff", message: "back-off" }]],
    terminationMessage: () => "last words",
  });
  expect(result.containerStatuses?.[0]).toMatchObject({
    state: { waiting: { reason: "CrashLoopBackOff" } },
    lastState: { terminated: { exitCode: 3, reason: "Error", message: "last words" } },
    restartCount: 4,
  });
});
test("restart counts survive what the runtime forgot", () => {
  const old = { containerStatuses: [{ name: "main", restartCount: 7, ready: false, image: "", imageID: "" }] };
  expect(status(podOf({}, old), observed([])).containerStatuses?.[0]?.restartCount).toBe(7);
});
test("transition times move only with the condition, and others' conditions stay", () => {
  const before = "2025-01-01T00:00:00Z";
  const old: PodStatus = {
    conditions: [
      { type: "Ready", status: "True", lastTransitionTime: before },
      { type: "ContainersReady", status: "False", lastTransitionTime: before },
      { type: "example.com/gate", status: "True" },
    ],
  };
  const result = status(podOf({}, old), observed([seen()]));
  expect(condition(result, "Ready")?.lastTransitionTime).toBe(before);
  expect(condition(result, "ContainersReady")?.lastTransitionTime).toBe("2026-01-01T00:00:00Z");
  expect(condition(result, "example.com/gate")?.status).toBe("True");
});
test("readiness gates", () => {
  const result = status(podOf({ readinessGates: [{ conditionType: "g" }] }), observed([seen()]));
  expect(condition(result, "Ready")).toMatchObject({ status: "False", reason: "ReadinessGatesNotReady" });
  expect(condition(result, "ContainersReady")?.status).toBe("True");
});

test("each gate that is closed is told as what it is", () => {
  const pod = podOf({ readinessGates: ["a", "b", "c"].map((conditionType) => ({ conditionType })) });
  const conditions = [
    { type: "a", status: "True" },
    { type: "b", status: "False" },
  ];
  expect(condition(status({ ...pod, status: { conditions } }, observed([seen()])), "Ready")?.message).toBe(
    'the status of pod readiness gate "b" is not "True", but False, corresponding condition of pod readiness gate "c" does not exist.',
  );
});

describe("patch", () => {
  const before = status(podOf(), observed([seen()]), { probe: () => ({ started: true, ready: false }) });
  test("nothing for nothing", () => expect(statusPatch(before, structuredClone(before))).toBeUndefined());
  test("takes reasons away and touches nothing else", () => {
    const after = status(podOf({}, before), observed([seen()]));
    const patch = statusPatch(before, after)!;
    expect(Object.keys(patch).sort()).toEqual(["conditions", "containerStatuses"]);
    expect(patch["conditions"]).toMatchObject([
      { type: "Ready", status: "True", reason: null, message: null },
      { type: "ContainersReady", status: "True", reason: null, message: null },
    ]);
  });
  test("a new address replaces the old list", () => {
    const after = { ...before, podIP: "10.0.0.2", podIPs: [{ ip: "10.0.0.2" }] };
    expect(statusPatch(before, after)).toEqual({
      podIP: "10.0.0.2",
      podIPs: [{ ip: "10.0.0.2" }, { $patch: "replace" }],
    });
  });
});

describe("resources", () => {
  const resources = { requests: { cpu: "1", memory: "64Mi" }, limits: { cpu: "2" } };
  const pod = podOf({ containers: [{ ...box("main"), resources } as Container] });
  const first = (of: PodStatus) => of.containerStatuses?.[0];
  test("a container shows what it was allocated and what it has", () => {
    const limits = { cpuShares: 512, cpuQuotaUs: 200_000, memoryBytes: 0 };
    expect(first(status(pod, observed([seen({ limits })]), { showsResources: true }))).toMatchObject({
      allocatedResources: resources.requests,
      resources: { ...resources, requests: { cpu: "500m", memory: "64Mi" } },
    });
    expect(first(status(pod, observed([exited(1, { limits })]), { showsResources: true }))?.resources).toEqual(
      resources,
    );
  });
  test("one that asks for nothing says that it could", () => {
    const main = first(status(podOf(), observed([seen()]), { showsResources: true }));
    expect([main?.resources, main?.allocatedResources]).toEqual([{}, undefined]);
    expect(first(status(pod, observed([seen()])))).not.toHaveProperty("resources");
  });
  test("what has become of a resize is told, and taken back", () => {
    const proposed = { resize: "Proposed" };
    const now = status(pod, observed([seen()]), { resize: "InProgress" });
    expect(statusPatch(proposed, now)).toMatchObject({ resize: "InProgress" });
    expect(statusPatch(proposed, status(pod, observed([seen()])))).toMatchObject({ resize: null });
    expect(statusPatch({}, status(pod, observed([seen()])))).not.toHaveProperty("resize");
  });
});
