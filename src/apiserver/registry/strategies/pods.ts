// Pods: born Pending with their QoS class, deleted with grace, bound once, marked when they are to be resized.
// Upstream: pkg/registry/core/pod.

import { rfc3339 } from "#base/clock.ts";
import { resizePolicyOf } from "#model/defaults/pod.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import { qosClassOf } from "#model/pod-qos.ts";
import { conflict } from "#model/status.ts";
import { same } from "#model/validation/checks.ts";
import { validatePodResize } from "#model/validation/pod-resize.ts";
import type { Strategy, StrategyContext } from "../../strategy.ts";
import { keepStatus } from "./plain.ts";

export interface PodStrategyOptions {
  /** Whether pods have the subresource resize; without it resize policies are not kept. */
  readonly canResize: boolean;
}

export function createPodStrategy({ canResize }: PodStrategyOptions): Strategy {
  return {
    prepareForCreate(pod: Pod, context: StrategyContext) {
      pod.status = { phase: "Pending", qosClass: qosClassOf(pod) };
      // Behind the feature gate UserNamespacesSupport, which 1.32 has off by default.
      delete pod.spec.hostUsers;
      settleResizePolicies(pod, undefined, canResize);
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
    prepareForUpdate(pod: Pod, old: Pod) {
      keepStatus(pod, old);
      settleResizePolicies(pod, old, canResize);
    },
    subresources: {
      resize: {
        prepareForUpdate(pod: Pod, old: Pod) {
          settleResizePolicies(pod, old, canResize);
          const isNew = pod.spec.containers.some((c, i) => !same(c.resources, old.spec.containers[i]?.resources));
          // The node looks at it next, and says there what becomes of it.
          if (isNew) pod.status = { ...pod.status, resize: "Proposed" };
        },
        validateUpdate: (pod: Pod, old: Pod) => validatePodResize(pod, old),
      },
    },
    gracePeriodSeconds(pod: Pod, asked) {
      const isEnded = pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
      // Nobody runs it, so there is nobody to wait for.
      if (!pod.spec.nodeName || isEnded) return 0;
      return graceSecondsOf(pod, asked);
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

/** Filled in; or dropped, but those that the pod has from times when it could be resized. */
function settleResizePolicies(pod: Pod, old: Pod | undefined, canResize: boolean): void {
  for (const [i, container] of (pod.spec?.containers ?? []).entries()) {
    const policy = canResize ? resizePolicyOf(container) : undefined;
    if (policy) container.resizePolicy = policy;
    else if (old?.spec.containers[i]?.resizePolicy === undefined) delete container.resizePolicy;
  }
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
