// /metrics/resource, /metrics/cadvisor and the claims' part of /metrics in Prometheus' text format, from one sample. Names,
// types and labels are those that dashboards, recording rules and metrics-server ask for. Pure.
import type { Labels } from "#base/metrics.ts";
import type { CgroupDetail, CgroupUsage, ContainerUsage, NetworkUsage, PodUsage, Sample } from "./usage.ts";

export interface PodDescription {
  /** By container name. */
  readonly images: ReadonlyMap<string, string>;
  /** Requests and limits by container name, as the kernel has them. */
  readonly specs: ReadonlyMap<
    string,
    {
      readonly cpuShares: number;
      readonly cpuQuotaUs: number;
      readonly cpuPeriodUs: number;
      readonly memoryBytes: number;
    }
  >;
  readonly cgroup: string;
}

export interface MachineDescription {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly kernelVersion: string;
  readonly osImage: string;
  readonly machineId: string;
  readonly systemUuid: string;
  readonly bootId: string;
}

export interface CadvisorInput {
  readonly sample: Sample;
  readonly describe: (pod: PodUsage) => PodDescription | undefined;
  readonly machine: MachineDescription;
  readonly pauseImage: string;
  /** The node's disk: its device, and how much of it is used. */
  readonly nodeFs: {
    readonly device: string;
    readonly totalBytes: number;
    readonly freeBytes: number;
    readonly inodes: number;
    readonly inodesFree: number;
  };
}

type Rows = Iterable<readonly [Labels, number]>;

class Text {
  #out = "";
  readonly #stampMs: number | undefined;
  constructor(stampMs?: number) {
    this.#stampMs = stampMs;
  }
  family(name: string, type: "counter" | "gauge", help: string, rows: Rows): void {
    let any = false;
    for (const [labels, value] of rows) {
      if (!any) this.#out += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
      any = true;
      const text = Object.entries(labels)
        .map(([key, label]) => `${key}=${JSON.stringify(label)}`)
        .join(",");
      const stamp = this.#stampMs === undefined ? "" : ` ${this.#stampMs}`;
      this.#out += `${name}${text === "" ? "" : `{${text}}`} ${value}${stamp}\n`;
    }
  }
  toString(): string {
    return this.#out;
  }
}

const seconds = (nanoseconds: number): number => nanoseconds / 1e9;

export function resourceMetrics(sample: Sample): string {
  const out = new Text(sample.timeMs);
  const { node, pods } = sample;
  const of = (pod: PodUsage): Labels => ({ namespace: pod.namespace, pod: pod.name });
  const containers = pods.flatMap((pod) => pod.containers.map((c) => [{ container: c.name, ...of(pod) }, c] as const));
  const each = (pick: (c: ContainerUsage) => number) => containers.map(([labels, c]) => [labels, pick(c)] as const);
  const eachPod = (pick: (pod: PodUsage) => number) => pods.map((pod) => [of(pod), pick(pod)] as const);
  const families: readonly [name: string, type: "counter" | "gauge", help: string, rows: Rows][] = [
    [
      "container_cpu_usage_seconds_total",
      "counter",
      "Core seconds used by the container.",
      each((c) => seconds(c.cpuNanoseconds)),
    ],
    ["container_memory_working_set_bytes", "gauge", "Working set of the container.", each((c) => c.workingSetBytes)],
    [
      "container_start_time_seconds",
      "gauge",
      "When the container started, since 1970.",
      each((c) => c.startedAtMs / 1000),
    ],
    ["container_swap_usage_bytes", "gauge", "Swap used by the container.", each((c) => c.swapBytes)],
    ["node_cpu_usage_seconds_total", "counter", "Core seconds used by the node.", [[{}, seconds(node.cpuNanoseconds)]]],
    ["node_memory_working_set_bytes", "gauge", "Working set of the node.", [[{}, node.workingSetBytes]]],
    ["node_swap_usage_bytes", "gauge", "Swap used by the node.", [[{}, node.swapUsedBytes]]],
    [
      "pod_cpu_usage_seconds_total",
      "counter",
      "Core seconds used by the pod.",
      eachPod((p) => seconds(p.cpuNanoseconds)),
    ],
    ["pod_memory_working_set_bytes", "gauge", "Working set of the pod.", eachPod((p) => p.workingSetBytes)],
    ["pod_swap_usage_bytes", "gauge", "Swap used by the pod.", eachPod((p) => p.swapBytes)],
  ];
  for (const family of families) out.family(...family);
  const health = new Text();
  // Two names: the first is the older one.
  health.family("scrape_error", "gauge", "1 where the figures could not be had.", [[{}, 0]]);
  health.family("resource_scrape_error", "gauge", "1 where the figures could not be had.", [[{}, 0]]);
  return out.toString() + health.toString();
}

/** kubelet_volume_stats_*: once for each claim, however many pods share it. */
export function claimMetrics(sample: Sample): string {
  const out = new Text();
  const claims = new Map(
    sample.pods.flatMap((pod) =>
      pod.volumes.flatMap((v) => (v.claim ? [[`${v.claim.namespace}/${v.claim.name}`, { ...v, claim: v.claim }]] : [])),
    ) as [string, PodUsage["volumes"][number] & { claim: { name: string; namespace: string } }][],
  );
  const each = (pick: (v: PodUsage["volumes"][number]) => number) =>
    [...claims.values()].map(
      (v) => [{ namespace: v.claim.namespace, persistentvolumeclaim: v.claim.name }, pick(v)] as const,
    );
  const families: readonly [part: string, what: string, pick: (v: PodUsage["volumes"][number]) => number][] = [
    ["capacity_bytes", "Size of the volume.", (v) => v.capacityBytes],
    ["available_bytes", "What is free in the volume.", (v) => v.availableBytes],
    ["used_bytes", "What is used of the volume.", (v) => v.bytes],
    ["inodes", "Inodes of the volume.", (v) => v.totalInodes],
    ["inodes_free", "Free inodes of the volume.", (v) => v.freeInodes],
    ["inodes_used", "Used inodes of the volume.", (v) => v.inodes],
  ];
  for (const [part, what, pick] of families) out.family(`kubelet_volume_stats_${part}`, "gauge", what, each(pick));
  return out.toString();
}

interface Row {
  readonly labels: Labels;
  readonly use: Pick<
    CgroupUsage,
    "cpuNanoseconds" | "usageBytes" | "workingSetBytes" | "rssBytes" | "swapBytes" | "pageFaults" | "majorPageFaults"
  > &
    Partial<Pick<CgroupUsage, "processes">>;
  readonly detail: CgroupDetail | undefined;
}

/** Of every cgroup. */
const everywhere: readonly [name: string, type: "counter" | "gauge", help: string, pick: (row: Row) => number][] = [
  ["container_memory_usage_bytes", "gauge", "Memory used, page cache included.", ({ use }) => use.usageBytes],
  ["container_memory_working_set_bytes", "gauge", "Memory in use.", ({ use }) => use.workingSetBytes],
  ["container_memory_rss", "gauge", "Anonymous memory.", ({ use }) => use.rssBytes],
  ["container_memory_swap", "gauge", "Swap used.", ({ use }) => use.swapBytes],
];
const inDetail: readonly [name: string, type: "counter" | "gauge", help: string, pick: (d: CgroupDetail) => number][] =
  [
    ["container_cpu_user_seconds_total", "counter", "Core seconds in user mode.", (d) => seconds(d.userNanoseconds)],
    [
      "container_cpu_system_seconds_total",
      "counter",
      "Core seconds in the kernel.",
      (d) => seconds(d.systemNanoseconds),
    ],
    ["container_cpu_cfs_periods_total", "counter", "Times the CPU quota was accounted.", (d) => d.cfsPeriods],
    ["container_cpu_cfs_throttled_periods_total", "counter", "Times it ran out.", (d) => d.cfsThrottledPeriods],
    [
      "container_cpu_cfs_throttled_seconds_total",
      "counter",
      "For how long it had run out.",
      (d) => seconds(d.cfsThrottledNanoseconds),
    ],
    ["container_memory_cache", "gauge", "Page cache.", (d) => d.cacheBytes],
    ["container_memory_mapped_file", "gauge", "Mapped files.", (d) => d.mappedFileBytes],
    ["container_memory_kernel_usage", "gauge", "Memory of the kernel.", (d) => d.kernelBytes],
    ["container_memory_max_usage_bytes", "gauge", "The most memory that was used.", (d) => d.maxUsageBytes],
    ["container_memory_failcnt", "counter", "Times the memory limit was hit.", (d) => d.limitHits],
    ["container_oom_events_total", "counter", "Processes killed for want of memory.", (d) => d.oomKills],
    ["container_threads_max", "gauge", "How many threads there may be; 0 for no bound.", (d) => d.maxThreads],
  ];

export function cadvisorMetrics({ sample, describe, machine, pauseImage, nodeFs }: CadvisorInput): string {
  const out = new Text();
  const bare = { container: "", image: "", name: "", namespace: "", pod: "" };
  const root: Row = {
    labels: { ...bare, id: "/" },
    use: { ...sample.node, swapBytes: sample.node.swapUsedBytes },
    detail: undefined,
  };
  const rows: Row[] = [root];
  for (const group of sample.node.groups) {
    rows.push({ labels: { ...bare, id: group.path }, use: group, detail: group.detail });
  }
  interface Own extends Row {
    readonly container: ContainerUsage;
    readonly about: PodDescription | undefined;
  }
  const containers: Own[] = [];
  const networks: (readonly [Labels, readonly NetworkUsage[]])[] = [[root.labels, sample.node.network]];
  for (const pod of sample.pods) {
    const about = describe(pod);
    const base = about?.cgroup ?? "";
    const own = { namespace: pod.namespace, pod: pod.name };
    rows.push({ labels: { ...bare, ...own, id: base }, use: pod, detail: pod.detail });
    const { sandbox } = pod;
    const pause = { container: "", id: `${base}/${sandbox.id}`, image: pauseImage, name: sandbox.id, ...own };
    rows.push({ labels: pause, use: sandbox, detail: sandbox.detail });
    networks.push([pause, pod.network]);
    for (const container of pod.containers) {
      const { name, containerId } = container;
      const image = about?.images.get(name) ?? "";
      const labels = { container: name, id: `${base}/${containerId}`, image, name: containerId, ...own };
      containers.push({ labels, use: container, detail: container.detail, container, about });
    }
  }
  rows.push(...containers);

  const { kernelVersion, osImage: osVersion } = machine;
  out.family("cadvisor_version_info", "gauge", "Kernel and operating system.", [
    [{ cadvisorRevision: "", cadvisorVersion: "", dockerVersion: "", kernelVersion, osVersion }, 1],
  ]);
  out.family(
    "container_cpu_usage_seconds_total",
    "counter",
    "Core seconds used.",
    rows.map(({ labels, use }) => [{ ...labels, cpu: "total" }, seconds(use.cpuNanoseconds)] as const),
  );
  for (const [name, type, help, pick] of everywhere) {
    out.family(
      name,
      type,
      help,
      rows.map((row) => [row.labels, pick(row)] as const),
    );
  }
  for (const [name, type, help, pick] of inDetail) {
    out.family(
      name,
      type,
      help,
      rows.flatMap(({ labels, detail }) => (detail ? [[labels, pick(detail)] as const] : [])),
    );
  }
  out.family(
    "container_memory_failures_total",
    "counter",
    "Page faults.",
    rows.flatMap(({ labels, use }) => [
      [{ ...labels, failure_type: "pgfault", scope: "hierarchy" }, use.pageFaults] as const,
      [{ ...labels, failure_type: "pgmajfault", scope: "hierarchy" }, use.majorPageFaults] as const,
    ]),
  );
  for (const [name, help] of [
    ["container_processes", "Processes and threads."],
    ["container_threads", "Processes and threads."],
  ] as const) {
    out.family(
      name,
      "gauge",
      help,
      rows.flatMap(({ labels, use }) => (use.processes === undefined ? [] : [[labels, use.processes] as const])),
    );
  }
  disks(out, rows, containers, root, nodeFs);
  const each = (pick: (own: Own) => number): Rows => containers.map((own) => [own.labels, pick(own)] as const);
  out.family(
    "container_start_time_seconds",
    "gauge",
    "When it started, since 1970.",
    each(({ container }) => container.startedAtMs / 1000),
  );
  out.family(
    "container_last_seen",
    "gauge",
    "When it was last looked at, since 1970.",
    each(() => Math.floor(sample.timeMs / 1000)),
  );
  type Spec = NonNullable<ReturnType<PodDescription["specs"]["get"]>>;
  const spec = (pick: (s: Spec) => number) =>
    containers.flatMap(({ labels, container, about }) => {
      const found = about?.specs.get(container.name);
      return found ? [[labels, pick(found)] as const] : [];
    });
  out.family(
    "container_spec_cpu_shares",
    "gauge",
    "CPU shares.",
    spec((s) => s.cpuShares),
  );
  out.family(
    "container_spec_cpu_period",
    "gauge",
    "Period of the CPU quota.",
    spec((s) => s.cpuPeriodUs),
  );
  out.family(
    "container_spec_cpu_quota",
    "gauge",
    "CPU quota of a period.",
    spec((s) => s.cpuQuotaUs).filter(([, value]) => value > 0),
  );
  out.family(
    "container_spec_memory_limit_bytes",
    "gauge",
    "Memory limit; 0 for none.",
    spec((s) => s.memoryBytes),
  );
  out.family(
    "container_spec_memory_reservation_limit_bytes",
    "gauge",
    "Soft memory limit; 0 for none.",
    spec(() => 0),
  );
  out.family(
    "container_spec_memory_swap_limit_bytes",
    "gauge",
    "Swap limit; 0 for none.",
    spec(() => 0),
  );
  network(out, networks);
  out.family("container_scrape_error", "gauge", "1 where containers could not be looked at.", [[{}, 0]]);

  const host = { boot_id: machine.bootId, machine_id: machine.machineId, system_uuid: machine.systemUuid };
  out.family("machine_cpu_cores", "gauge", "Logical processors.", [[host, machine.cpus]]);
  out.family("machine_memory_bytes", "gauge", "Memory of the machine.", [[host, machine.memoryBytes]]);
  out.family("machine_swap_bytes", "gauge", "Swap of the machine.", [[host, sample.node.swapTotalBytes]]);
  out.family("machine_scrape_error", "gauge", "1 where the machine could not be looked at.", [[{}, 0]]);
  return out.toString();
}

function disks(
  out: Text,
  rows: readonly Row[],
  containers: readonly (Row & { readonly container: ContainerUsage })[],
  root: Row,
  nodeFs: CadvisorInput["nodeFs"],
): void {
  const node = { ...root.labels, device: nodeFs.device };
  const own = (pick: (c: ContainerUsage) => number) =>
    containers.map(({ labels, container }) => [{ ...labels, device: "" }, pick(container)] as const);
  out.family("container_fs_usage_bytes", "gauge", "Disk used.", [
    [node, nodeFs.totalBytes - nodeFs.freeBytes],
    ...own((c) => c.rootfsBytes),
  ]);
  out.family("container_fs_limit_bytes", "gauge", "Size of the disk.", [
    [node, nodeFs.totalBytes],
    ...own(() => nodeFs.totalBytes),
  ]);
  out.family("container_fs_inodes_free", "gauge", "Free inodes of the disk.", [[node, nodeFs.inodesFree]]);
  out.family("container_fs_inodes_total", "gauge", "Inodes of the disk.", [[node, nodeFs.inodes]]);
  const transfers = rows.flatMap(({ labels, detail }) =>
    (detail?.devices ?? []).map((use) => [{ ...labels, device: use.device }, use] as const),
  );
  for (const [name, help, key] of [
    ["container_fs_reads_bytes_total", "Bytes read.", "readBytes"],
    ["container_fs_writes_bytes_total", "Bytes written.", "writeBytes"],
    ["container_fs_reads_total", "Reads.", "reads"],
    ["container_fs_writes_total", "Writes.", "writes"],
  ] as const) {
    out.family(
      name,
      "counter",
      help,
      transfers.map(([labels, use]) => [labels, use[key]] as const),
    );
  }
}

function network(out: Text, networks: readonly (readonly [Labels, readonly NetworkUsage[]])[]): void {
  const rows = networks.flatMap(([labels, list]) => list.map((n) => [{ ...labels, interface: n.name }, n] as const));
  for (const [direction, key] of [
    ["receive", "rx"],
    ["transmit", "tx"],
  ] as const) {
    for (const [part, what, suffix] of [
      ["bytes", "Bytes", "Bytes"],
      ["packets", "Packets", "Packets"],
      ["errors", "Errors", "Errors"],
      ["packets_dropped", "Dropped packets", "Dropped"],
    ] as const) {
      const name = `container_network_${direction}_${part}_total`;
      const help = `${what}, ${direction}.`;
      out.family(
        name,
        "counter",
        help,
        rows.map(([labels, n]) => [labels, n[`${key}${suffix}`]] as const),
      );
    }
  }
}
