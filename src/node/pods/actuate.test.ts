import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Container, Pod, ResourceRequirements } from "#model/gen/core-v1.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { readPodLimits } from "../cgroups.ts";
import { actuate } from "./actuate.ts";
import type { RuntimeLimits } from "./observation.ts";
import { containerLimits, podLimits } from "./resources.ts";

const mebibyte = 2 ** 20;
const size = (milliCpu: number, memory: number): ResourceRequirements => {
  const amounts = { cpu: `${milliCpu}m`, memory: `${memory}Mi` };
  return { requests: amounts, limits: milliCpu === 0 ? {} : amounts };
};
const podOf = (sizes: readonly ResourceRequirements[]): Pod =>
  ({
    metadata: { name: "p", namespace: "ns", uid: "u" },
    spec: { containers: sizes.map((resources, i) => ({ name: `c${i}`, image: "box", resources }) as Container) },
  }) as Pod;
const limitsOf = (container: Container): RuntimeLimits => {
  const { cpuShares, cpuQuotaUs, memoryBytes } = containerLimits(container);
  return { cpuShares, cpuQuotaUs, memoryBytes };
};

/** Cgroups that refuse what the kernel refuses: a child that may more than its parent. */
class Kernel {
  readonly steps: string[] = [];
  readonly used = new Map<string, number>();
  readonly children = new Map<string, RuntimeLimits>();
  pod: { cpuQuotaUs: number; memoryBytes: number };
  failing = "";

  constructor(pod: Pod) {
    this.pod = podLimits(pod);
    for (const container of pod.spec.containers) this.children.set(container.name, limitsOf(container));
  }

  check(): void {
    for (const [id, child] of this.children) {
      for (const limit of ["cpuQuotaUs", "memoryBytes"] as const) {
        const most = this.pod[limit];
        // No limit of the pod bounds nothing, and a pod with a limit has no container without one.
        if (most > 0 && (child[limit] === 0 || child[limit] > most)) {
          throw new Error(`EINVAL: ${limit} of ${id} is ${child[limit]}, of its pod ${most}`);
        }
      }
    }
  }

  /** Gives a pod that runs as `from` what `to` asks for. */
  async resize(from: Pod, to: Pod): Promise<void> {
    const updates = to.spec.containers.flatMap((container, i) => {
      const before = limitsOf(from.spec.containers[i]!);
      const same = JSON.stringify(before) === JSON.stringify(limitsOf(container));
      return same ? [] : [{ id: container.name, container, from: before }];
    });
    await actuate(to, updates, {
      maxPids: 0,
      podsCgroup: "/kubepods",
      changed: (id) => void this.steps.push(`${id} is changed`),
      cri: {
        updateResources: async (id, wanted) => {
          if (id === this.failing) throw new Error("EBUSY");
          const before = this.children.get(id)!;
          this.steps.push(id);
          this.children.set(id, {
            cpuShares: Number(wanted.cpuShares),
            cpuQuotaUs: Number(wanted.cpuQuota ?? before.cpuQuotaUs),
            memoryBytes: Number(wanted.memoryLimitInBytes) || before.memoryBytes,
          });
          this.check();
        },
      },
      cgroups: {
        read: async () => ({ ...this.pod, unified: true }),
        write: async (_path, { cpuQuotaUs, memoryBytes }) => {
          this.steps.push(`pod ${cpuQuotaUs / 100}m ${memoryBytes / mebibyte}Mi`);
          this.pod = { cpuQuotaUs, memoryBytes };
          this.check();
        },
        usedBytes: (path) => this.used.get(path.split("/").at(-1)!) ?? 0,
      },
    });
  }
}

describe("the order in which cgroups change", () => {
  const cases: [string, ResourceRequirements[], ResourceRequirements[], string[]][] = [
    [
      "a pod that grows grows first",
      [size(100, 64)],
      [size(200, 128)],
      ["pod 200m 128Mi", "c0", "c0 is changed", "pod 200m 128Mi"],
    ],
    [
      "one that shrinks shrinks last",
      [size(200, 128)],
      [size(100, 64)],
      ["pod 200m 128Mi", "c0", "c0 is changed", "pod 100m 64Mi"],
    ],
    [
      "more of one, less of the other",
      [size(100, 128)],
      [size(200, 64)],
      ["pod 200m 128Mi", "c0", "c0 is changed", "pod 200m 64Mi"],
    ],
    [
      "containers that shrink come first",
      [size(100, 64), size(100, 128)],
      [size(100, 128), size(100, 64)],
      ["pod 200m 192Mi", "c1", "c1 is changed", "c0", "c0 is changed", "pod 200m 192Mi"],
    ],
    [
      "the last container gets a limit",
      [size(100, 64), size(0, 0)],
      [size(100, 64), size(100, 64)],
      ["pod 0m 0Mi", "c1", "c1 is changed", "pod 200m 128Mi"],
    ],
    ["nothing but the pod's own cgroup", [size(100, 64)], [size(100, 64)], ["pod 100m 64Mi", "pod 100m 64Mi"]],
  ];
  test.each(cases)("%s", async (_name, from, to, steps) => {
    const kernel = new Kernel(podOf(from));
    await kernel.resize(podOf(from), podOf(to));
    expect(kernel.steps).toEqual(steps);
  });

  test("whatever changes, no container may more than its pod at any moment", async () => {
    const random = seededRandom(5);
    const any = () => size(10 + Math.floor(random.float() * 500), 8 + Math.floor(random.float() * 500));
    let pod = podOf([any(), any(), any()]);
    const kernel = new Kernel(pod);
    for (let i = 0; i < 300; i++) {
      const next = podOf([any(), any(), any()]);
      await kernel.resize(pod, next);
      expect(kernel.pod).toMatchObject({
        cpuQuotaUs: podLimits(next).cpuQuotaUs,
        memoryBytes: podLimits(next).memoryBytes,
      });
      pod = next;
    }
    // The control: this kernel does refuse.
    kernel.pod = { cpuQuotaUs: 1, memoryBytes: 1 };
    expect(() => kernel.check()).toThrow("EINVAL");
  });
});

describe("what is in the way", () => {
  const [from, to] = [podOf([size(100, 64), size(100, 64)]), podOf([size(100, 32), size(200, 64)])];
  test.each([
    [
      "memory of the container",
      "c0",
      "container c0 uses 41943040 bytes of memory, more than its new limit of 33554432",
    ],
    ["memory of the pod", "podu", "pod p uses 104857600 bytes of memory, more than its new limit of 100663296"],
  ])("%s: nothing is changed", async (_name, where, message) => {
    const kernel = new Kernel(from);
    kernel.used.set(where, where === "c0" ? 40 * mebibyte : 100 * mebibyte);
    await expect(kernel.resize(from, to)).rejects.toThrow(message);
    expect(kernel.steps).toEqual([]);
  });
  test("the runtime: what was done is told, and the pod keeps room for both", async () => {
    const kernel = new Kernel(from);
    kernel.failing = "c1";
    await expect(kernel.resize(from, to)).rejects.toThrow("EBUSY");
    expect(kernel.steps).toEqual(["pod 300m 128Mi", "c0", "c0 is changed"]);
  });
});

describe("limits that a cgroup has", () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync("/tmp/mote-cgroup-");
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));
  const write = (files: Readonly<Record<string, string>>) => {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(`${root}/${path.slice(0, path.lastIndexOf("/"))}`, { recursive: true });
      writeFileSync(`${root}/${path}`, `${text}\n`);
    }
  };
  test.each([
    [
      "v2",
      { "/cgroup.controllers": "cpu memory", "/p/cpu.max": "20000 100000", "/p/memory.max": "67108864" },
      true,
      20_000,
      64,
    ],
    [
      "v2 without",
      { "/cgroup.controllers": "cpu memory", "/p/cpu.max": "max 100000", "/p/memory.max": "max" },
      true,
      0,
      0,
    ],
    ["v1", { "/cpu/p/cpu.cfs_quota_us": "20000", "/memory/p/memory.limit_in_bytes": "67108864" }, false, 20_000, 64],
    [
      "v1 without",
      { "/cpu/p/cpu.cfs_quota_us": "-1", "/memory/p/memory.limit_in_bytes": "9223372036854771712" },
      false,
      0,
      0,
    ],
    ["none at all", {}, false, 0, 0],
  ])("%s", async (_name, files, unified, cpuQuotaUs, mebibytes) => {
    write(files as Readonly<Record<string, string>>);
    expect(await readPodLimits("/p", root)).toEqual({ unified, cpuQuotaUs, memoryBytes: mebibytes * mebibyte });
  });
});
