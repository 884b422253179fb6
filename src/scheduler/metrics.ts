// What the scheduler counts, under upstream's names, labels and buckets (pkg/scheduler/metrics, v1.32). Declared once per
// process; the gauges read whichever run of the scheduler is the current one.
import { Metrics } from "#base/metrics.ts";
import type { Place } from "./queue.ts";

const exponential = (start: number, factor: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => Number((start * factor ** i).toPrecision(6)));

export type AttemptResult = "scheduled" | "unschedulable" | "error";

/** What gauges are read from. */
export interface SchedulerState {
  readonly pending: Readonly<Record<Place, number>>;
  readonly cached: { readonly nodes: number; readonly pods: number; readonly assumed: number };
  /** How many waiting pods each plugin turned down. */
  readonly rejectedBy: ReadonlyMap<string, number>;
}

export class SchedulerMetrics {
  readonly #attempts;
  readonly #attemptSeconds;
  readonly #algorithmSeconds;
  readonly #sliSeconds;
  readonly #podAttempts;
  readonly #pointSeconds;
  readonly #incoming;
  readonly #preemptions;
  readonly #victims;

  constructor(metrics: Metrics = new Metrics(), state: () => SchedulerState | undefined = () => undefined) {
    this.#attempts = metrics.counter("scheduler_schedule_attempts_total", "Decisions about pods, by how they ended.");
    this.#attemptSeconds = metrics.histogram(
      "scheduler_scheduling_attempt_duration_seconds",
      "From a pod's turn to its binding or its refusal.",
      exponential(0.001, 2, 15),
    );
    this.#algorithmSeconds = metrics.histogram(
      "scheduler_scheduling_algorithm_duration_seconds",
      "How long a decision takes, without the binding.",
      exponential(0.001, 2, 15),
    );
    this.#sliSeconds = metrics.histogram(
      "scheduler_pod_scheduling_sli_duration_seconds",
      "From when a pod was seen without a node to when it had one, by its tries.",
      exponential(0.01, 2, 20),
    );
    this.#podAttempts = metrics.histogram(
      "scheduler_pod_scheduling_attempts",
      "Tries that a pod took until it had a node.",
      exponential(1, 2, 5),
    );
    this.#pointSeconds = metrics.histogram(
      "scheduler_framework_extension_point_duration_seconds",
      "How long the plugins of one extension point take together.",
      exponential(0.0001, 2, 12),
    );
    this.#incoming = metrics.counter(
      "scheduler_queue_incoming_pods_total",
      "Pods that came into a queue, by what brought them.",
    );
    this.#preemptions = metrics.counter(
      "scheduler_preemption_attempts_total",
      "Times that room was to be made for a pod.",
    );
    this.#victims = metrics.histogram(
      "scheduler_preemption_victims",
      "Pods that had to go for one.",
      exponential(1, 2, 7),
    );
    const pending = metrics.gauge("scheduler_pending_pods", "Pods that wait, by where.");
    const cached = metrics.gauge("scheduler_cache_size", "What the cache holds, by kind.");
    const rejected = metrics.gauge(
      "scheduler_unschedulable_pods",
      "Pods without a node, by the plugin that is in the way.",
    );
    const plugins = new Set<string>();
    metrics.beforeRender(() => {
      const now = state();
      for (const queue of ["active", "backoff", "unschedulable", "gated"] as const) {
        pending.set(now?.pending[queue] ?? 0, { queue });
      }
      cached.set(now?.cached.nodes ?? 0, { type: "nodes" });
      cached.set(now?.cached.pods ?? 0, { type: "pods" });
      cached.set(now?.cached.assumed ?? 0, { type: "assumed_pods" });
      for (const plugin of now?.rejectedBy.keys() ?? []) plugins.add(plugin);
      for (const plugin of plugins) rejected.set(now?.rejectedBy.get(plugin) ?? 0, { plugin });
    });
  }

  /** A pod came to a queue. */
  arrived(queue: Place, event: string): void {
    this.#incoming.add(1, { event, queue });
  }
  point(extension_point: string, status: string, profile: string, seconds: number): void {
    this.#pointSeconds.observe(seconds, { extension_point, profile, status });
  }
  decided(seconds: number): void {
    this.#algorithmSeconds.observe(seconds);
  }
  attempted(result: AttemptResult, profile: string, seconds: number): void {
    this.#attempts.add(1, { profile, result });
    this.#attemptSeconds.observe(seconds, { profile, result });
  }
  bound(attempts: number, sinceAddedSeconds: number): void {
    this.#podAttempts.observe(attempts);
    this.#sliSeconds.observe(sinceAddedSeconds, { attempts: attempts >= 15 ? "15+" : String(attempts) });
  }
  preempted(victims: number): void {
    this.#preemptions.add(1);
    this.#victims.observe(victims);
  }
}
