// What a pod asks for or is limited to as a whole, exact. Containers run together; init containers run one after the
// other before them, each beside the restartable ones (sidecars) that came before it and stay. Upstream counterpart:
// component-helpers resource.PodRequests and PodLimits with UseStatusResources.
import type { Container, Pod } from "./gen/core-v1.ts";
import { addQuantities, compareQuantities, type Quantity } from "./quantity.ts";
import { countedResources } from "./resized-resources.ts";

export type ResourceAmounts = Map<string, Quantity>;

export function podAmounts(pod: Pod, which: "requests" | "limits"): ResourceAmounts {
  const total: ResourceAmounts = new Map();
  for (const container of pod.spec.containers ?? []) addAmounts(total, amountsOf(pod, container, which));
  const sidecars: ResourceAmounts = new Map();
  const peak: ResourceAmounts = new Map();
  for (const container of pod.spec.initContainers ?? []) {
    const amounts = amountsOf(pod, container, which);
    if (container.restartPolicy === "Always") {
      addAmounts(total, amounts);
      addAmounts(sidecars, amounts);
      raise(peak, sidecars);
    } else {
      const during = new Map(sidecars);
      addAmounts(during, amounts);
      raise(peak, during);
    }
  }
  raise(total, peak);
  for (const [name, amount] of Object.entries(pod.spec.overhead ?? {})) {
    // Overhead makes no limit where there was none.
    if (which === "requests" || total.has(name)) add(total, name, amount);
  }
  return total;
}

const amountsOf = (pod: Pod, container: Container, which: "requests" | "limits"): [string, string | number][] =>
  Object.entries(countedResources(pod, container, which));

export function addAmounts(into: ResourceAmounts, what: Iterable<[string, Quantity | string | number]>): void {
  for (const [name, amount] of what) add(into, name, amount);
}

const add = (into: ResourceAmounts, name: string, amount: Quantity | string | number): void =>
  void into.set(name, addQuantities(into.get(name) ?? "0", amount));

function raise(into: ResourceAmounts, to: ResourceAmounts): void {
  for (const [name, amount] of to) if (compareQuantities(amount, into.get(name) ?? "0") > 0) into.set(name, amount);
}
