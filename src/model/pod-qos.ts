// The quality of service class of a pod, from what its containers ask for. Pure.
// Upstream counterpart: pkg/apis/core/helper/qos.
import type { Pod } from "./gen/core-v1.ts";
import { nanoOf } from "./validation/amount.ts";

export type PodQosClass = "Guaranteed" | "Burstable" | "BestEffort";

/** Guaranteed: every container limits cpu and memory and asks for just that; BestEffort: none asks for anything. */
export function qosClassOf(pod: Pod): PodQosClass {
  const containers = [...(pod.spec.containers ?? []), ...(pod.spec.initContainers ?? [])];
  let asksAnything = false;
  let isGuaranteed = true;
  for (const container of containers) {
    for (const resource of ["cpu", "memory"]) {
      const limit = nanoOf(container.resources?.limits?.[resource]) ?? 0n;
      // An absent request is the limit; zero asks for nothing.
      const request = nanoOf(container.resources?.requests?.[resource]) ?? limit;
      if (request > 0n || limit > 0n) asksAnything = true;
      if (limit <= 0n || request !== limit) isGuaranteed = false;
    }
  }
  if (!asksAnything) return "BestEffort";
  return isGuaranteed ? "Guaranteed" : "Burstable";
}
