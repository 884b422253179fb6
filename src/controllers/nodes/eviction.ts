// Evicts pods from nodes with NoExecute taints that they do not tolerate, or no longer do: a toleration with seconds
// counts from when the taint was added. Upstream counterpart: pkg/controller/tainteviction.
import type { Service } from "#base/service.ts";
import { isDeleting, keyOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { nodes, pods } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { deleteIfThere } from "../runtime/writes.ts";
import { markPod, podsByNodeIndex } from "./lifecycle.ts";
import { stayMs } from "./plan.ts";

/** Upstream's: 5 ms to four minutes. */
const latenessBuckets = [0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60, 120, 180, 240];

export function createTaintEvictionController(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const nodeStore = deps.informers.informer(nodes);
  const podStore = deps.informers.informer(pods);
  const events = deps.events.as("taint-eviction-controller");
  podStore.addIndex(podsByNodeIndex, (pod) => (pod.spec.nodeName ? [pod.spec.nodeName] : []));
  /** Pods whose eviction is due later, and when on the monotonic clock that was decided for. */
  const scheduled = new Map<string, number>();
  const deletions = deps.metrics.counter(
    "taint_eviction_controller_pod_deletions_total",
    "Pods deleted because of a taint that they do not tolerate.",
  );
  const lateness = deps.metrics.histogram(
    "taint_eviction_controller_pod_deletion_duration_seconds",
    "From when a pod had to go to when it was deleted.",
    latenessBuckets,
  );

  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const pod = podStore.get(key);
    const node = pod?.spec.nodeName ? nodeStore.get(pod.spec.nodeName) : undefined;
    if (!pod || isDeleting(pod) || !node) {
      scheduled.delete(key);
      return;
    }
    const say = (message: string) =>
      events.record({
        resource: pods as ResourceInfo,
        object: pod,
        type: "Normal",
        reason: "TaintManagerEviction",
        message,
      });
    const taints = (node.spec.taints ?? []).filter((t) => t.effect === "NoExecute");
    const mayStayMs = taints.length === 0 ? Number.POSITIVE_INFINITY : stayMs(pod, taints);
    if (mayStayMs === Number.POSITIVE_INFINITY) {
      if (scheduled.delete(key)) say(`Cancelling deletion of Pod ${key}`);
      return;
    }
    const nowMs = clock.monotonicMs();
    // The first sight of the taint starts the clock; what was decided then stands, as wall clocks may jump.
    const dueMs = Math.min(scheduled.get(key) ?? Number.POSITIVE_INFINITY, nowMs + mayStayMs);
    if (dueMs > nowMs) {
      scheduled.set(key, dueMs);
      again(dueMs - nowMs);
      return;
    }
    scheduled.delete(key);
    say(`Marking for deletion Pod ${key}`);
    const disruption = { reason: "DeletionByTaintManager", message: "Taint manager: deleting due to NoExecute taint" };
    try {
      await markPod(deps, pod, { disruption });
      if (await deleteIfThere(client, pods, pod)) {
        deletions.add(1);
        lateness.observe((clock.monotonicMs() - dueMs) / 1000);
      }
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  return createController(
    {
      name: "taint-eviction-controller",
      workers: 4,
      begin: () => scheduled.clear(),
      triggers: [
        on(podStore, (pod) => (pod.spec.nodeName ? [keyOf(pod)] : [])),
        on(nodeStore, (node) => podStore.byIndex(podsByNodeIndex, node.metadata.name ?? "").map(keyOf)),
      ],
      sync,
    },
    deps,
  );
}
