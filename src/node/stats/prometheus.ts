// /metrics/resource and /metrics/cadvisor in Prometheus' text format, from one sample. Names, types and labels are those that
// dashboards, recording rules and metrics-server ask for. Pure.
import type { Labels } from "#base/metrics.ts";
import type { ContainerUsage, NetworkUsage, PodUsage, Sample } from "./usage.ts";

export interface PodDescription {
  readonly namespace: string;
  readonly name: string;
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

class Text {
  #out = "";
  readonly #stampMs: number | undefined;
  constructor(stampMs?: number) {
    this.#stampMs = stampMs;
  }
  family(name: string, type: "counter" | "gauge", help: string, rows: Iterable<readonly [Labels, number]>): void {
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

export function resourceMetrics(sample: Sample, nowMs: number): string {
  const out = new Text(nowMs);
  const { node, pods } = sample;
  const of = (pod: PodUsage): Labels => ({ namespace: pod.namespace, pod: pod.name });
  const containers = pods.flatMap((pod) => pod.containers.map((c) => [{ container: c.name, ...of(pod) }, c] as const));
  const each = (pick: (c: ContainerUsage) => number) => containers.map(([labels, c]) => [labels, pick(c)] as const);
  const eachPod = (pick: (pod: PodUsage) => number) => pods.map((pod) => [of(pod), pick(pod)] as const);
  out.family(
    "container_cpu_usage_seconds_total",
    "counter",
    "Cumulative cpu time consumed by the container in core-seconds",
    each((c) => seconds(c.cpuNanoseconds)),
  );
  out.family(
    "container_memory_working_set_bytes",
    "gauge",
    "Current working set of the container in bytes",
    each((c) => c.workingSetBytes),
  );
  out.family(
    "container_start_time_seconds",
    "gauge",
    "Start time of the container since unix epoch in seconds",
    each((c) => c.startedAtMs / 1000),
  );
  out.family(
    "container_swap_usage_bytes",
    "gauge",
    "Current amount of the container swap usage in bytes",
    each(() => 0),
  );
  out.family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds", [
    [{}, seconds(node.cpuNanoseconds)],
  ]);
  out.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", [
    [{}, node.workingSetBytes],
  ]);
  out.family("node_swap_usage_bytes", "gauge", "Current swap usage of the node in bytes", [[{}, node.swapUsedBytes]]);
  out.family(
    "pod_cpu_usage_seconds_total",
    "counter",
    "Cumulative cpu time consumed by the pod in core-seconds",
    eachPod((p) => seconds(p.cpuNanoseconds)),
  );
  out.family(
    "pod_memory_working_set_bytes",
    "gauge",
    "Current working set of the pod in bytes",
    eachPod((p) => p.workingSetBytes),
  );
  out.family(
    "pod_swap_usage_bytes",
    "gauge",
    "Current amount of the pod swap usage in bytes",
    eachPod(() => 0),
  );
  const health = new Text();
  health.family(
    "resource_scrape_error",
    "gauge",
    "1 if there was an error while getting container metrics, 0 otherwise",
    [[{}, 0]],
  );
  return out.toString() + health.toString();
}

export function cadvisorMetrics(
  sample: Sample,
  describe: (pod: PodUsage) => PodDescription | undefined,
  machine: {
    readonly cpus: number;
    readonly memoryBytes: number;
    readonly kernelVersion: string;
    readonly osImage: string;
  },
  nowMs: number,
): string {
  const out = new Text();
  type Row = readonly [Labels, ContainerUsage, PodDescription | undefined];
  const rows: Row[] = [];
  const podRows: (readonly [Labels, PodUsage])[] = [];
  for (const pod of sample.pods) {
    const about = describe(pod);
    const own = { namespace: pod.namespace, pod: pod.name };
    podRows.push([{ container: "", id: about?.cgroup ?? "", image: "", name: "", ...own }, pod]);
    for (const c of pod.containers) {
      const id = `${about?.cgroup ?? ""}/${c.containerId}`;
      const labels = { container: c.name, id, image: about?.images.get(c.name) ?? "", name: c.containerId, ...own };
      rows.push([labels, c, about]);
    }
  }
  type Use = Pick<
    ContainerUsage,
    "cpuNanoseconds" | "usageBytes" | "workingSetBytes" | "rssBytes" | "processes" | "pageFaults" | "majorPageFaults"
  >;
  const node: Use = { ...sample.node, processes: 0 };
  const all: (readonly [Labels, Use])[] = [
    [{ container: "", id: "/", image: "", name: "", namespace: "", pod: "" }, node],
    ...podRows,
    ...rows.map(([labels, use]) => [labels, use] as const),
  ];
  const each = (pick: (use: Use) => number, extra: Labels = {}) =>
    all.map(([labels, use]) => [{ ...labels, ...extra }, pick(use)] as const);
  const own = (pick: (c: ContainerUsage) => number) => rows.map(([labels, c]) => [labels, pick(c)] as const);
  const spec = (pick: (s: NonNullable<ReturnType<PodDescription["specs"]["get"]>>) => number) =>
    rows.flatMap(([labels, c, about]) => {
      const found = about?.specs.get(c.name);
      return found ? [[labels, pick(found)] as const] : [];
    });
  out.family("cadvisor_version_info", "gauge", "Kernel and OS version", [
    [
      {
        cadvisorRevision: "",
        cadvisorVersion: "",
        dockerVersion: "",
        kernelVersion: machine.kernelVersion,
        osVersion: machine.osImage,
      },
      1,
    ],
  ]);
  out.family(
    "container_cpu_usage_seconds_total",
    "counter",
    "Cumulative cpu time consumed in seconds.",
    each((u) => seconds(u.cpuNanoseconds), { cpu: "total" }),
  );
  out.family(
    "container_cpu_cfs_periods_total",
    "counter",
    "Number of elapsed enforcement period intervals.",
    own((c) => c.cfsPeriods),
  );
  out.family(
    "container_cpu_cfs_throttled_periods_total",
    "counter",
    "Number of throttled period intervals.",
    own((c) => c.cfsThrottledPeriods),
  );
  out.family(
    "container_cpu_cfs_throttled_seconds_total",
    "counter",
    "Total time duration the container has been throttled.",
    own((c) => seconds(c.cfsThrottledNanoseconds)),
  );
  out.family(
    "container_memory_usage_bytes",
    "gauge",
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
    each((u) => u.usageBytes),
  );
  out.family(
    "container_memory_working_set_bytes",
    "gauge",
    "Current working set in bytes.",
    each((u) => u.workingSetBytes),
  );
  out.family(
    "container_memory_rss",
    "gauge",
    "Size of RSS in bytes.",
    each((u) => u.rssBytes),
  );
  out.family(
    "container_memory_cache",
    "gauge",
    "Number of bytes of page cache memory.",
    each((u) => Math.max(0, u.usageBytes - u.rssBytes)),
  );
  out.family("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.", [
    ...each((u) => u.pageFaults, { failure_type: "pgfault", scope: "hierarchy" }),
    ...each((u) => u.majorPageFaults, { failure_type: "pgmajfault", scope: "hierarchy" }),
  ]);
  out.family(
    "container_processes",
    "gauge",
    "Number of processes running inside the container.",
    each((u) => u.processes),
  );
  out.family(
    "container_fs_usage_bytes",
    "gauge",
    "Number of bytes that are consumed by the container on this filesystem.",
    own((c) => c.rootfsBytes),
  );
  out.family(
    "container_fs_inodes_total",
    "gauge",
    "Number of Inodes",
    own((c) => c.rootfsInodes),
  );
  out.family(
    "container_start_time_seconds",
    "gauge",
    "Start time of the container since unix epoch in seconds.",
    own((c) => c.startedAtMs / 1000),
  );
  out.family(
    "container_last_seen",
    "gauge",
    "Last time a container was seen by the exporter",
    own(() => Math.floor(nowMs / 1000)),
  );
  out.family(
    "container_spec_cpu_shares",
    "gauge",
    "CPU share of the container.",
    spec((s) => s.cpuShares),
  );
  out.family(
    "container_spec_cpu_period",
    "gauge",
    "CPU period of the container.",
    spec((s) => s.cpuPeriodUs),
  );
  out.family(
    "container_spec_cpu_quota",
    "gauge",
    "CPU quota of the container.",
    spec((s) => s.cpuQuotaUs).filter(([, value]) => value > 0),
  );
  out.family(
    "container_spec_memory_limit_bytes",
    "gauge",
    "Memory limit for the container.",
    spec((s) => s.memoryBytes),
  );
  const networks = podRows.flatMap(([labels, pod]) =>
    pod.network.map((n) => [{ ...labels, interface: n.name }, n] as const),
  );
  const nodeNetwork = sample.node.network.map((n) => [{ ...all[0]![0], interface: n.name }, n] as const);
  const net = (pick: (n: NetworkUsage) => number) =>
    [...nodeNetwork, ...networks].map(([labels, n]) => [labels, pick(n)] as const);
  for (const [direction, word, key] of [
    ["receive", "received", "rx"],
    ["transmit", "transmitted", "tx"],
  ] as const) {
    out.family(
      `container_network_${direction}_bytes_total`,
      "counter",
      `Cumulative count of bytes ${word}`,
      net((n) => n[`${key}Bytes`]),
    );
    out.family(
      `container_network_${direction}_packets_total`,
      "counter",
      `Cumulative count of packets ${word}`,
      net((n) => n[`${key}Packets`]),
    );
    out.family(
      `container_network_${direction}_errors_total`,
      "counter",
      `Cumulative count of errors while ${direction === "receive" ? "receiving" : "transmitting"}`,
      net((n) => n[`${key}Errors`]),
    );
    out.family(
      `container_network_${direction}_packets_dropped_total`,
      "counter",
      `Cumulative count of packets dropped while ${direction === "receive" ? "receiving" : "transmitting"}`,
      net((n) => n[`${key}Dropped`]),
    );
  }
  out.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.", [[{}, machine.cpus]]);
  out.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", [
    [{}, machine.memoryBytes],
  ]);
  return out.toString();
}
