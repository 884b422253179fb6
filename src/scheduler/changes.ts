// What a change of an object means to waiting pods, under the names that plugins are interested in. Pure.
// Upstream counterpart: framework/events.go (NodeSchedulingPropertiesChange, PodSchedulingPropertiesChange).
import type { Node, Pod } from "#model/gen/core-v1.ts";
import type { Change, ClusterEvent } from "./plugins/framework.ts";
import { isScaledDown } from "./queue.ts";
import { occupiesNode } from "./snapshot.ts";

export function nodeChanges(next: Node, old: Node | undefined): Change[] {
  if (!old) return [{ event: "NodeAdd", next }];
  const events: ClusterEvent[] = [];
  const offer = ({ status }: Node) => status?.allocatable ?? status?.capacity;
  if (!sameJson(offer(next), offer(old))) events.push("NodeUpdateNodeAllocatable");
  if (!sameJson(next.metadata.labels, old.metadata.labels)) events.push("NodeUpdateNodeLabel");
  if (!sameJson(next.spec?.taints, old.spec?.taints) || next.spec?.unschedulable !== old.spec?.unschedulable) {
    events.push("NodeUpdateNodeTaint");
  }
  return events.map((event) => ({ event, old, next }));
}

/** Of a pod that has a node. */
export function assignedPodChanges(next: Pod, old: Pod | undefined): Change[] {
  if (!old || !occupiesNode(old)) return [{ event: "AssignedPodAdd", next }];
  const events: ClusterEvent[] = [];
  if (!sameJson(next.metadata.labels, old.metadata.labels)) events.push("AssignedPodUpdatePodLabel");
  if (isScaledDown(next, old)) events.push("AssignedPodUpdatePodScaleDown");
  return events.map((event) => ({ event, old, next }));
}

/** For small parts of objects that came through the same decoder: key order is the same where nothing changed. */
export const sameJson = (a: unknown, b: unknown): boolean => a === b || JSON.stringify(a) === JSON.stringify(b);
