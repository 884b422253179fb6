// On which NUMA nodes a container's processors, memory and devices are to lie. Pure: every provider says whether a set of nodes
// would do, now and on an empty machine; the narrowest set that does for all is taken, and the policy says when none is good
// enough. Counterpart: pkg/kubelet/cm/topologymanager.
import type { NodeConfiguration } from "../configuration.ts";

export interface AffinityProvider {
  /** Whether what is free on these nodes is enough. */
  fits(nodes: ReadonlySet<number>): boolean;
  /** Whether they would be enough with nothing else on the machine. */
  couldFit(nodes: ReadonlySet<number>): boolean;
}

/** `nodes` undefined: anywhere. */
export type AffinityVerdict = { readonly isAllowed: boolean; readonly nodes: ReadonlySet<number> | undefined };

/** More nodes than this make too many sets to try; upstream refuses them as well. */
export const maxNumaNodes = 8;

export function decideAffinity(
  policy: NodeConfiguration["topologyManagerPolicy"],
  providers: readonly AffinityProvider[],
  nodes: readonly number[],
): AffinityVerdict {
  if (policy === "none" || providers.length === 0) return { isAllowed: true, nodes: undefined };
  const sets = subsets(nodes.slice(0, maxNumaNodes));
  const narrowest = (does: (provider: AffinityProvider, set: ReadonlySet<number>) => boolean) =>
    sets.find((set) => providers.every((provider) => does(provider, set)));
  const now = narrowest((provider, set) => provider.fits(set));
  const best = narrowest((provider, set) => provider.couldFit(set));
  const isPreferred = now !== undefined && best !== undefined && now.size <= best.size;
  if (policy === "single-numa-node" && now?.size !== 1) return { isAllowed: false, nodes: undefined };
  if (policy === "restricted" && !isPreferred) return { isAllowed: false, nodes: undefined };
  return { isAllowed: true, nodes: now };
}

/** All but the empty one, narrow ones first. */
function subsets(nodes: readonly number[]): ReadonlySet<number>[] {
  const out: Set<number>[] = [];
  for (let mask = 1; mask < 2 ** nodes.length; mask++) out.push(new Set(nodes.filter((_, i) => mask & (1 << i))));
  return out.sort((a, b) => a.size - b.size);
}
