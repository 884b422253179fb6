// Creating and deleting the pods of an owner, with the events upstream's RealPodControl writes.
import { messageOf } from "#base/errors.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Pod, PodTemplateSpec } from "#model/gen/core-v1.ts";
import type { OwnerReference } from "#model/gen/meta-v1.ts";
import { type ApiObject, nameOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { pods } from "#model/resources.ts";
import { isNamespaceTerminating } from "./controller.ts";
import { deleteIfThere } from "./writes.ts";

export interface PodControl {
  /** Creates; on failure writes an event on the owner (unless its namespace is going away) and throws. */
  create(pod: Pod, owner: ApiObject): Promise<Pod>;
  /** Deletes with the pod's own grace period; one that is gone already counts as deleted. */
  delete(pod: Pod, owner: ApiObject): Promise<void>;
  /** Deletes all, calling `onDeleted` for each that worked; throws the first failure when all are done. */
  deleteAll(pods: readonly Pod[], owner: ApiObject, onDeleted: (pod: Pod) => void): Promise<void>;
}

export function createPodControl(client: Client, events: EventSink, ownerResource: ResourceInfo): PodControl {
  const say = (owner: ApiObject, type: "Normal" | "Warning", reason: string, message: string) =>
    events.record({ resource: ownerResource, object: owner, type, reason, message });
  const control: PodControl = {
    async create(pod, owner) {
      try {
        const created = await client.create(pods, pod);
        say(owner, "Normal", "SuccessfulCreate", `Created pod: ${nameOf(created)}`);
        return created;
      } catch (error) {
        if (!isNamespaceTerminating(error))
          say(owner, "Warning", "FailedCreate", `Error creating: ${messageOf(error)}`);
        throw error;
      }
    },
    async delete(pod, owner) {
      try {
        if (await deleteIfThere(client, pods, pod))
          say(owner, "Normal", "SuccessfulDelete", `Deleted pod: ${nameOf(pod)}`);
      } catch (error) {
        say(owner, "Warning", "FailedDelete", `Error deleting: ${messageOf(error)}`);
        throw error;
      }
    },
    async deleteAll(doomed, owner, onDeleted) {
      const one = async (pod: Pod): Promise<void> => {
        await control.delete(pod, owner);
        onDeleted(pod);
      };
      const results = await Promise.allSettled(doomed.map(one));
      const failed = results.find((r) => r.status === "rejected");
      if (failed) throw failed.reason;
    },
  };
  return control;
}

/** A pod as its template says, owned by `reference`, to be named by the API server. */
export function podFromTemplate(
  template: PodTemplateSpec,
  options: { readonly namespace: string; readonly generateName: string; readonly reference: OwnerReference },
): Pod {
  const { labels, annotations, finalizers } = template.metadata ?? {};
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      generateName: options.generateName,
      namespace: options.namespace,
      ...(labels ? { labels: { ...labels } } : {}),
      ...(annotations ? { annotations: { ...annotations } } : {}),
      ...(finalizers ? { finalizers: [...finalizers] } : {}),
      ownerReferences: [options.reference],
    },
    spec: template.spec ?? { containers: [] },
  };
}

/**
 * Runs `step` up to `count` times in batches of 1, 2, 4, …; stops after a batch with a failure, so that what cannot
 * work (quota, admission) costs one request and not hundreds. Returns how many succeeded, and the first failure.
 */
export async function slowStart(
  count: number,
  step: (index: number) => Promise<unknown>,
): Promise<{ readonly done: number; readonly error: unknown }> {
  let done = 0;
  let started = 0;
  for (let batch = 1; started < count; batch *= 2) {
    const size = Math.min(batch, count - started);
    const results = await Promise.allSettled(Array.from({ length: size }, (_, i) => step(started + i)));
    started += size;
    done += results.filter((r) => r.status === "fulfilled").length;
    const failed = results.find((r) => r.status === "rejected");
    if (failed) return { done, error: failed.reason };
  }
  return { done, error: undefined };
}

/** Of one sync: upstream's BurstReplicas, so that one huge owner does not keep others waiting. */
export const maxBurst = 500;
