import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { ProbeCounts } from "../pods/probe-counts.ts";
import {
  isUnified,
  parseBlkio,
  parseDevice,
  parseIoStat,
  parseMachineUsage,
  parseNetDev,
  parseProcess,
  parseStat,
  readCgroup,
} from "./kernel.ts";
import { cadvisorMetrics, claimMetrics, resourceMetrics } from "./prometheus.ts";
import { Sampler } from "./sampler.ts";
import { summaryOf } from "./summary.ts";
import type { CgroupDetail, CgroupUsage, ContainerUsage, Sample } from "./usage.ts";

const detail: CgroupDetail = {
  ...{ userNanoseconds: 15e8, systemNanoseconds: 5e8, cacheBytes: 8, mappedFileBytes: 3, kernelBytes: 2 },
  ...{ maxUsageBytes: 50, limitHits: 6, oomKills: 1, maxThreads: 99 },
  ...{ cfsPeriods: 9, cfsThrottledPeriods: 4, cfsThrottledNanoseconds: 5e8 },
  devices: [{ device: "/dev/vda", readBytes: 100, writeBytes: 200, reads: 3, writes: 4 }],
};
const use: CgroupUsage = {
  ...{ cpuNanoseconds: 2e9, usageBytes: 30, workingSetBytes: 20, rssBytes: 10, swapBytes: 4 },
  ...{ pageFaults: 7, majorPageFaults: 1, processes: 2, limitBytes: 100 },
};
const container: ContainerUsage = {
  ...{ ...use, detail, name: "main", containerId: "c1", startedAtMs: 5000, cpuNanoCores: 250_000_000 },
  ...{ rootfsBytes: 11, rootfsInodes: 1, logBytes: 12, logInodes: 2, diskBytes: 23 },
};
const network = [
  {
    ...{ name: "eth0", rxBytes: 1, rxPackets: 2, rxErrors: 3, rxDropped: 4 },
    ...{ txBytes: 5, txPackets: 6, txErrors: 7, txDropped: 8 },
  },
];
const claim = { name: "data", namespace: "ns" };
const sample: Sample = {
  ...{ atMs: 0, timeMs: 42_000 },
  node: {
    ...{ cpuNanoseconds: 9e9, cpuNanoCores: 1e9, usageBytes: 300, workingSetBytes: 200, availableBytes: 800 },
    reclaimableBytes: 850,
    ...{ rssBytes: 1, pageFaults: 1, majorPageFaults: 0, bootedAtMs: 1000, swapUsedBytes: 5, swapTotalBytes: 9 },
    network: [
      { ...network[0]!, name: "mote0" },
      { ...network[0]!, name: "wlan0", rxBytes: 77 },
    ],
    system: [{ ...use, name: "kubelet", startedAtMs: 2000, cpuNanoCores: 3 }],
    groups: [{ ...use, detail, path: "/kubepods/burstable" }],
  },
  pods: [
    {
      ...{ ...use, uid: "u", namespace: "ns", name: "p", startedAtMs: 1000, cpuNanoCores: 5 },
      ...{ cpuNanoseconds: 3e9, workingSetBytes: 40, processes: 3, limitBytes: 0 },
      ...{ ephemeralBytes: 40, ephemeralInodes: 4, containers: [container], network },
      sandbox: { ...use, id: "s1" },
      volumes: [
        {
          ...{ name: "v", bytes: 10, inodes: 1, capacityBytes: 100, availableBytes: 90, totalInodes: 5, freeInodes: 4 },
          ...{ isEphemeral: false, claim },
        },
      ],
    },
  ],
};

describe("kernel files", () => {
  test("stat files", () => expect(parseStat("a 1\nb 22\n\n").get("b")).toBe(22));
  test("network devices, without loopback and pods' ends", () => {
    const text = `Inter-|   Receive
 face |bytes
    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0
vethab12: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0
  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0
`;
    expect(parseNetDev(text)).toEqual([{ ...network[0], rxBytes: 100, txBytes: 500 }]);
  });
  test("the machine", () => {
    const meminfo =
      "MemTotal: 1000 kB\nMemFree: 400 kB\nMemAvailable: 450 kB\nInactive(file): 100 kB\nAnonPages: 50 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n";
    const usage = parseMachineUsage(meminfo, "cpu  10 0 5 1000 50 1 2 3 0 0\nbtime 77\n", "pgfault 5\npgmajfault 2\n");
    expect(usage).toMatchObject({
      cpuNanoseconds: 210_000_000,
      usageBytes: 600 * 1024,
      workingSetBytes: 500 * 1024,
      availableBytes: 500 * 1024,
      reclaimableBytes: 450 * 1024,
      swapUsedBytes: 6 * 1024,
      bootedAtMs: 77_000,
      majorPageFaults: 2,
    });
  });
  test("a process, whatever its name", () => {
    const stat = "77 (a) b) c) S 1 1 1 0 -1 0 11 0 12 0 100 50 0 0 20 0 6 0 300 1 1";
    expect(parseProcess(stat, "VmRSS:\t 9 kB\nRssAnon: 5 kB\nVmSwap: 1 kB\n", 1000)).toMatchObject({
      ...{ cpuNanoseconds: 1_500_000_000, workingSetBytes: 9216, rssBytes: 5120, swapBytes: 1024 },
      ...{ pageFaults: 11, majorPageFaults: 12, processes: 6, startedAtMs: 4000 },
    });
  });
  test("transfers of both versions", () => {
    const wanted = [{ device: "8:0", readBytes: 1, writeBytes: 2, reads: 3, writes: 4 }];
    expect(parseIoStat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n")).toEqual(wanted);
    const all = "8:0 Sync 9\n8:0 Total 9\nTotal 9\n";
    expect(parseBlkio(`8:0 Read 1\n8:0 Write 2\n${all}`, `8:0 Read 3\n8:0 Write 4\n${all}`)).toEqual(wanted);
  });
  test("the device below a path", () => {
    const mounts = "/dev/a / ext4\nproc /proc proc\n/dev/b /var ext4\n/dev/c /var/lib/x ext4\n";
    expect(parseDevice(mounts, "/var/lib/xy/z")).toBe("/dev/b");
    expect(parseDevice(mounts, "/var/lib/x")).toBe("/dev/c");
    expect(parseDevice(mounts, "/etc")).toBe("/dev/a");
  });
});

describe("cgroups", () => {
  let root = "";
  afterEach(() => rmSync(root, { recursive: true, force: true }));
  function tree(files: Readonly<Record<string, string>>): string {
    root = mkdtempSync(join(tmpdir(), "mote-cgroup-"));
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), content);
    }
    return root;
  }
  const wanted = {
    ...{ cpuNanoseconds: 7_000, usageBytes: 1000, workingSetBytes: 900, rssBytes: 300, swapBytes: 20 },
    ...{ pageFaults: 5, majorPageFaults: 1, processes: 4, limitBytes: 5000 },
  };
  const wantedDetail = {
    ...{ userNanoseconds: 4_000, systemNanoseconds: 3_000, cacheBytes: 600, mappedFileBytes: 50, kernelBytes: 30 },
    ...{ maxUsageBytes: 2000, limitHits: 8, oomKills: 2, maxThreads: 0 },
    ...{ cfsPeriods: 10, cfsThrottledPeriods: 3, cfsThrottledNanoseconds: 9_000 },
    devices: [{ device: "999:9", readBytes: 1, writeBytes: 2, reads: 3, writes: 4 }],
  };
  test("version 2", async () => {
    tree({
      "cgroup.controllers": "cpu memory\n",
      "a/cpu.stat": "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 10\nnr_throttled 3\nthrottled_usec 9\n",
      "a/memory.current": "1000\n",
      "a/memory.stat": "anon 300\nfile 600\nkernel 30\nfile_mapped 50\ninactive_file 100\npgfault 5\npgmajfault 1\n",
      "a/memory.swap.current": "20\n",
      "a/memory.max": "5000\n",
      "a/memory.peak": "2000\n",
      "a/memory.events": "low 0\nmax 8\noom 2\noom_kill 2\n",
      "a/pids.current": "4\n",
      "a/pids.max": "max\n",
      "a/io.stat": "999:9 rbytes=1 wbytes=2 rios=3 wios=4\n",
    });
    expect(await isUnified(root)).toBe(true);
    expect(readCgroup("/a", { unified: true, root })).toEqual(wanted);
    expect(readCgroup("/a", { unified: true, root, detail: true })).toEqual({ ...wanted, detail: wantedDetail });
    expect(readCgroup("/gone", { unified: true, root })).toMatchObject({ cpuNanoseconds: 0, usageBytes: 0 });
  });
  test("version 1", async () => {
    tree({
      "cpuacct/a/cpuacct.usage": "7000\n",
      "cpuacct/a/cpuacct.usage_user": "4000\n",
      "cpuacct/a/cpuacct.usage_sys": "3000\n",
      "cpu/a/cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_time 9000\n",
      "memory/a/memory.usage_in_bytes": "1000\n",
      "memory/a/memory.stat":
        "rss 1\ntotal_cache 600\ntotal_rss 300\ntotal_swap 20\ntotal_mapped_file 50\ntotal_inactive_file 100\ntotal_pgfault 5\ntotal_pgmajfault 1\n",
      "memory/a/memory.kmem.usage_in_bytes": "30\n",
      "memory/a/memory.limit_in_bytes": "5000\n",
      "memory/a/memory.max_usage_in_bytes": "2000\n",
      "memory/a/memory.failcnt": "8\n",
      "memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
      "pids/a/pids.current": "4\n",
      "pids/a/pids.max": "max\n",
      "blkio/a/blkio.throttle.io_service_bytes_recursive": "999:9 Read 1\n999:9 Write 2\n",
      "blkio/a/blkio.throttle.io_serviced_recursive": "999:9 Read 3\n999:9 Write 4\n",
      "memory/b/memory.limit_in_bytes": "9223372036854771712\n",
      // LONG_MAX pages of a 32-bit kernel.
      "memory/c/memory.limit_in_bytes": "8796093018112\n",
    });
    expect(await isUnified(root)).toBe(false);
    expect(readCgroup("/a", { unified: false, root })).toEqual(wanted);
    expect(readCgroup("/a", { unified: false, root, detail: true })).toEqual({ ...wanted, detail: wantedDetail });
    expect(readCgroup("/b", { unified: false, root }).limitBytes).toBe(0);
    expect(readCgroup("/c", { unified: false, root }).limitBytes).toBe(0);
  });
});

describe("what scrapers read", () => {
  test("/metrics/resource has a stamp and the names metrics-server asks for", () => {
    const text = resourceMetrics(sample);
    expect(text).toContain('container_cpu_usage_seconds_total{container="main",namespace="ns",pod="p"} 2 42000\n');
    expect(text).toContain("node_memory_working_set_bytes 200 42000\n");
    expect(text).toContain('pod_memory_working_set_bytes{namespace="ns",pod="p"} 40 42000\n');
    expect(text).toContain('container_swap_usage_bytes{container="main",namespace="ns",pod="p"} 4 42000\n');
    expect(text).toContain("\nscrape_error 0\n");
    expect(text).toContain("resource_scrape_error 0\n");
  });
  const cadvisor = cadvisorMetrics({
    sample,
    describe: () => ({
      images: new Map([["main", "box:1"]]),
      specs: new Map([["main", { cpuShares: 2, cpuQuotaUs: 0, cpuPeriodUs: 100_000, memoryBytes: 100 }]]),
      cgroup: "/kubepods/podu",
    }),
    machine: {
      ...{ cpus: 2, memoryBytes: 1000, kernelVersion: "6", osImage: "Debian" },
      ...{ machineId: "m", systemUuid: "s", bootId: "b" },
    },
    pauseImage: "pause:1",
    nodeFs: { device: "/dev/vda", totalBytes: 100, freeBytes: 60, inodes: 10, inodesFree: 4 },
  });
  const of = {
    main: 'container="main",id="/kubepods/podu/c1",image="box:1",name="c1",namespace="ns",pod="p"',
    pause: 'container="",id="/kubepods/podu/s1",image="pause:1",name="s1",namespace="ns",pod="p"',
    pod: 'container="",id="/kubepods/podu",image="",name="",namespace="ns",pod="p"',
    group: 'container="",id="/kubepods/burstable",image="",name="",namespace="",pod=""',
    node: 'container="",id="/",image="",name="",namespace="",pod=""',
  };
  /** The order of labels is nobody's business. */
  const sorted = (labels: string) =>
    labels
      .split(/,(?=\w+=)/)
      .sort()
      .join();
  const lines = cadvisor.split("\n").map((line) => {
    const match = /^(\w+)\{(.*)\} (.*)$/.exec(line);
    return match ? `${match[1]}{${sorted(match[2]!)}} ${match[3]}` : line;
  });
  test.each([
    ["container_cpu_usage_seconds_total", `${of.main},cpu="total"`, 2],
    ["container_cpu_usage_seconds_total", `${of.pod},cpu="total"`, 3],
    ["container_cpu_usage_seconds_total", `${of.group},cpu="total"`, 2],
    ["container_cpu_usage_seconds_total", `${of.node},cpu="total"`, 9],
    ["container_cpu_user_seconds_total", of.main, 1.5],
    ["container_cpu_system_seconds_total", of.main, 0.5],
    ["container_cpu_cfs_throttled_seconds_total", of.main, 0.5],
    ["container_memory_working_set_bytes", of.main, 20],
    ["container_memory_rss", of.pause, 10],
    ["container_memory_cache", of.main, 8],
    ["container_memory_swap", of.node, 5],
    ["container_memory_failcnt", of.main, 6],
    ["container_oom_events_total", of.main, 1],
    ["container_memory_failures_total", `${of.main},failure_type="pgmajfault",scope="hierarchy"`, 1],
    ["container_network_receive_bytes_total", `${of.pause},interface="eth0"`, 1],
    ["container_network_transmit_packets_dropped_total", `${of.node},interface="wlan0"`, 8],
    ["container_fs_usage_bytes", `${of.main},device=""`, 11],
    ["container_fs_usage_bytes", `${of.node},device="/dev/vda"`, 40],
    ["container_fs_limit_bytes", `${of.node},device="/dev/vda"`, 100],
    ["container_fs_writes_bytes_total", `${of.main},device="/dev/vda"`, 200],
    ["container_fs_reads_total", `${of.group},device="/dev/vda"`, 3],
    ["container_spec_memory_limit_bytes", of.main, 100],
    ["container_spec_cpu_shares", of.main, 2],
    ["container_start_time_seconds", of.main, 5],
    ["container_last_seen", of.main, 42],
    ["container_threads_max", of.main, 99],
    ["machine_cpu_cores", 'boot_id="b",machine_id="m",system_uuid="s"', 2],
    ["machine_memory_bytes", 'boot_id="b",machine_id="m",system_uuid="s"', 1000],
  ])("/metrics/cadvisor: %s{%s} %d", (name, labels, value) => {
    expect(lines).toContain(`${name}{${sorted(labels)}} ${value}`);
    expect(lines.filter((line) => line.startsWith(`# TYPE ${name} `))).toHaveLength(1);
  });
  test("a quota only where there is one", () => expect(cadvisor).not.toContain("container_spec_cpu_quota"));
  test("claims, once each", () => {
    const text = claimMetrics({ ...sample, pods: [...sample.pods, { ...sample.pods[0]!, name: "q" }] });
    const labels = 'namespace="ns",persistentvolumeclaim="data"';
    expect(text.split("\n").filter((line) => line.includes("{"))).toEqual([
      `kubelet_volume_stats_capacity_bytes{${labels}} 100`,
      `kubelet_volume_stats_available_bytes{${labels}} 90`,
      `kubelet_volume_stats_used_bytes{${labels}} 10`,
      `kubelet_volume_stats_inodes{${labels}} 5`,
      `kubelet_volume_stats_inodes_free{${labels}} 4`,
      `kubelet_volume_stats_inodes_used{${labels}} 1`,
    ]);
  });
  test("probes, until their pod goes", () => {
    const counts = new ProbeCounts();
    const pod = { metadata: { namespace: "ns", name: "p", uid: "u" } } as Pod;
    counts.record(pod, "main", "liveness", "successful", 30);
    counts.record(pod, "main", "liveness", "failed", 1000);
    const labels = 'container="main",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness"';
    const text = counts.render();
    expect(text).toContain(`prober_probe_total{${labels},result="successful"} 1\n`);
    expect(text).toContain(`prober_probe_total{${labels},result="failed"} 1\n`);
    expect(text).toContain(`prober_probe_duration_seconds_bucket{${labels},le="0.025"} 0\n`);
    expect(text).toContain(`prober_probe_duration_seconds_bucket{${labels},le="0.05"} 1\n`);
    counts.forget("u");
    expect(counts.render()).toBe("");
  });
});

describe("the summary", () => {
  const disk = { totalBytes: 100, freeBytes: 60, inodes: 10, inodesFree: 4 };
  const summary = (onlyCpuAndMemory: boolean) =>
    summaryOf({
      ...{ nodeName: "n", sample, nodeFs: disk, imageFs: { ...disk, usedBytes: 5 }, pids: { max: 9, used: 1 } },
      ...{ mainInterface: "wlan0", onlyCpuAndMemory },
    }) as Record<"node", Record<string, unknown>> & { pods: Record<string, unknown>[] };
  test("in full", () => {
    expect(summary(false)).toMatchObject({
      node: {
        nodeName: "n",
        systemContainers: [{ name: "kubelet", cpu: { usageNanoCores: 3 }, memory: { workingSetBytes: 20 } }],
        cpu: { time: "1970-01-01T00:00:42Z", usageNanoCores: 1e9, usageCoreNanoSeconds: 9e9 },
        memory: { availableBytes: 800 },
        network: { name: "wlan0", rxBytes: 77 },
        fs: { usedBytes: 40, inodesUsed: 6 },
        rlimit: { maxpid: 9, curproc: 1 },
        swap: { swapAvailableBytes: 4, swapUsageBytes: 5 },
      },
      pods: [
        {
          podRef: { name: "p", namespace: "ns", uid: "u" },
          containers: [
            {
              ...{ name: "main", memory: { availableBytes: 80 }, rootfs: { usedBytes: 11 }, logs: { usedBytes: 12 } },
              swap: { swapUsageBytes: 4 },
            },
          ],
          network: { name: "eth0", rxBytes: 1 },
          volume: [{ name: "v", usedBytes: 10, pvcRef: claim }],
          "ephemeral-storage": { usedBytes: 40 },
          process_stats: { process_count: 3 },
        },
      ],
    });
  });
  test("in short", () => {
    const { node, pods } = summary(true);
    expect(Object.keys(node).sort()).toEqual(["cpu", "memory", "nodeName", "startTime", "swap", "systemContainers"]);
    expect(Object.keys(pods[0]!).sort()).toEqual(["containers", "cpu", "memory", "podRef", "startTime", "swap"]);
  });
});

describe("sampler", () => {
  function samplerOf(clock: FakeClock) {
    const calls = { layers: 0 };
    const cri = {
      async containerStats() {
        calls.layers++;
        return [];
      },
    };
    const pods = () => [] as { pod: Pod; observed: never }[];
    const sampler = new Sampler({
      cri,
      clock,
      pods,
      podsCgroup: "/kubepods",
      podLogRoot: "/none",
      podFolder: () => "/none",
    });
    const within = async <T>(work: Promise<T>): Promise<T> => {
      let isOver = false;
      const done = work.finally(() => {
        isOver = true;
      });
      while (!isOver) {
        await clock.advance(100);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      return done;
    };
    return { sampler, calls, within };
  }
  test("a first question takes two samples for its rates; soon after, the same sample answers", async () => {
    const clock = new FakeClock();
    const { sampler, calls, within } = samplerOf(clock);
    const first = await within(sampler.sample());
    expect(first.node.cpuNanoCores).toBeGreaterThanOrEqual(0);
    expect(first.node.workingSetBytes).toBeGreaterThan(0);
    expect(first.node.system.map(({ name }) => name)).toEqual(["kubelet", "pods"]);
    expect(first.node.system[0]?.rssBytes).toBeGreaterThan(1_000_000);
    expect(calls.layers).toBe(2);
    expect(await sampler.sample()).toBe(first);
    await clock.advance(15_000);
    expect((await within(sampler.sample())).timeMs).toBeGreaterThan(first.timeMs);
    expect(calls.layers).toBe(3);
    // After a long silence the last sample says nothing about now.
    await clock.advance(600_000);
    await within(sampler.sample());
    expect(calls.layers).toBe(5);
  });
  test("counters come at once, without the runtime", async () => {
    const clock = new FakeClock();
    const { sampler, calls } = samplerOf(clock);
    const first = await sampler.counters();
    expect(first.node.cpuNanoseconds).toBeGreaterThan(0);
    expect(await sampler.counters()).toBe(first);
    expect(calls.layers).toBe(0);
    expect(clock.pending).toBe(0);
  });
});
