// What the node lifecycle controller makes of a node that is silent, and of taints and tolerations. Pure.
// Upstream counterpart: pkg/controller/{nodelifecycle,tainteviction}.
import type { Node, NodeCondition, Pod, Taint } from "#model/gen/core-v1.ts";
import { tolerates } from "#model/taints.ts";
import { defaultSettings, type NodeSettings } from "../arguments.ts";

export const notReadyTaint = "node.kubernetes.io/not-ready";
export const unreachableTaint = "node.kubernetes.io/unreachable";

export const nodeCondition = (node: Node, type: string): NodeCondition | undefined =>
  node.status?.conditions?.find((c) => c.type === type);

/** Condition type, its bad status, and the NoSchedule taint that stands for it. */
const conditionTaints: readonly (readonly [type: string, status: string, taint: string])[] = [
  ["Ready", "False", notReadyTaint],
  ["Ready", "Unknown", unreachableTaint],
  ["MemoryPressure", "True", "node.kubernetes.io/memory-pressure"],
  ["DiskPressure", "True", "node.kubernetes.io/disk-pressure"],
  ["PIDPressure", "True", "node.kubernetes.io/pid-pressure"],
  ["NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"],
];
const unschedulableTaint = "node.kubernetes.io/unschedulable";
const watchedConditions = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] as const;

/** Conditions of a node that has been silent for too long: what it said last is no longer known to hold. */
export function silentConditions(node: Node, now: string): readonly NodeCondition[] {
  const old = node.status?.conditions ?? [];
  const replaced = watchedConditions.map((type): NodeCondition => {
    const before = old.find((c) => c.type === type);
    if (!before) {
      const reason = "NodeStatusNeverUpdated";
      const lastHeartbeatTime = node.metadata.creationTimestamp ?? now;
      const message = "Kubelet never posted node status.";
      return { type, status: "Unknown", reason, message, lastHeartbeatTime, lastTransitionTime: now };
    }
    if (before.status === "Unknown") return before;
    const reason = "NodeStatusUnknown";
    const message = "Kubelet stopped posting node status.";
    return { ...before, status: "Unknown", reason, message, lastTransitionTime: now };
  });
  if (replaced.every((c) => old.includes(c))) return old;
  return [...old.filter((c) => !replaced.some((r) => r.type === c.type)), ...replaced];
}

/**
 * The node's taints as its conditions ask for; the same list when nothing changes. `isEvicting`: whether a node that is
 * not ready may lose its pods, which is withheld while too much of the cluster is not ready.
 */
export function planTaints(node: Node, isEvicting: boolean, now: string): readonly Taint[] {
  const old = node.spec.taints ?? [];
  const wanted = new Set<string>();
  for (const [type, status, key] of conditionTaints) {
    if (nodeCondition(node, type)?.status === status) wanted.add(`${key}:NoSchedule`);
  }
  if (node.spec.unschedulable) wanted.add(`${unschedulableTaint}:NoSchedule`);
  const ready = nodeCondition(node, "Ready")?.status;
  if (isEvicting && ready === "False") wanted.add(`${notReadyTaint}:NoExecute`);
  if (isEvicting && ready === "Unknown") wanted.add(`${unreachableTaint}:NoExecute`);
  const managed = new Set([...conditionTaints.map(([, , key]) => key), unschedulableTaint]);
  const isOurs = (t: Taint) =>
    managed.has(t.key) && (t.effect === "NoSchedule" || t.key === notReadyTaint || t.key === unreachableTaint);
  const kept = old.filter((t) => !isOurs(t) || wanted.has(`${t.key}:${t.effect}`));
  const added = [...wanted].filter((id) => !kept.some((t) => `${t.key}:${t.effect}` === id));
  if (added.length === 0 && kept.length === old.length) return old;
  return [
    ...kept,
    ...added.map((id): Taint => {
      const at = id.lastIndexOf(":");
      return { key: id.slice(0, at), effect: id.slice(at + 1), timeAdded: now };
    }),
  ];
}

/** How a zone is doing decides how fast its silent nodes lose their pods. */
export type ZoneState = "normal" | "partial" | "full";
/** Fewer are no disruption, whatever their share is. */
const fewestUnhealthy = 3;

export function zoneState(
  notReadyCount: number,
  count: number,
  { unhealthyShare }: Pick<NodeSettings, "unhealthyShare"> = defaultSettings.nodes,
): ZoneState {
  if (count > 0 && notReadyCount === count) return "full";
  return notReadyCount >= fewestUnhealthy && notReadyCount / count >= unhealthyShare ? "partial" : "normal";
}

export interface Zone {
  readonly state: ZoneState;
  readonly size: number;
  readonly notReadyCount: number;
  /** Between two nodes that are emptied; undefined: none is. */
  readonly pauseMs: number | undefined;
}

/**
 * Zones by name. A zone that is down as a whole is emptied like any other, but where all of them are, the fault is more
 * likely here: then nothing is evicted, and what was to be is taken back (`isAllDown`).
 */
export function planZones(
  nodes: readonly Node[],
  settings: NodeSettings = defaultSettings.nodes,
): {
  readonly zones: ReadonlyMap<string, Zone>;
  readonly isAllDown: boolean;
} {
  const counts = new Map<string, { size: number; notReadyCount: number }>();
  for (const node of nodes) {
    const count = counts.get(zoneOf(node)) ?? { size: 0, notReadyCount: 0 };
    counts.set(zoneOf(node), count);
    count.size++;
    if (nodeCondition(node, "Ready")?.status !== "True") count.notReadyCount++;
  }
  const states = [...counts].map(([name, count]) => ({
    name,
    ...count,
    state: zoneState(count.notReadyCount, count.size, settings),
  }));
  const isAllDown = states.length > 0 && states.every(({ state }) => state === "full");
  const pauseOf = (state: ZoneState, size: number): number | undefined => {
    if (isAllDown) return undefined;
    if (state !== "partial") return pauseFor(settings.evictionRate);
    // A small zone that is in part down is left as it is.
    return size > settings.largeZone ? pauseFor(settings.secondaryEvictionRate) : undefined;
  };
  return {
    isAllDown,
    zones: new Map(states.map(({ name, ...zone }) => [name, { ...zone, pauseMs: pauseOf(zone.state, zone.size) }])),
  };
}

/** From nodes in a second; at a rate of zero none is emptied. */
const pauseFor = (rate: number): number | undefined => (rate > 0 ? 1000 / rate : undefined);

/** Also in metrics; nothing where the node has neither. Upstream puts a zero byte between the two, which few can read. */
export const zoneOf = ({ metadata: { labels = {} } }: Node): string =>
  [labels["topology.kubernetes.io/region"], labels["topology.kubernetes.io/zone"]].filter(Boolean).join(":");

/** The annotation by which nodes know how long what they have read may be used. */
export const ttlAnnotation = "node.alpha.kubernetes.io/ttl";
/** More nodes ask more often: from so many nodes on they keep what they know longer; back at fewer. */
const ttlSteps = [
  { from: 0, to: 100, seconds: 0 },
  { from: 90, to: 500, seconds: 15 },
  { from: 450, to: 1000, seconds: 30 },
  { from: 900, to: 2000, seconds: 60 },
  { from: 1800, to: Number.POSITIVE_INFINITY, seconds: 300 },
] as const;

/** The next step after `step` for this number of nodes; steps overlap so that one node more or less changes nothing. */
export function ttlStep(step: number, count: number): number {
  let next = step;
  while (count > ttlSteps[next]!.to) next++;
  while (count < ttlSteps[next]!.from) next--;
  return next;
}
export const ttlSecondsOf = (step: number): number => ttlSteps[step]!.seconds;

/** Milliseconds that `pod` may stay on a node with these taints: 0 none, Infinity for ever. */
export function stayMs(pod: Pod, taints: readonly Taint[]): number {
  let shortest = Number.POSITIVE_INFINITY;
  for (const taint of taints) {
    if (taint.effect !== "NoExecute") continue;
    const tolerations = (pod.spec.tolerations ?? []).filter((t) => tolerates(t, taint));
    if (tolerations.length === 0) return 0;
    for (const t of tolerations) {
      if (t.tolerationSeconds !== undefined) shortest = Math.min(shortest, Math.max(0, t.tolerationSeconds) * 1000);
    }
  }
  return shortest;
}

const outOfServiceTaint = "node.kubernetes.io/out-of-service";
/** Somebody has said that the node will not end its pods any more, and it is indeed silent. */
export const isOutOfService = (node: Node): boolean =>
  (node.spec.taints ?? []).some((t) => t.key === outOfServiceTaint) && nodeCondition(node, "Ready")?.status !== "True";

/** The order in which finished pods are given up: evicted ones, then the oldest. */
export function byEvictionAndAge(a: Pod, b: Pod): number {
  const isEvicted = (pod: Pod) => pod.status?.reason === "Evicted";
  if (isEvicted(a) !== isEvicted(b)) return isEvicted(a) ? -1 : 1;
  return (a.metadata.creationTimestamp ?? "") < (b.metadata.creationTimestamp ?? "") ? -1 : 1;
}
