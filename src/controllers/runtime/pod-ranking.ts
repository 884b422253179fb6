// Which pods a controller gives up first when it has too many. Pure. Upstream counterpart:
// pkg/controller/controller_utils.go, ActivePodsWithRanks: each rule decides only where those above it are equal.
import type { Pod } from "#model/gen/core-v1.ts";
import { uidOf } from "#model/object.ts";
import { isPodReady, podCondition, restartsOf } from "./pods.ts";

const phaseOrder: Readonly<Record<string, number>> = { Pending: 0, Unknown: 1, Running: 2 };
const deletionCostAnnotation = "controller.kubernetes.io/pod-deletion-cost";

/**
 * The pods in the order in which to delete them. `neighbours(pod)` is how many related pods share its node: crowded
 * nodes are relieved first. Ages are compared on a logarithmic scale, so that of equally old pods any may go.
 */
export function rankForDeletion(pods: readonly Pod[], neighbours: (pod: Pod) => number, nowMs: number): Pod[] {
  const ageClass = (time: string | undefined): number => {
    if (time === undefined) return -1;
    const ageMs = nowMs - Date.parse(time);
    return ageMs <= 0 ? 0 : Math.floor(Math.log2(ageMs * 1e6));
  };
  const cost = (pod: Pod): number =>
    Number.parseInt(pod.metadata.annotations?.[deletionCostAnnotation] ?? "0", 10) || 0;
  const rules: readonly ((pod: Pod) => number | string)[] = [
    (pod) => (pod.spec.nodeName ? 1 : 0),
    (pod) => phaseOrder[pod.status?.phase ?? "Pending"] ?? 0,
    (pod) => (isPodReady(pod) ? 1 : 0),
    cost,
    (pod) => -neighbours(pod),
    (pod) => (isPodReady(pod) ? ageClass(podCondition(pod, "Ready")?.lastTransitionTime) : 0),
    (pod) => -restartsOf(pod),
    (pod) => ageClass(pod.metadata.creationTimestamp),
    uidOf,
  ];
  const ranked = pods.map((pod) => ({ pod, ranks: rules.map((rule) => rule(pod)) }));
  ranked.sort((a, b) => {
    for (let i = 0; i < rules.length; i++) {
      if (a.ranks[i]! < b.ranks[i]!) return -1;
      if (a.ranks[i]! > b.ranks[i]!) return 1;
    }
    return 0;
  });
  return ranked.map((r) => r.pod);
}
