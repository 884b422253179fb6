// Disruption budgets: keeps in each budget's status how many of its pods may be evicted. The eviction subresource takes
// from that number and notes the pod; this loop gives it back when the pod is gone and replaced, or has stayed after all.
// Upstream counterpart: pkg/controller/disruption.
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { OwnerReference } from "#model/gen/meta-v1.ts";
import type { PodDisruptionBudget, PodDisruptionBudgetStatus } from "#model/gen/policy-v1.ts";
import { controllerOf, isDeleting, keyOf, nameOf, namespaceOf } from "#model/object.ts";
import { qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import {
  deployments,
  podDisruptionBudgets,
  pods,
  replicaSets,
  replicationControllers,
  statefulSets,
} from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";
import { isPodFinished } from "../runtime/pods.ts";
import { mappingsOf, readScale } from "../runtime/scale.ts";
import { matcherOf, selectorText } from "../runtime/selector.ts";
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
  async function scaleOf(pod: Pod): Promise<{ readonly uid: string; readonly replicas: number } | undefined> {
    let reference = controllerOf(pod);
    if (reference?.kind === "ReplicaSet") {
      const set = scalable.ReplicaSet.get(`${namespaceOf(pod)}/${reference.name}`);
      const above = set && set.metadata.uid === reference.uid ? controllerOf(set) : undefined;
      if (above?.kind === "Deployment") reference = above;
    }
    if (!reference) return undefined;
    const { kind, name: ownerName, uid } = reference;
    if (Object.hasOwn(scalable, kind)) {
      const owner = scalable[kind as keyof typeof scalable].get(`${namespaceOf(pod)}/${ownerName}`);
      if (owner?.metadata.uid === uid) return { uid, replicas: owner.spec?.replicas ?? 1 };
    }
    return scaleByApi(reference, namespaceOf(pod));
  }

  /** Of any other kind that can be scaled, a custom resource for example. */
  async function scaleByApi({ apiVersion, kind, name: ownerName, uid }: OwnerReference, namespace: string) {
    const mappings = await mappingsOf(client, apiVersion, kind);
    try {
      const { scale } = await readScale(client, mappings, namespace, ownerName);
      return scale.metadata.uid === uid ? { uid, replicas: scale.spec?.replicas ?? 0 } : undefined;
    } catch (error) {
      if (!isNotFound(error)) throw error;
      // Either there is no such object, which the answer names, or its kind has no scale.
      if (error.status.details?.name === ownerName) return undefined;
      const [mapping] = mappings;
      const resource = mapping && qualifiedResource(mapping);
      throw new Error(`${resource} does not implement the scale subresource`);
    }
  }

  async function totalScale(budget: PodDisruptionBudget, matching: readonly Pod[]): Promise<number> {
    const replicas = new Map<string, number>();
    const known = new Set<string>();
    let hasUnmanaged = false;
    for (const pod of matching) {
      const owner = controllerOf(pod)?.uid;
      if (owner === undefined) hasUnmanaged = true;
      if (owner === undefined || known.has(owner)) continue;
      const scale = await scaleOf(pod);
      if (!scale) throw new Error(`found no controllers for pod "${nameOf(pod)}"`);
      known.add(owner);
      replicas.set(scale.uid, scale.replicas);
    }
    if (hasUnmanaged) {
      const about = `Pods selected by this PodDisruptionBudget (selector: ${selectorText(budget.spec.selector)}) were found to be unmanaged.`;
      const result =
        "As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior.";
      const remedy = 'To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.';
      say(budget, "Warning", "UnmanagedPods", `${about} ${result} ${remedy}`);
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
          if (needsScale(budget)) scale = await totalScale(budget, matching);
        } catch (error) {
          const why = `Failed to calculate the number of expected pods: ${messageOf(error)}`;
          say(budget, "Warning", "CalculateExpectedPodCountFailed", why);
          await write(budget, planFailure(budget, messageOf(error), nowMs));
          throw error;
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
