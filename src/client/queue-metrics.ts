// What a work queue tells of itself under upstream's names, one series per queue. Numbers are added up where they fall and
// told when somebody asks. Upstream counterpart: client-go/util/workqueue/metrics.go, component-base/metrics/prometheus/workqueue.
import type { Metrics } from "#base/metrics.ts";

/** Powers of ten from 10 ns to 1000 s, as upstream. */
const secondsBuckets = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10, 100, 1000] as const;

export interface QueueMetrics {
  added(): void;
  retried(): void;
  started(waitedMs: number): void;
  finished(workedMs: number): void;
}

export const noQueueMetrics: QueueMetrics = { added() {}, retried() {}, started() {}, finished() {} };

export function createQueueMetrics(
  metrics: Metrics,
  name: string,
  now: () => { readonly depth: number; readonly inWorkMs: readonly number[] },
): QueueMetrics {
  const labels = { name };
  const depth = metrics.gauge("workqueue_depth", "Keys that wait.");
  const adds = metrics.counter("workqueue_adds_total", "Keys that were added.");
  const retries = metrics.counter("workqueue_retries_total", "Keys that were added again after a failure.");
  const waited = metrics.histogram(
    "workqueue_queue_duration_seconds",
    "How long keys wait before they are worked on.",
    secondsBuckets,
  );
  const worked = metrics.histogram("workqueue_work_duration_seconds", "How long keys are worked on.", secondsBuckets);
  const unfinished = metrics.gauge("workqueue_unfinished_work_seconds", "What is being worked on, added up.");
  const longest = metrics.gauge("workqueue_longest_running_processor_seconds", "What has been worked on for longest.");
  let addCount = 0;
  let retryCount = 0;
  metrics.beforeRender(() => {
    const { depth: waiting, inWorkMs } = now();
    depth.set(waiting, labels);
    adds.add(addCount, labels);
    retries.add(retryCount, labels);
    addCount = 0;
    retryCount = 0;
    unfinished.set(inWorkMs.reduce((sum, ms) => sum + ms, 0) / 1000, labels);
    longest.set(inWorkMs.reduce((most, ms) => Math.max(most, ms), 0) / 1000, labels);
  });
  return {
    added() {
      addCount++;
    },
    retried() {
      retryCount++;
    },
    started: (ms) => waited.observe(ms / 1000, labels),
    finished: (ms) => worked.observe(ms / 1000, labels),
  };
}
