// Removes pods that nothing else will: those bound to nodes that no longer exist, those that were deleted before they
// were scheduled, and the oldest of too many finished ones. Upstream counterpart: pkg/controller/podgc.
import type { Service } from "#base/service.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf } from "#model/object.ts";
import { nodes, pods } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import { type ControllerDeps, waitFor } from "../runtime/controller.ts";
import { createPeriodicController } from "../runtime/periodic-controller.ts";
import { isPodFinished } from "../runtime/pods.ts";
import { deleteIfThere } from "../runtime/writes.ts";
import { markPod } from "./lifecycle.ts";
import { byEvictionAndAge, isOutOfService } from "./plan.ts";

const periodMs = 20_000;
/** A node that is gone may come back under its name while it reboots: upstream's quarantine. */
const quarantineMs = 40_000;

/** `kept`: finished pods beyond so many go, the oldest first; 0: none goes for that. */
export function createPodGcController(deps: ControllerDeps, { kept }: { readonly kept: number }): Service {
  const { client, clock } = deps;
  const nodeStore = deps.informers.informer(nodes);
  const podStore = deps.informers.informer(pods);
  const missingSince = new Map<string, number>();
  const deletions = deps.metrics.counter(
    "pod_gc_collector_force_delete_pods_total",
    "Pods deleted because nobody else would.",
  );
  const failures = deps.metrics.counter(
    "pod_gc_collector_force_delete_pod_errors_total",
    "Pods that should have been deleted because nobody else would, and could not be.",
  );

  /** A pod that has not finished fails first: whoever counts it, as a job does, must see how it ended. */
  async function remove(
    pod: Pod,
    reason: "orphaned" | "out-of-service" | "terminated" | "unscheduled",
    disruption?: { readonly reason: string; readonly message: string },
  ): Promise<void> {
    const labels = { namespace: namespaceOf(pod), reason };
    try {
      await markPod(deps, pod, { isFailed: true, ...(disruption ? { disruption } : {}) });
      if (await deleteIfThere(client, pods, pod, { gracePeriodSeconds: 0 })) deletions.add(1, labels);
    } catch (error) {
      failures.add(1, labels);
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }

  /** Names of nodes that pods are bound to and that have been missing for long enough. */
  async function lostNodes(all: readonly Pod[]): Promise<ReadonlySet<string>> {
    const lost = new Set<string>();
    const named = new Set(all.flatMap((pod) => (pod.spec.nodeName ? [pod.spec.nodeName] : [])));
    for (const name of [...missingSince.keys()]) if (!named.has(name) || nodeStore.get(name)) missingSince.delete(name);
    for (const name of named) {
      if (nodeStore.get(name)) continue;
      const since = missingSince.get(name) ?? clock.monotonicMs();
      missingSince.set(name, since);
      if (clock.monotonicMs() - since < quarantineMs) continue;
      try {
        await client.get(nodes, name);
      } catch (error) {
        if (!isNotFound(error)) throw error;
        lost.add(name);
      }
    }
    return lost;
  }

  async function round(): Promise<void> {
    const all = podStore.list();
    const finished = all.filter((pod) => isPodFinished(pod) && !isDeleting(pod));
    if (kept > 0 && finished.length > kept) {
      finished.sort(byEvictionAndAge);
      for (const pod of finished.slice(0, finished.length - kept)) await remove(pod, "terminated");
    }
    const lost = await lostNodes(all);
    const outOfService = new Set(nodeStore.list().filter(isOutOfService).map(nameOf));
    for (const pod of all) {
      const node = pod.spec.nodeName;
      if (node && lost.has(node)) {
        await remove(pod, "orphaned", { reason: "DeletionByPodGC", message: "PodGC: node no longer exists" });
      } else if (isDeleting(pod) && !node) await remove(pod, "unscheduled");
      else if (isDeleting(pod) && outOfService.has(node ?? "")) await remove(pod, "out-of-service");
    }
  }

  return createPeriodicController(
    {
      name: "pod-garbage-collector-controller",
      periodMs,
      triggers: [waitFor(nodeStore), waitFor(podStore)],
      round,
    },
    deps,
  );
}
