// What a pod is one of: the selectors of its services and of the set that owns it. Pods of one group are spread by default.
// Upstream counterpart: plugins/helper/spread.go (DefaultSelector).
import type { InformerFactory } from "#client/informer.ts";
import type { LabelSelector, LabelSelectorRequirement } from "#model/gen/meta-v1.ts";
import { controllerOf } from "#model/object.ts";
import { replicaSets, replicationControllers, services, statefulSets } from "#model/resources.ts";
import type { PodInfo } from "./pod-info.ts";

export const groupResources = [services, replicationControllers, replicaSets, statefulSets] as const;

/** Undefined for a pod that is on its own. */
export function createPodGroups(informers: InformerFactory): (pod: PodInfo) => LabelSelector | undefined {
  const ofServices = informers.informer(services);
  const controllers = informers.informer(replicationControllers);
  const sets = { ReplicaSet: informers.informer(replicaSets), StatefulSet: informers.informer(statefulSets) };
  return ({ pod, namespace, labels }) => {
    const matchLabels: Record<string, string> = {};
    const matchExpressions: LabelSelectorRequirement[] = [];
    for (const { spec } of ofServices.list(namespace)) {
      const selector = Object.entries(spec.selector ?? {});
      if (selector.length === 0 || selector.some(([key, value]) => labels[key] !== value)) continue;
      Object.assign(matchLabels, spec.selector);
    }
    const owner = controllerOf(pod);
    const key = `${namespace}/${owner?.name ?? ""}`;
    if (owner?.kind === "ReplicationController" && owner.apiVersion === "v1") {
      Object.assign(matchLabels, controllers.get(key)?.spec?.selector);
    } else if (owner?.apiVersion === "apps/v1" && (owner.kind === "ReplicaSet" || owner.kind === "StatefulSet")) {
      const selector = sets[owner.kind].get(key)?.spec?.selector;
      // All of them have to hold: labels that both name with other values select nobody.
      for (const [label, value] of Object.entries(selector?.matchLabels ?? {})) {
        matchExpressions.push({ key: label, operator: "In", values: [value] });
      }
      matchExpressions.push(...(selector?.matchExpressions ?? []));
    }
    const isEmpty = Object.keys(matchLabels).length + matchExpressions.length === 0;
    return isEmpty ? undefined : { matchLabels, matchExpressions };
  };
}
