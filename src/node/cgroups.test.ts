import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { applyPodCgroup, controllersToHandOn } from "./cgroups.ts";

test.each([
  ["cpuset cpu io memory hugetlb pids rdma misc\n", "+cpu +memory +pids +cpuset +hugetlb"],
  ["cpuset cpu io memory pids\n", "+cpu +memory +pids +cpuset"],
  ["cpu\n", "+cpu"],
  ["", ""],
])("only what the kernel has is handed on: %j", (available, written) => {
  expect(controllersToHandOn(available)).toBe(written);
});

describe("huge pages", () => {
  const limits = { cpuShares: 2, cpuQuotaUs: 0, cpuPeriodUs: 100_000, memoryBytes: 0 };
  let root = "";
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "mote-cgroups-"));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));
  /** Files that the kernel would make with the folder. */
  const files = (path: string, ...names: string[]) => {
    mkdirSync(path, { recursive: true });
    for (const name of names) writeFileSync(`${path}/${name}`, "");
    return (name: string) => readFileSync(`${path}/${name}`, "utf8").trim();
  };
  const unified = () => {
    writeFileSync(`${root}/cgroup.controllers`, "cpu hugetlb");
    const names = ["2MB", "1GB"].flatMap((size) => [`hugetlb.${size}.max`, `hugetlb.${size}.rsvd.max`]);
    return files(`${root}/kubepods/podu`, ...names, "hugetlb.2MB.current");
  };

  test("of sizes that a pod does not ask for it may have none (v2)", async () => {
    const read = unified();
    await applyPodCgroup("/kubepods/podu", { ...limits, hugePageBytes: { "2MB": 4194304 } }, 0, root);
    expect([read("hugetlb.2MB.max"), read("hugetlb.2MB.rsvd.max")]).toEqual(["4194304", "4194304"]);
    expect([read("hugetlb.1GB.max"), read("hugetlb.1GB.rsvd.max")]).toEqual(["0", "0"]);
    expect(read("hugetlb.2MB.current")).toBe("");
  });
  test("all pods together may have any", async () => {
    const read = unified();
    await applyPodCgroup("/kubepods/podu", { ...limits, hugePageBytes: undefined }, 0, root);
    expect(read("hugetlb.2MB.max")).toBe("");
  });
  test("of sizes that a pod does not ask for it may have none (v1)", async () => {
    const read = files(`${root}/hugetlb/kubepods/podu`, "hugetlb.2MB.limit_in_bytes", "hugetlb.1GB.limit_in_bytes");
    await applyPodCgroup("/kubepods/podu", { ...limits, hugePageBytes: { "2MB": 4194304 } }, 0, root);
    expect(read("hugetlb.2MB.limit_in_bytes")).toBe("4194304");
    expect(read("hugetlb.1GB.limit_in_bytes")).toBe("0");
  });
  test("where the kernel has no such controller, nothing is made for it", async () => {
    await applyPodCgroup("/kubepods/podu", { ...limits, hugePageBytes: { "2MB": 4194304 } }, 0, root);
    expect(() => files(root)("hugetlb")).toThrow();
  });
});
