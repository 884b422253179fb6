// What a container counts for while its pod is being resized: the more of what is asked for and what it still has, so that
// nothing is given twice in between; where the node can never give what is asked for, only what it has. Pure.
// Upstream counterpart: determineContainerReqs and determineContainerLimits of component-helpers.
import type { Container, ContainerStatus, Pod } from "./gen/core-v1.ts";
import { compareQuantities } from "./quantity.ts";

type List = Readonly<Record<string, string>>;
const none: List = {};

/** Requests or limits of a container as schedulers and quotas count them. */
export function countedResources(pod: Pod, container: Container, which: "requests" | "limits"): List {
  const asked = container.resources?.[which] ?? none;
  // The API marks a pod with the very write that changes what it asks for; unmarked, both are the same.
  const resize = pod.status?.resize;
  if (!resize) return asked;
  const status = statusOf(pod, container.name);
  if (!status?.resources) return asked;
  const has = status.resources[which] ?? none;
  const all = which === "requests" ? larger(has, status.allocatedResources ?? none) : has;
  return resize === "Infeasible" ? all : larger(asked, all);
}

const statusOf = (pod: Pod, name: string): ContainerStatus | undefined =>
  pod.status?.containerStatuses?.find((status) => status.name === name) ??
  pod.status?.initContainerStatuses?.find((status) => status.name === name);

function larger(a: List, b: List): List {
  const out: Record<string, string> = { ...a };
  for (const [name, amount] of Object.entries(b)) {
    const other = out[name];
    if (other === undefined || compareQuantities(amount, other) > 0) out[name] = amount;
  }
  return out;
}
