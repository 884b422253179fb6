// What a pod asks for or is limited to as a whole, exact. Containers run together; init containers run one after the
// other before them, each beside the restartable ones (sidecars) that came before it and stay. Upstream counterpart:
// component-helpers resource.PodRequests and PodLimits with UseStatusResources. Whoever counts what a pod has been given
// already, and not what it may be on its way to, says what a container counts for.
import type { Container, Pod } from "./gen/core-v1.ts";
import { addQuantities, compareQuantities, type Quantity } from "./quantity.ts";
import { countedResources } from "./resized-resources.ts";

export type ResourceAmounts = Map<string, Quantity>;

type Which = "requests" | "limits";
export type ResourcesOf = (pod: Pod, container: Container, which: Which) => Readonly<Record<string, string>>;

export function podAmounts(pod: Pod, which: Which, resourcesOf: ResourcesOf = countedResources): ResourceAmounts {
  const amountsOf = (container: Container) => Object.entries(resourcesOf(pod, container, which));
  const total: ResourceAmounts = new Map();
  for (const container of pod.spec.containers ?? []) addAmounts(total, amountsOf(container));
  const sidecars: ResourceAmounts = new Map();
  const peak: ResourceAmounts = new Map();
  for (const container of pod.spec.initContainers ?? []) {
    const amounts = amountsOf(container);
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

export function addAmounts(into: ResourceAmounts, what: Iterable<[string, Quantity | string | number]>): void {
  for (const [name, amount] of what) add(into, name, amount);
}

const add = (into: ResourceAmounts, name: string, amount: Quantity | string | number): void =>
  void into.set(name, addQuantities(into.get(name) ?? "0", amount));

function raise(into: ResourceAmounts, to: ResourceAmounts): void {
  for (const [name, amount] of to) if (compareQuantities(amount, into.get(name) ?? "0") > 0) into.set(name, amount);
}
