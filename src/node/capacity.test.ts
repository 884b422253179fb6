import { describe, expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { allocatableOf, amountsText, capacityOf, misfit, victimsFor } from "./capacity.ts";
import { defaultConfiguration, parseConfiguration } from "./configuration.ts";

const gib = 2 ** 30;
const machine = { cpus: 4, memoryBytes: 8 * gib, hugePages: { "hugepages-2Mi": 1 * gib, "hugepages-1Gi": 0 } };
const podOf = (requests: Record<string, string>, more: object = {}): Pod =>
  ({ metadata: {}, spec: { containers: [{ name: "c", resources: { requests } }], ...more } }) as unknown as Pod;

describe("allocatable", () => {
  test("is what is left of reservations, eviction and huge pages", () => {
    const configuration = parseConfiguration([
      "system-reserved=cpu=500m,memory=1Gi",
      "kube-reserved=memory=1Gi,ephemeral-storage=10Gi",
      "eviction-hard=memory.available<1Gi,nodefs.available<10%",
    ]);
    const capacity = capacityOf(machine, 100 * gib, configuration);
    expect(amountsText(allocatableOf(capacity, configuration))).toEqual({
      cpu: "3500m",
      memory: `${4 * 2 ** 20}Ki`,
      "ephemeral-storage": `${80 * 2 ** 20}Ki`,
      "hugepages-2Mi": "1024Mi",
      "hugepages-1Gi": "0",
      pods: "110",
    });
  });
});

describe("one more pod", () => {
  const capacity = capacityOf(machine, 100 * gib, { ...defaultConfiguration, maxPods: 3 });
  const cases: [string, Pod, Pod[], string | undefined][] = [
    ["fits", podOf({ cpu: "1" }), [], undefined],
    ["of CPU", podOf({ cpu: "3" }), [podOf({ cpu: "1500m" })], "OutOfcpu"],
    [
      "by a limit alone",
      podOf({}, { containers: [{ name: "c", resources: { limits: { cpu: "5" } } }] }),
      [],
      "OutOfcpu",
    ],
    ["of memory", podOf({ memory: "9Gi" }), [], "OutOfmemory"],
    ["of pods", podOf({}), [podOf({}), podOf({}), podOf({})], "OutOfpods"],
    ["of a device that is not the node's to count", podOf({ "example.com/x": "1" }), [], undefined],
  ];
  test.each(cases)("%s", (_, pod, others, reason) => expect(misfit(pod, others, capacity)?.reason).toBe(reason));
});

describe("a critical pod that does not fit", () => {
  const named = (name: string, cpu: string, priority: number): Pod =>
    ({ ...podOf({ cpu }, { priority }), metadata: { name, uid: name } }) as Pod;
  const capacity = capacityOf(machine, 100 * gib, defaultConfiguration);
  const critical = named("critical", "2", 2_000_000_000);
  const names = (pods: readonly Pod[] | undefined) => pods?.map((p) => p.metadata.name);
  test("pushes out the least important, and no more than needed", () => {
    const others = [named("high", "1", 100), named("small", "500m", 0), named("large", "2", 5)];
    expect(names(victimsFor(critical, others, capacity))).toEqual(["large"]);
  });
  test("nobody where it fits", () => expect(victimsFor(critical, [named("a", "1", 0)], capacity)).toEqual([]));
  test("not another critical one", () => {
    expect(victimsFor(critical, [named("other", "3", 2_000_000_000)], capacity)).toBeUndefined();
  });
});
