import { describe, expect, test } from "vitest";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { podsCgroupOf } from "../configuration.ts";
import { milliOf, wholeOf } from "./quantities.ts";
import { containerLimits, oomScoreAdjust, podCgroup, podLimits, qosClass } from "./resources.ts";

const box = (limits?: Record<string, string>, requests?: Record<string, string>): Container =>
  ({ name: "c", resources: { ...(limits ? { limits } : {}), ...(requests ? { requests } : {}) } }) as Container;
const podOf = (...containers: Container[]): Pod => ({ metadata: { uid: "u" }, spec: { containers } }) as Pod;
const full = { cpu: "500m", memory: "64Mi" };

test.each([
  ["100m", 1, 100],
  ["0.1", 1, 100],
  ["2", 2, 2000],
  ["1.5Gi", 1_610_612_736, 1_610_612_736_000],
  ["128974848", 128_974_848, 128_974_848_000],
  ["1e3", 1000, 1_000_000],
  [undefined, 0, 0],
])("quantity %s", (text, whole, milli) => {
  expect(wholeOf(text)).toBe(whole);
  expect(milliOf(text)).toBe(milli);
});

describe("QoS, cgroup and OOM score", () => {
  const capacity = 1024 * 2 ** 20;
  const cases: [string, Pod, string, string, number][] = [
    ["nothing", podOf(box()), "BestEffort", "/kubepods/besteffort/podu", 1000],
    ["requests only", podOf(box(undefined, { memory: "512Mi" })), "Burstable", "/kubepods/burstable/podu", 500],
    ["limits equal requests", podOf(box(full, full)), "Guaranteed", "/kubepods/podu", -997],
    ["limits alone", podOf(box(full)), "Guaranteed", "/kubepods/podu", -997],
    ["one of two", podOf(box(full), box()), "Burstable", "/kubepods/burstable/podu", 999],
    ["a tiny request", podOf(box(undefined, { memory: "1" })), "Burstable", "/kubepods/burstable/podu", 999],
    ["all memory", podOf(box(undefined, { memory: "1Gi" })), "Burstable", "/kubepods/burstable/podu", 3],
  ];
  test.each(cases)("%s", (_, pod, qos, cgroup, score) => {
    expect(qosClass(pod)).toBe(qos);
    expect(podCgroup(pod, podsCgroupOf("/"))).toBe(cgroup);
    expect(podCgroup(pod, podsCgroupOf("/own.slice/mote"))).toBe(`/own.slice/mote${cgroup}`);
    expect(oomScoreAdjust(pod, pod.spec.containers![0]!, capacity)).toBe(score);
  });
});

test("huge pages by the kernel's names of their sizes", () => {
  const container = { name: "c", resources: { limits: { "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi" } } } as never;
  expect(containerLimits(container).hugePageBytes).toEqual({ "2MB": 4 * 2 ** 20, "1GB": 2 ** 30 });
});

test("limits of a container", () => {
  expect(containerLimits(box(full))).toEqual({
    cpuShares: 512,
    cpuQuotaUs: 50_000,
    cpuPeriodUs: 100_000,
    memoryBytes: 67_108_864,
    hugePageBytes: {},
  });
  expect(containerLimits(box())).toMatchObject({ cpuShares: 2, cpuQuotaUs: 0, memoryBytes: 0 });
  expect(containerLimits(box({ cpu: "1m" }))).toMatchObject({ cpuShares: 2, cpuQuotaUs: 1000 });
});
test("an init container has the sidecars before it beside it, and those after it not", () => {
  const sidecar = { ...box(full), name: "s", restartPolicy: "Always" } as Container;
  const init = { ...box({ cpu: "1", memory: "256Mi" }), name: "i" };
  const of = (...initContainers: Container[]): Pod =>
    ({ metadata: {}, spec: { initContainers, containers: [box(full)] } }) as unknown as Pod;
  expect(podLimits(of(sidecar, init))).toMatchObject({ cpuQuotaUs: 150_000, memoryBytes: 320 * 2 ** 20 });
  expect(podLimits(of(init, sidecar))).toMatchObject({ cpuQuotaUs: 100_000, memoryBytes: 256 * 2 ** 20 });
});
test("limits of a pod are sums, and none where one container has none", () => {
  expect(podLimits(podOf(box(full), box(full)))).toMatchObject({ cpuQuotaUs: 100_000, memoryBytes: 134_217_728 });
  expect(podLimits(podOf(box(full), box()))).toMatchObject({ cpuQuotaUs: 0, memoryBytes: 0, cpuShares: 512 });
});
