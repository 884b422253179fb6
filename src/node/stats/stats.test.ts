import { describe, expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { systemClock } from "#platform/clock.ts";
import type { Cri } from "../cri.ts";
import { parseMachineUsage, parseNetDev, parseStat } from "./kernel.ts";
import { cadvisorMetrics, resourceMetrics } from "./prometheus.ts";
import { Sampler } from "./sampler.ts";
import { summaryOf } from "./summary.ts";
import type { ContainerUsage, Sample } from "./usage.ts";

const container: ContainerUsage = {
  ...{ name: "main", containerId: "c1", startedAtMs: 5000, cpuNanoseconds: 2e9, cpuNanoCores: 250_000_000 },
  ...{ usageBytes: 30, workingSetBytes: 20, rssBytes: 10, pageFaults: 7, majorPageFaults: 1, processes: 2 },
  ...{ limitBytes: 100, cfsPeriods: 9, cfsThrottledPeriods: 4, cfsThrottledNanoseconds: 5e8 },
  ...{ rootfsBytes: 11, rootfsInodes: 1, logBytes: 12, logInodes: 2, diskBytes: 23 },
};
const network = [
  {
    ...{ name: "eth0", rxBytes: 1, rxPackets: 2, rxErrors: 3, rxDropped: 4 },
    ...{ txBytes: 5, txPackets: 6, txErrors: 7, txDropped: 8 },
  },
];
const sample: Sample = {
  atMs: 0,
  node: {
    ...{
      cpuNanoseconds: 9e9,
      cpuNanoCores: 1e9,
      usageBytes: 300,
      workingSetBytes: 200,
      availableBytes: 800,
      rssBytes: 1,
    },
    ...{ pageFaults: 1, majorPageFaults: 0, bootedAtMs: 1000, network, swapUsedBytes: 0, swapTotalBytes: 0 },
  },
  pods: [
    {
      ...{
        uid: "u",
        namespace: "ns",
        name: "p",
        startedAtMs: 1000,
        cpuNanoseconds: 3e9,
        cpuNanoCores: 5,
        usageBytes: 60,
      },
      ...{
        workingSetBytes: 40,
        rssBytes: 20,
        pageFaults: 0,
        majorPageFaults: 0,
        processes: 3,
        ephemeralBytes: 40,
        ephemeralInodes: 4,
      },
      ...{ containers: [container], volumes: [], network },
    },
  ],
};

describe("kernel files", () => {
  test("stat files", () => expect(parseStat("a 1\nb 22\n\n").get("b")).toBe(22));
  test("network devices, without loopback", () => {
    const text = `Inter-|   Receive
 face |bytes
    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0
  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0
`;
    expect(parseNetDev(text)).toEqual([{ ...network[0], rxBytes: 100, txBytes: 500 }]);
  });
  test("the machine", () => {
    const meminfo =
      "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\nAnonPages: 50 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n";
    const usage = parseMachineUsage(meminfo, "cpu  10 0 5 1000 50 1 2 3 0 0\nbtime 77\n", "pgfault 5\npgmajfault 2\n");
    expect(usage).toMatchObject({
      cpuNanoseconds: 210_000_000,
      usageBytes: 600 * 1024,
      workingSetBytes: 500 * 1024,
      availableBytes: 500 * 1024,
      swapUsedBytes: 6 * 1024,
      bootedAtMs: 77_000,
      majorPageFaults: 2,
    });
  });
});

describe("what scrapers read", () => {
  test("/metrics/resource has a stamp and the names metrics-server asks for", () => {
    const text = resourceMetrics(sample, 42);
    expect(text).toContain('container_cpu_usage_seconds_total{container="main",namespace="ns",pod="p"} 2 42\n');
    expect(text).toContain("node_memory_working_set_bytes 200 42\n");
    expect(text).toContain('pod_memory_working_set_bytes{namespace="ns",pod="p"} 40 42\n');
    expect(text).toContain("resource_scrape_error 0\n");
  });
  test("/metrics/cadvisor: containers, pods and the node by their labels", () => {
    const text = cadvisorMetrics(
      sample,
      () => ({
        namespace: "ns",
        name: "p",
        images: new Map([["main", "box:1"]]),
        specs: new Map(),
        cgroup: "/kubepods/podu",
      }),
      { cpus: 2, memoryBytes: 1000, kernelVersion: "6", osImage: "Debian" },
      0,
    );
    expect(text).toContain(
      'container_memory_working_set_bytes{container="main",id="/kubepods/podu/c1",image="box:1",name="c1",namespace="ns",pod="p"} 20\n',
    );
    expect(text).toMatch(/container_cpu_usage_seconds_total\{container="",id="\/",.*cpu="total"\} 9\n/);
    expect(text).toMatch(/container_network_receive_bytes_total\{.*pod="p",interface="eth0"\} 1\n/);
    expect(text).toMatch(/container_cpu_cfs_throttled_seconds_total\{.*\} 0.5\n/);
    expect(text).toContain("machine_cpu_cores 2\n");
  });
  test("the summary", () => {
    const disk = { totalBytes: 100, freeBytes: 60, inodes: 10, inodesFree: 4 };
    const summary = summaryOf({
      ...{
        nodeName: "n",
        nowMs: 0,
        sample,
        nodeFs: disk,
        imageFs: { ...disk, usedBytes: 5 },
        pids: { max: 9, used: 1 },
      },
    });
    expect(summary).toMatchObject({
      node: {
        nodeName: "n",
        cpu: { usageNanoCores: 1e9 },
        memory: { availableBytes: 800 },
        fs: { usedBytes: 40, inodesUsed: 6 },
      },
      pods: [
        {
          podRef: { name: "p", namespace: "ns", uid: "u" },
          containers: [
            { name: "main", memory: { availableBytes: 80 }, rootfs: { usedBytes: 11 }, logs: { usedBytes: 12 } },
          ],
          network: { name: "eth0", rxBytes: 1 },
          "ephemeral-storage": { usedBytes: 40 },
        },
      ],
    });
  });
});

test("a first question takes two samples for its rates; soon after, the same sample answers", async () => {
  let asked = 0;
  const cri = {
    async containerStats() {
      asked++;
      return [];
    },
  } as unknown as Cri;
  const pods = () => [] as { pod: Pod; observed: never }[];
  const sampler = new Sampler({ cri, clock: systemClock, pods, podLogRoot: "/none", podFolder: () => "/none" });
  const first = await sampler.sample();
  expect(first.node.cpuNanoCores).toBeGreaterThanOrEqual(0);
  expect(first.node.workingSetBytes).toBeGreaterThan(0);
  expect(await sampler.sample()).toBe(first);
  expect(asked).toBe(2);
});
