// What pods ask for and nodes have, as numbers the scheduler can add up quickly: cpu in thousandths of a core, memory,
// storage and everything else in whole units. What a pod asks for as a whole is summed in one place for all parts of mote
// (model/pod-resources.ts); here it only becomes doubles. Upstream counterpart: framework.Resource, util/pod_resources.go.
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { podAmounts, type ResourcesOf } from "#model/pod-resources.ts";
import { parseQuantity, type Quantity } from "#model/quantity.ts";
import { countedResources } from "#model/resized-resources.ts";

/** Resource name → amount; cpu in milli-cores. */
export type Amounts = ReadonlyMap<string, number>;

/** What a container that asks for nothing counts as in scores, so that idle-looking nodes do not fill up unbounded. */
const scoringDefaults = { cpu: "100m", memory: "200Mi" };

export function amountsOf(list: Readonly<Record<string, string | number>> | undefined): Map<string, number> {
  const out = new Map<string, number>();
  for (const [name, quantity] of Object.entries(list ?? {})) out.set(name, numberOf(name, parseQuantity(quantity)));
  return out;
}

/** Rounded up, as the API counts; clamped to what a double holds exactly (8 PiB). */
function numberOf(name: string, quantity: Quantity): number {
  const amount = name === "cpu" ? quantity.milliValue() : quantity.value();
  return amount > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : Number(amount);
}

export interface PodRequests {
  /** What admission to a node is decided by; nothing that is zero. */
  readonly requests: Amounts;
  /** cpu and memory with the defaults for containers that ask for nothing; for scores only. */
  readonly scoring: { readonly milliCpu: number; readonly memoryBytes: number };
}

/** Rejects with QUANTITY_SYNTAX where an amount cannot be read. */
export function podRequests(pod: Pod): PodRequests {
  const requests = sum(pod, countedResources);
  const scored = asksForAll(pod) ? requests : sum(pod, withDefaults);
  return { requests, scoring: { milliCpu: scored.get("cpu") ?? 0, memoryBytes: scored.get("memory") ?? 0 } };
}

function sum(pod: Pod, resourcesOf: ResourcesOf): Map<string, number> {
  const out = new Map<string, number>();
  for (const [name, quantity] of podAmounts(pod, "requests", resourcesOf)) {
    const amount = numberOf(name, quantity);
    if (amount !== 0) out.set(name, amount);
  }
  return out;
}

const withDefaults: ResourcesOf = (pod, container) => ({
  ...scoringDefaults,
  ...countedResources(pod, container, "requests"),
});

const asksForBoth = ({ resources }: Container): boolean =>
  resources?.requests?.["cpu"] !== undefined && resources.requests["memory"] !== undefined;

/** Most pods do: their sum need not be made twice. */
const asksForAll = ({ spec }: Pod): boolean =>
  (spec.containers ?? []).every(asksForBoth) && (spec.initContainers ?? []).every(asksForBoth);
