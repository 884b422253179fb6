// What controllers ask of pods. Pure. Upstream counterpart: pkg/api/v1/pod and controller_utils.go.
import type { Pod, PodCondition } from "#model/gen/core-v1.ts";
import { isDeleting } from "#model/object.ts";

export function podCondition(pod: Pod, type: string): PodCondition | undefined {
  return pod.status?.conditions?.find((c) => c.type === type);
}
export const isPodReady = (pod: Pod): boolean => podCondition(pod, "Ready")?.status === "True";
/** Succeeded or Failed: it will never run again. */
export const isPodFinished = (pod: Pod): boolean => pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
export const isPodActive = (pod: Pod): boolean => !isPodFinished(pod) && !isDeleting(pod);

/** Ready for at least `minReadySeconds`. */
export function isPodAvailable(pod: Pod, minReadySeconds: number, nowMs: number): boolean {
  const ready = podCondition(pod, "Ready");
  if (ready?.status !== "True") return false;
  if (minReadySeconds === 0) return true;
  return (
    ready.lastTransitionTime !== undefined && nowMs - Date.parse(ready.lastTransitionTime) >= minReadySeconds * 1000
  );
}

/** Restarts of all containers of a pod. */
export function restartsOf(pod: Pod): number {
  let restarts = 0;
  for (const status of pod.status?.initContainerStatuses ?? []) restarts += status.restartCount;
  for (const status of pod.status?.containerStatuses ?? []) restarts += status.restartCount;
  return restarts;
}

/** Replaces or adds a pod condition of the same type; the same list when nothing that matters changed. */
export function withPodCondition(
  conditions: readonly PodCondition[],
  next: { readonly type: string; readonly status: string; readonly reason: string; readonly message: string },
  now: string,
): readonly PodCondition[] {
  const old = conditions.find((c) => c.type === next.type);
  if (old && old.status === next.status && old.reason === next.reason && old.message === next.message)
    return conditions;
  const lastTransitionTime = old?.status === next.status ? (old.lastTransitionTime ?? now) : now;
  return [...conditions.filter((c) => c !== old), { ...next, lastTransitionTime }];
}
