import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { applyPodCgroup, controllersToHandOn, podOomKills, treesWithout } from "./cgroups.ts";

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

describe("a cgroup of one's own for all pods", () => {
  let root = "";
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "mote-cgroups-"));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));
  const limits = { cpuShares: 1024, cpuQuotaUs: 50_000, cpuPeriodUs: 100_000, memoryBytes: 1 << 20, hugePageBytes: {} };
  const pod = "/own.slice/mote/kubepods/burstable/podu";
  const make = (path: string, files: Readonly<Record<string, string>>) => {
    mkdirSync(`${root}${path}`, { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(`${root}${path}/${name}`, text);
  };
  const read = (path: string) => readFileSync(`${root}${path}`, "utf8");

  test("pods are below it, and every cgroup above hands its controllers on (v2)", async () => {
    const above = [
      "",
      "/own.slice",
      "/own.slice/mote",
      "/own.slice/mote/kubepods",
      "/own.slice/mote/kubepods/burstable",
    ];
    for (const path of above) make(path, { "cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "" });
    make(pod, { "cpu.weight": "", "cpu.max": "", "memory.max": "", "pids.max": "", "memory.events": "oom_kill 3\n" });
    await applyPodCgroup(pod, limits, 7, root);
    expect(above.map((path) => read(`${path}/cgroup.subtree_control`))).toEqual(above.map(() => "+cpu +memory +pids"));
    expect([read(`${pod}/cpu.max`), read(`${pod}/memory.max`), read(`${pod}/pids.max`)]).toEqual([
      "50000 100000",
      "1048576",
      "7",
    ]);
    expect(podOomKills("u", "/own.slice/mote/kubepods", root)).toBe(3);
    expect(podOomKills("u", "/kubepods", root)).toBeUndefined();
  });
  test("pods are below it in each tree (v1)", async () => {
    make(`/cpu${pod}`, { "cpu.shares": "", "cpu.cfs_quota_us": "", "cpu.cfs_period_us": "" });
    make(`/memory${pod}`, { "memory.limit_in_bytes": "" });
    await applyPodCgroup(pod, limits, 0, root);
    expect([read(`/cpu${pod}/cpu.shares`), read(`/memory${pod}/memory.limit_in_bytes`)]).toEqual(["1024", "1048576"]);
  });
  test.each<[string, string[], string[]]>([
    ["there (v2)", ["/own.slice"], []],
    ["missing (v2)", [], [""]],
    ["there (v1)", ["/cpu/own.slice", "/memory/own.slice"], []],
    ["in one tree only (v1)", ["/cpu/own.slice", "/memory"], ["/memory"]],
  ])("it has to be there: %s", (name, folders, missing) => {
    if (name.endsWith("(v2)")) make("", { "cgroup.controllers": "cpu" });
    for (const folder of folders) make(folder, {});
    expect(treesWithout("/own.slice", root)).toEqual(missing.map((tree) => `${root}${tree}`));
    expect(treesWithout("/", root)).toEqual([]);
  });
});
