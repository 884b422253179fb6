import { describe, expect, test } from "vitest";
import type { Container, Pod, ResourceRequirements } from "#model/gen/core-v1.ts";
import type { ObservedContainer, PodObservation, RuntimeLimits } from "./observation.ts";
import {
  askedFor,
  changedContainers,
  frees,
  judgeResize,
  needsRestart,
  pendingChange,
  recalledAllocation,
  sameAllocation,
  shownResources,
  withAllocation,
} from "./resize.ts";
import { containerLimits } from "./resources.ts";

const size = (cpu: string, memory: string, limitCpu = cpu, limitMemory = memory): ResourceRequirements => ({
  requests: { cpu, memory },
  limits: { cpu: limitCpu, memory: limitMemory },
});
const box = (resources: ResourceRequirements, more: Partial<Container> = {}): Container =>
  ({ name: "main", image: "box", resources, ...more }) as Container;
const podOf = (...containers: Container[]): Pod =>
  ({ metadata: { name: "p", namespace: "ns", uid: "u" }, spec: { containers } }) as Pod;
const held = (resources: ResourceRequirements): RuntimeLimits => {
  const { cpuShares, cpuQuotaUs, memoryBytes } = containerLimits(box(resources));
  return { cpuShares, cpuQuotaUs, memoryBytes };
};

describe("what is allocated", () => {
  const pod = podOf(box(size("1", "64Mi")), box(size("1", "64Mi"), { name: "other" }));
  test("a pod that has what it asks for is the very same object", () => {
    expect(withAllocation(pod, askedFor(pod))).toBe(pod);
    expect(withAllocation(pod, { main: size("1000m", "65536Ki") })).toBe(pod);
  });
  test("what was allocated takes the place of what is asked for, and nothing else does", () => {
    const small = withAllocation(pod, { main: size("100m", "32Mi"), gone: size("9", "9Gi") });
    expect(small.spec.containers.map((c) => c.resources)).toEqual([size("100m", "32Mi"), size("1", "64Mi")]);
    expect(pod.spec.containers[0]?.resources).toEqual(size("1", "64Mi"));
  });
  test("an amount that is not there is not zero", () => {
    expect(sameAllocation({ main: { requests: { cpu: "0" } } }, { main: {} })).toBe(false);
  });
  test("containers remember what they were made with", () => {
    const seen = { name: "main", madeWith: size("100m", "32Mi") } as ObservedContainer;
    const observed = { sandboxes: [], containers: [seen] } as unknown as PodObservation;
    expect(recalledAllocation(pod, observed)).toEqual({ main: size("100m", "32Mi"), other: size("1", "64Mi") });
  });
  test("who changed, and whether something became free", () => {
    const next = { main: size("1", "32Mi"), other: size("2", "64Mi") };
    expect(changedContainers(next, askedFor(pod))).toEqual(["main", "other"]);
    expect(changedContainers({ ...next, main: size("1", "64Mi") }, askedFor(pod))).toEqual(["other"]);
    expect(frees(next, askedFor(pod))).toBe(true);
    expect(frees({ main: size("1", "64Mi"), other: size("2", "64Mi") }, askedFor(pod))).toBe(false);
  });
});

describe("whether a pod may have what it asks for", () => {
  const none = { cpuManagerPolicy: "none", memoryManagerPolicy: "None" } as const;
  const full = { reason: "OutOfcpu", message: "Pod was rejected: Node didn't have enough resource: cpu" };
  const burstable = podOf(box(size("1", "1Gi", "2", "2Gi")));
  const guaranteed = podOf(box(size("1", "1Gi")));
  const capacityOf = (text: string) => `Node didn't have enough capacity: ${text}`;
  const ofGuaranteed = (manager: string) =>
    `Resize is infeasible for Guaranteed Pods alongside ${manager} Manager static policy`;
  const cases: [string, Pod, object, boolean, string, string][] = [
    ["there is room", burstable, none, false, "", ""],
    ["no room now", burstable, none, true, "Deferred", "Node didn't have enough resource: cpu"],
    [
      "more cpu than the node has",
      podOf(box(size("5", "1Gi"))),
      none,
      true,
      "Infeasible",
      capacityOf("cpu, requested: 5000, capacity: 4000"),
    ],
    [
      "more memory than the node has, and more cpu",
      podOf(box(size("5", "9Gi"))),
      none,
      false,
      "Infeasible",
      capacityOf("memory, requested: 9663676416, capacity: 8589934592"),
    ],
    [
      "processors of its own",
      guaranteed,
      { ...none, cpuManagerPolicy: "static" },
      false,
      "Infeasible",
      ofGuaranteed("CPU"),
    ],
    [
      "memory of its own",
      guaranteed,
      { ...none, memoryManagerPolicy: "Static" },
      false,
      "Infeasible",
      ofGuaranteed("Memory"),
    ],
    ["shared processors", burstable, { ...none, cpuManagerPolicy: "static" }, false, "", ""],
  ];
  test.each(cases)("%s", (_name, pod, configuration, isFull, status, message) => {
    const verdict = judgeResize({
      pod,
      allocatable: { cpu: 4000, memory: 8 * 2 ** 30 },
      configuration: configuration as typeof none,
      refusal: () => (isFull ? full : undefined),
    });
    expect(verdict).toEqual(status === "" ? { fits: true } : { fits: false, status, message });
  });
});

describe("what of a running container changes", () => {
  const wanted = size("500m", "128Mi", "1", "256Mi");
  const cases: [string, RuntimeLimits | undefined, string][] = [
    ["nothing", held(wanted), ""],
    ["nobody knows what it has", undefined, ""],
    ["a request of cpu", held(size("100m", "128Mi", "1", "256Mi")), "cpu"],
    ["a limit of cpu", held(size("500m", "128Mi", "2", "256Mi")), "cpu"],
    ["a limit of memory", held(size("500m", "128Mi", "1", "512Mi")), "memory"],
    ["both", held(size("100m", "64Mi")), "cpu memory"],
    ["no limit before", { ...held(wanted), cpuQuotaUs: 0, memoryBytes: 0 }, "cpu memory"],
    ["a request of memory is the scheduler's business", held(size("500m", "64Mi", "1", "256Mi")), ""],
  ];
  test.each(cases)("%s", (_name, now, expected) => {
    const change = pendingChange(box(wanted), now);
    const names = Object.entries(change ?? {}).flatMap(([name, differs]) => (differs ? [name] : []));
    expect(names.join(" ")).toBe(expected);
  });
  test("a limit that nobody asks for is left as it is", () => {
    expect(pendingChange(box({ requests: { cpu: "500m" } }), held(size("500m", "1Gi")))).toBeUndefined();
  });
  const policy = (cpu: string, memory: string): Partial<Container> => ({
    resizePolicy: [
      { resourceName: "cpu", restartPolicy: cpu },
      { resourceName: "memory", restartPolicy: memory },
    ],
  });
  const restarts: [string, Partial<Container>, boolean, boolean, boolean][] = [
    ["no policy", {}, true, true, false],
    ["neither", policy("NotRequired", "NotRequired"), true, true, false],
    ["memory, and memory changes", policy("NotRequired", "RestartContainer"), false, true, true],
    ["memory, and cpu changes", policy("NotRequired", "RestartContainer"), true, false, false],
    ["cpu, and both change", policy("RestartContainer", "NotRequired"), true, true, true],
  ];
  test.each(restarts)("restart: %s", (_name, more, cpu, memory, expected) => {
    expect(needsRestart(box(wanted, more), { cpu, memory })).toBe(expected);
  });
});

describe("what the status shows", () => {
  const wanted = size("500m", "128Mi", "1", "256Mi");
  const shown = (now: RuntimeLimits | undefined) => shownResources(box(wanted), now);
  test("what is allocated, as it was written", () => {
    expect(shown(undefined)).toEqual(wanted);
    expect(shown(held(wanted))).toEqual(wanted);
    expect(shownResources(box({}), held({}))).toEqual({});
  });
  test("what the container still has", () => {
    expect(shown(held(size("250m", "64Mi", "1500m", "1Gi")))).toEqual(size("250m", "128Mi", "1500m", "1Gi"));
  });
  test("a limit that it does not have yet", () => {
    expect(shown({ ...held(wanted), cpuQuotaUs: 0, memoryBytes: 0 }).limits).toEqual({});
  });
  test.each(["1m", "2m", "3m", "100m", "333m", "999m", "1", "2500m"])("%s of cpu stays what it is", (cpu) => {
    const one = size(cpu, "1Mi");
    expect(shownResources(box(one), held(one))).toEqual(one);
  });
});
