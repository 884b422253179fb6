import { expect, test } from "vitest";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { containerConfig } from "./cri-config.ts";
import { hugePageSizes } from "./resources.ts";

const limitsOf = (sizes: readonly string[], limits: Record<string, string>) => {
  const container = { name: "c", resources: { limits } } as unknown as Container;
  const pod = { metadata: { uid: "u", name: "p", namespace: "ns" }, spec: { containers: [container] } } as Pod;
  const config = containerConfig({
    ...{ pod, container, attempt: 0, env: new Map(), mounts: [], imageRef: "", imageUser: { name: "" } },
    ...{ memoryCapacityBytes: 2 ** 30, seccompDefault: true, hasAppArmor: false, forbidsSwap: false },
    hugePageSizes: sizes,
  });
  return config.linux?.resources?.hugepageLimits;
};

test("a container may have no huge pages of sizes that it does not ask for", () => {
  const sizes = hugePageSizes({ "hugepages-2Mi": 0, "hugepages-1Gi": 2 ** 30, "hugepages-64Ki": 0 });
  expect(sizes).toEqual(["2MB", "1GB", "64KB"]);
  expect(limitsOf(sizes, { "hugepages-2Mi": "4Mi" })).toEqual([
    { pageSize: "2MB", limit: 4 * 2 ** 20 },
    { pageSize: "1GB", limit: 0 },
    { pageSize: "64KB", limit: 0 },
  ]);
  expect(limitsOf([], { "hugepages-2Mi": "4Mi" })).toEqual([]);
});
