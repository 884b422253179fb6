// What pods ask for and nodes have, in safe integers: cpu in thousandths of a core, memory, storage and everything else
// in whole units. Upstream counterpart: component-helpers resource.PodRequests and framework.Resource.
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { parseQuantity } from "#model/quantity.ts";
import { countedResources } from "#model/resized-resources.ts";

/** Resource name → amount; cpu in milli-cores. */
export type Amounts = Map<string, number>;

/** What a container that asks for nothing counts as in scores, so that idle-looking nodes do not fill up unbounded. */
export const defaultMilliCpu = 100;
export const defaultMemoryBytes = 200 * 1024 * 1024;

export function amountsOf(list: Readonly<Record<string, string | number>> | undefined): Amounts {
  const out: Amounts = new Map();
  for (const [name, quantity] of Object.entries(list ?? {})) out.set(name, amountOf(name, String(quantity)));
  return out;
}

/** Rounded up, as the API counts; clamped to what a double holds exactly (8 PiB). */
export function amountOf(name: string, quantity: string): number {
  const value = parseQuantity(quantity);
  const amount = name === "cpu" ? value.milliValue() : value.value();
  return amount > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : Number(amount);
}

export interface PodRequests {
  /** What admission to a node is decided by. */
  readonly requests: Amounts;
  /** cpu and memory with the defaults for containers that ask for nothing; for scores only. */
  readonly scoring: { readonly milliCpu: number; readonly memoryBytes: number };
}

export function podRequests(pod: Pod): PodRequests {
  const requests = effective(pod, containerRequests);
  const scored = effective(pod, scoringRequests);
  return {
    requests,
    scoring: { milliCpu: scored.get("cpu") ?? 0, memoryBytes: scored.get("memory") ?? 0 },
  };
}

/**
 * Containers run together, init containers one after the other before them; restartable init containers (sidecars) stay
 * and add to all that come later.
 */
function effective(pod: Pod, of: (pod: Pod, container: Container) => Amounts): Amounts {
  const total: Amounts = new Map();
  for (const container of pod.spec.containers ?? []) add(total, of(pod, container));
  const sidecars: Amounts = new Map();
  const peak: Amounts = new Map();
  for (const container of pod.spec.initContainers ?? []) {
    const amounts = of(pod, container);
    if (container.restartPolicy === "Always") {
      add(total, amounts);
      add(sidecars, amounts);
    } else {
      const during: Amounts = new Map(sidecars);
      add(during, amounts);
      raise(peak, during);
    }
  }
  raise(total, peak);
  add(total, amountsOf(pod.spec.overhead));
  return total;
}

const containerRequests = (pod: Pod, container: Container): Amounts =>
  amountsOf(countedResources(pod, container, "requests"));

function scoringRequests(pod: Pod, container: Container): Amounts {
  const amounts = containerRequests(pod, container);
  return new Map([
    ["cpu", amounts.get("cpu") ?? defaultMilliCpu],
    ["memory", amounts.get("memory") ?? defaultMemoryBytes],
  ]);
}

export function add(into: Amounts, what: ReadonlyMap<string, number>): void {
  for (const [name, amount] of what) into.set(name, (into.get(name) ?? 0) + amount);
}

export function subtract(from: Amounts, what: ReadonlyMap<string, number>): void {
  for (const [name, amount] of what) {
    const left = (from.get(name) ?? 0) - amount;
    if (left === 0) from.delete(name);
    else from.set(name, left);
  }
}

function raise(into: Amounts, to: ReadonlyMap<string, number>): void {
  for (const [name, amount] of to) if (amount > (into.get(name) ?? 0)) into.set(name, amount);
}
