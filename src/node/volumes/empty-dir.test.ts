import { expect, test } from "vitest";
import type { Pod, Volume } from "#model/gen/core-v1.ts";
import { memorySize, pageSizeOf } from "./empty-dir.ts";

const pod = (...limits: Record<string, string>[]): Pod => ({
  metadata: {},
  spec: { containers: limits.map((one, i) => ({ name: `c${i}`, resources: { limits: one } })) },
});
const volume = (sizeLimit?: string): Volume => ({
  name: "v",
  emptyDir: { medium: "Memory", ...(sizeLimit ? { sizeLimit } : {}) },
});

test.each<[string, Pod, string | undefined, number]>([
  ["the node's", pod({}), undefined, 1000],
  ["its own", pod({}), "300", 300],
  ["no more than the node's", pod({}), "3000", 1000],
  ["the pod's", pod({ memory: "200" }, { memory: "200" }), undefined, 400],
  ["no more than the pod's", pod({ memory: "200" }), "300", 200],
  ["the node's where a container has no limit", pod({ memory: "200" }, {}), undefined, 1000],
])("memory: %s", (_, one, limit, expected) => {
  expect(memorySize(one, volume(limit), 1000)).toBe(expected);
});

test.each<[string, Pod, number | string]>([
  ["HugePages", pod({ "hugepages-2Mi": "4Mi" }), 2 ** 21],
  ["HugePages-1Gi", pod({ "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi" }), 2 ** 30],
  ["HugePages", pod({ "hugepages-2Mi": "4Mi" }, { "hugepages-1Gi": "1Gi" }), "more than one page size"],
  ["HugePages", pod({}), "no resource request"],
  ["HugePages-1Gi", pod({ "hugepages-2Mi": "4Mi" }), "no resource request found for hugepages-1Gi"],
])("%s of %j", (medium, one, expected) => {
  if (typeof expected === "number") expect(pageSizeOf(one, medium)).toBe(expected);
  else expect(() => pageSizeOf(one, medium)).toThrow(expected);
});
