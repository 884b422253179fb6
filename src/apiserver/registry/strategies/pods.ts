// Pods: born Pending with their QoS class, deleted with grace, bound once. Upstream: pkg/registry/core/pod and
// pkg/apis/core/helper/qos.
import { rfc3339 } from "#base/clock.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { conflict } from "#model/status.ts";
import { nanoOf } from "#model/validation/amount.ts";
import type { Strategy, StrategyContext } from "../../strategy.ts";
import { keepStatus } from "./plain.ts";

export function createPodStrategy(): Strategy {
  return {
    prepareForCreate(pod: Pod, context: StrategyContext) {
      pod.status = { phase: "Pending", qosClass: qosClassOf(pod) };
      if ((pod.spec.schedulingGates ?? []).length > 0) {
        pod.status.conditions = [
          {
            type: "PodScheduled",
            status: "False",
            reason: "SchedulingGated",
            message: "Scheduling is blocked due to non-empty scheduling gates",
            lastProbeTime: null as never,
            lastTransitionTime: rfc3339(context.clock.now()),
          },
        ];
      }
    },
    prepareForUpdate: keepStatus,
    gracePeriodSeconds(pod: Pod, asked) {
      const isEnded = pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
      // Nobody runs it, so there is nobody to wait for.
      if (!pod.spec.nodeName || isEnded) return 0;
      const seconds = asked ?? pod.spec.terminationGracePeriodSeconds ?? 30;
      return seconds < 0 ? 1 : seconds;
    },
    selectableFields: (pod: Pod) => ({
      "spec.nodeName": pod.spec.nodeName ?? "",
      "spec.restartPolicy": pod.spec.restartPolicy ?? "",
      "spec.schedulerName": pod.spec.schedulerName ?? "",
      "spec.serviceAccountName": pod.spec.serviceAccountName ?? "",
      "spec.hostNetwork": String(pod.spec.hostNetwork ?? false),
      "status.phase": pod.status?.phase ?? "",
      "status.podIP": pod.status?.podIP ?? "",
      "status.nominatedNodeName": pod.status?.nominatedNodeName ?? "",
    }),
  };
}

export interface PodBinding {
  readonly node: string;
  readonly uid?: string | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/** The pod with its node (pods/binding); rejects with 409 when it has one or is on its way out. `pod` is not changed. */
export function bindPod(pod: Pod, binding: PodBinding, nowMs: number): Pod {
  const name = pod.metadata.name ?? "";
  const refuse = (why: string): never => {
    throw conflict({ group: "", resource: "pods/binding" }, name, why);
  };
  if (binding.uid && binding.uid !== pod.metadata.uid) {
    refuse(`Precondition failed: UID in precondition: ${binding.uid}, UID in object meta: ${pod.metadata.uid ?? ""}`);
  }
  if (pod.metadata.deletionTimestamp) refuse(`pod ${name} is being deleted, cannot be assigned to a host`);
  if (pod.spec.nodeName) refuse(`pod ${name} is already assigned to node "${pod.spec.nodeName}"`);
  if ((pod.spec.schedulingGates ?? []).length > 0) refuse(`pod ${name} has non-empty .spec.schedulingGates`);
  const conditions = (pod.status?.conditions ?? []).filter((condition) => condition.type !== "PodScheduled");
  const scheduled = {
    type: "PodScheduled",
    status: "True",
    lastProbeTime: null as never,
    lastTransitionTime: rfc3339(nowMs),
  };
  return {
    ...pod,
    metadata: binding.annotations
      ? { ...pod.metadata, annotations: { ...pod.metadata.annotations, ...binding.annotations } }
      : pod.metadata,
    spec: { ...pod.spec, nodeName: binding.node },
    status: { ...pod.status, conditions: [...conditions, scheduled] },
  };
}

/** Guaranteed: every container limits cpu and memory and asks for just that; BestEffort: none asks for anything. */
export function qosClassOf(pod: Pod): "Guaranteed" | "Burstable" | "BestEffort" {
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
