import { expect, test } from "vitest";
import type { Container, Pod, ResourceRequirements } from "./gen/core-v1.ts";
import { podAmounts } from "./pod-resources.ts";
import { countedResources } from "./resized-resources.ts";

const size = (cpu: string): ResourceRequirements => ({ requests: { cpu }, limits: { cpu } });
const podOf = (asked: string, resize: string | undefined, has?: string, allocated?: string): Pod =>
  ({
    metadata: {},
    spec: { containers: [{ name: "c", resources: size(asked) }] as Container[] },
    status: {
      ...(resize === undefined ? {} : { resize }),
      containerStatuses: [
        {
          name: "c",
          ...(has === undefined ? {} : { resources: size(has) }),
          ...(allocated === undefined ? {} : { allocatedResources: { cpu: allocated } }),
        },
      ],
    },
  }) as unknown as Pod;

test.each<[string, Pod, string, string]>([
  ["not being resized", podOf("1", undefined, "2", "2"), "1", "1"],
  ["a node that says nothing", podOf("1", "Proposed"), "1", "1"],
  ["growing", podOf("2", "Proposed", "1", "1"), "2", "2"],
  ["shrinking", podOf("1", "InProgress", "2", "1"), "2", "2"],
  ["allocated and not done", podOf("1", "Proposed", "1", "3"), "3", "1"],
  ["deferred", podOf("3", "Deferred", "1", "1"), "3", "3"],
  ["never to be had", podOf("300", "Infeasible", "1", "2"), "2", "1"],
  ["the same in other words", podOf("1000m", "InProgress", "1", "1"), "1000m", "1000m"],
])("%s", (_name, pod, requests, limits) => {
  const [container] = pod.spec.containers;
  expect(countedResources(pod, container!, "requests")).toEqual({ cpu: requests });
  expect(countedResources(pod, container!, "limits")).toEqual({ cpu: limits });
  expect(podAmounts(pod, "requests").get("cpu")?.milliValue()).toBe(
    BigInt(requests.endsWith("m") ? 1000 : 1000 * Number(requests)),
  );
});
test("a container of another name has what it asks for", () => {
  const pod = podOf("1", "InProgress", "2", "2");
  const other = { name: "d", resources: size("5") } as Container;
  expect(countedResources(pod, other, "requests")).toEqual({ cpu: "5" });
});
