// What a pod asks for or is limited to as a whole, in the plain numbers that the node counts in: cpu in thousandths, the rest
// in whole units. The one sum behind admission, ranking for eviction and cgroups, so that they never differ. Pure. A pod
// counts as what its spec says, which the node has replaced by what is allocated. Counterpart: resource.PodRequests and
// PodLimits without UseStatusResources.
import type { Pod } from "#model/gen/core-v1.ts";
import { podAmounts, type ResourcesOf } from "#model/pod-resources.ts";

/** A limit alone is a request too, as the API's defaults make it. */
const resourcesOf: ResourcesOf = (_, { resources }, which) =>
  which === "limits" ? (resources?.limits ?? {}) : { ...resources?.limits, ...resources?.requests };

export function podTotals(pod: Pod, which: "requests" | "limits"): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [name, amount] of podAmounts(pod, which, resourcesOf)) {
    out[name] = Number(name === "cpu" ? amount.milliValue() : amount.value());
  }
  return out;
}
