// How the probes of this node's containers went, for /metrics/probes. Kept by container and forgotten with it, so that what is
// remembered is bounded by what runs. Counterpart: pkg/kubelet/prober.
import type { Pod } from "#model/gen/core-v1.ts";

export type ProbeResult = "successful" | "failed" | "unknown";

/** Upper bounds of the durations, in seconds. */
const bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

interface Series {
  readonly labels: string;
  readonly podUid: string;
  readonly results: Map<ProbeResult, number>;
  readonly durations: number[];
  durationSum: number;
  durationCount: number;
}

export class ProbeCounts {
  readonly #series = new Map<string, Series>();

  record(pod: Pod, container: string, kind: string, result: ProbeResult, durationMs: number): void {
    const { namespace = "", name = "", uid = "" } = pod.metadata;
    const key = `${uid}/${container}/${kind}`;
    let series = this.#series.get(key);
    if (!series) {
      const labels = `container=${JSON.stringify(container)},namespace="${namespace}",pod="${name}"`;
      series = {
        labels: `${labels},pod_uid="${uid}",probe_type="${kind[0]?.toUpperCase()}${kind.slice(1)}"`,
        ...{ podUid: uid, results: new Map(), durations: bounds.map(() => 0), durationSum: 0, durationCount: 0 },
      };
      this.#series.set(key, series);
    }
    series.results.set(result, (series.results.get(result) ?? 0) + 1);
    if (result !== "successful") return;
    const seconds = durationMs / 1000;
    series.durationSum += seconds;
    series.durationCount++;
    for (const [i, bound] of bounds.entries()) if (seconds <= bound) series.durations[i]!++;
  }

  forget(podUid: string): void {
    for (const [key, series] of this.#series) if (series.podUid === podUid) this.#series.delete(key);
  }

  /** Prometheus text. */
  render(): string {
    if (this.#series.size === 0) return "";
    let out = "# HELP prober_probe_total Probes by container and result.\n# TYPE prober_probe_total counter\n";
    for (const { labels, results } of this.#series.values()) {
      for (const [result, count] of results) out += `prober_probe_total{${labels},result="${result}"} ${count}\n`;
    }
    const name = "prober_probe_duration_seconds";
    out += `# HELP ${name} How long successful probes took.\n# TYPE ${name} histogram\n`;
    for (const { labels, durations, durationSum, durationCount } of this.#series.values()) {
      for (const [i, bound] of bounds.entries()) out += `${name}_bucket{${labels},le="${bound}"} ${durations[i]}\n`;
      out += `${name}_bucket{${labels},le="+Inf"} ${durationCount}\n`;
      out += `${name}_sum{${labels}} ${durationSum}\n${name}_count{${labels}} ${durationCount}\n`;
    }
    return out;
  }
}
