// What the scheduler writes about pods: the condition that says why one has no node, the promise of a node, and the end of
// those that make room. Gone or replaced pods are nobody's concern any more. Upstream counterpart: updatePod in
// schedule_one.go, prepareCandidate in framework/preemption.
import { type Clock, rfc3339 } from "#base/clock.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { pods } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import type { PodInfo } from "./pod-info.ts";
import { type Candidate, preemptionCondition } from "./preemption.ts";

export interface PodWriterDeps {
  readonly client: Client;
  readonly clock: Clock;
}

export class PodWriter {
  readonly #deps: PodWriterDeps;

  constructor(deps: PodWriterDeps) {
    this.#deps = deps;
  }

  /** `nominatedNode`: "" takes an earlier one back, undefined leaves it. */
  async setUnscheduled(
    pod: Pod,
    reason: "Unschedulable" | "SchedulerError",
    message: string,
    nominatedNode: string | undefined,
  ): Promise<void> {
    const old = pod.status?.conditions?.find((c) => c.type === "PodScheduled");
    const isNominated = nominatedNode === undefined || nominatedNode === (pod.status?.nominatedNodeName ?? "");
    if (isNominated && old?.status === "False" && old.reason === reason && old.message === message) return;
    const condition = {
      type: "PodScheduled",
      status: "False",
      reason,
      message,
      lastProbeTime: null,
      lastTransitionTime: old?.status === "False" ? old.lastTransitionTime : rfc3339(this.#deps.clock.now()),
    };
    await this.#patch(pod, {
      conditions: [condition],
      ...(isNominated ? {} : { nominatedNodeName: nominatedNode === "" ? null : nominatedNode }),
    });
  }

  async clearNomination(pod: Pod): Promise<void> {
    if (pod.status?.nominatedNodeName) await this.#patch(pod, { nominatedNodeName: null });
  }

  /** Ends the victims, each saying why; a failure leaves the rest to the next attempt. */
  async preempt(pod: Pod, { node, victims }: Candidate, events: EventSink): Promise<void> {
    const { client, clock } = this.#deps;
    const condition = {
      ...preemptionCondition,
      status: "True",
      message: `${pod.spec.schedulerName ?? "default-scheduler"}: preempting to accommodate a higher priority pod`,
      lastTransitionTime: rfc3339(clock.now()),
    };
    for (const { pod: victim } of victims as readonly PodInfo[]) {
      if (isDeleting(victim)) continue;
      const target = { name: nameOf(victim), namespace: namespaceOf(victim) };
      try {
        await this.#patch(victim, { conditions: [condition] });
        await client.delete(pods, target, { preconditions: { uid: uidOf(victim) } });
      } catch (error) {
        if (!isGone(error)) throw error;
        continue;
      }
      const message = `Preempted by pod ${uidOf(pod)} on node ${node}`;
      events.record({ resource: pods, object: victim, type: "Normal", reason: "Preempted", message });
    }
  }

  async #patch(pod: Pod, status: Readonly<Record<string, unknown>>): Promise<void> {
    try {
      await this.#deps.client.patch(
        pods,
        { name: nameOf(pod), namespace: namespaceOf(pod) },
        { metadata: { uid: uidOf(pod) }, status },
        { type: "application/strategic-merge-patch+json", subresource: "status" },
      );
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }
}

/** Deleted, or replaced by another of the name. */
const isGone = (error: unknown): boolean => isNotFound(error) || isConflict(error);
