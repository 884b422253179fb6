// Disruption budgets: keeps in each budget's status how many of its pods may be evicted. The eviction subresource takes
// from that number and notes the pod; this loop gives it back when the pod is gone and replaced, or has stayed after all.
// Upstream counterpart: pkg/controller/disruption.
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget, PodDisruptionBudgetStatus } from "#model/gen/policy-v1.ts";
import { controllerOf, isDeleting, keyOf, nameOf, namespaceOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import {
  deployments,
  podDisruptionBudgets,
  pods,
  replicaSets,
  replicationControllers,
  statefulSets,
} from "#model/resources.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";
import { isPodFinished } from "../runtime/pods.ts";
import { matcherOf } from "../runtime/selector.ts";
import { disruptedOf, needsScale, planFailure, planStatus, wantedOf } from "./plan.ts";

const name = "disruption-controller";

export function createDisruptionController(deps: ControllerDeps): Service {
  const { client, clock, informers } = deps;
  const budgetStore = informers.informer(podDisruptionBudgets);
  const podStore = informers.informer(pods);
  const scalable = {
    Deployment: informers.informer(deployments),
    ReplicaSet: informers.informer(replicaSets),
    ReplicationController: informers.informer(replicationControllers),
    StatefulSet: informers.informer(statefulSets),
  };
  const events = deps.events.as(name);

  const say = (budget: PodDisruptionBudget, type: "Normal" | "Warning", reason: string, message: string) =>
    events.record({ resource: podDisruptionBudgets as ResourceInfo, object: budget, type, reason, message });

  const budgetsOf = function* (pod: Pod) {
    for (const budget of budgetStore.list(namespaceOf(pod))) {
      if (matcherOf(budget.spec.selector)(pod.metadata.labels ?? {})) yield keyOf(budget);
    }
  };
  /** A budget that is a share follows the size of what it protects. */
  const shares = function* (object: Parameters<typeof namespaceOf>[0]) {
    for (const budget of budgetStore.list(namespaceOf(object))) if (needsScale(budget)) yield keyOf(budget);
  };

  /** Who decides how many there are, and how many that is. A deployment decides for its replica sets. */
  function scaleOf(pod: Pod): { readonly uid: string; readonly replicas: number } | undefined {
    let reference = controllerOf(pod);
    if (reference?.kind === "ReplicaSet") {
      const set = scalable.ReplicaSet.get(`${namespaceOf(pod)}/${reference.name}`);
      const above = set && set.metadata.uid === reference.uid ? controllerOf(set) : undefined;
      if (above?.kind === "Deployment") reference = above;
    }
    if (!reference || !Object.hasOwn(scalable, reference.kind)) return undefined;
    const owner = scalable[reference.kind as keyof typeof scalable].get(`${namespaceOf(pod)}/${reference.name}`);
    if (!owner || owner.metadata.uid !== reference.uid) return undefined;
    return { uid: reference.uid, replicas: owner.spec?.replicas ?? 1 };
  }

  function totalScale(budget: PodDisruptionBudget, matching: readonly Pod[]): number {
    const replicas = new Map<string, number>();
    const unmanaged: string[] = [];
    for (const pod of matching) {
      if (!controllerOf(pod)) {
        unmanaged.push(nameOf(pod));
        continue;
      }
      const scale = scaleOf(pod);
      if (!scale) throw new Error(`found no controllers for pod "${nameOf(pod)}"`);
      replicas.set(scale.uid, scale.replicas);
    }
    if (unmanaged.length > 0) {
      const pointer = "To account for these pods please set .spec.minAvailable to an integer value";
      say(budget, "Warning", "UnmanagedPods", `Pods without a controller are not counted: ${unmanaged}. ${pointer}`);
    }
    return [...replicas.values()].reduce((a, b) => a + b, 0);
  }

  async function write(budget: PodDisruptionBudget, status: PodDisruptionBudgetStatus): Promise<void> {
    if (!isEqual(status, budget.status ?? {})) await client.updateStatus(podDisruptionBudgets, { ...budget, status });
  }

  return createController(
    {
      name,
      workers: 1,
      triggers: [
        on(budgetStore),
        on(podStore, budgetsOf),
        on(scalable.Deployment, shares),
        on(scalable.ReplicaSet, shares),
        on(scalable.ReplicationController, shares),
        on(scalable.StatefulSet, shares),
      ],
      async sync(key, again) {
        const budget = budgetStore.get(key);
        if (!budget || isDeleting(budget)) return;
        const nowMs = clock.now();
        const matches = matcherOf(budget.spec.selector);
        const matching = podStore.list(namespaceOf(budget)).filter((pod) => matches(pod.metadata.labels ?? {}));
        if (matching.length === 0) say(budget, "Normal", "NoPods", "No matching pods found");
        let scale = 0;
        try {
          if (needsScale(budget)) scale = totalScale(budget, matching);
        } catch (error) {
          say(budget, "Warning", "CalculateExpectedPodCountFailed", messageOf(error));
          await write(budget, planFailure(budget, messageOf(error), nowMs));
          // The store of the owners may be behind: whoever appears there marks this key again.
          return;
        }
        const disrupted = disruptedOf(budget, matching, nowMs);
        for (const pod of disrupted.stayed) {
          const message = `Pod was expected by PDB ${key} to be deleted but it wasn't`;
          events.record({
            resource: pods as ResourceInfo,
            object: pod,
            type: "Warning",
            reason: "NotDeleted",
            message,
          });
        }
        const wanted = wantedOf(budget, matching.filter((pod) => !isPodFinished(pod)).length, scale);
        await write(budget, planStatus(budget, matching, wanted, disrupted, nowMs));
        if (disrupted.againMs !== undefined) again(disrupted.againMs);
      },
    },
    deps,
  );
}
