// Claims for generic ephemeral volumes: a claim per volume, named POD-VOLUME, owned by its pod and gone with it.
// Upstream counterpart: ephemeral-volume-controller.
import type { Service } from "#base/service.ts";
import type { PersistentVolumeClaim, Pod, Volume } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { persistentVolumeClaims, pods } from "#model/resources.ts";
import { isAlreadyExists } from "#model/status.ts";
import { claimNameOf, isOwnedByPod } from "#model/volumes.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../runtime/controller.ts";
import { controllerReference } from "../runtime/owners.ts";
import { isPodFinished } from "../runtime/pods.ts";

export function createEphemeralVolumes(deps: ControllerDeps): Service {
  const { client } = deps;
  const name = "ephemeral_volume";
  const events = deps.events.as(name);
  const podStore = deps.informers.informer(pods);
  const claimStore = deps.informers.informer(persistentVolumeClaims);
  const creations = deps.metrics.counter("ephemeral_volume_controller_create_total", "Claims that were to be made.");
  const failures = deps.metrics.counter(
    "ephemeral_volume_controller_create_failures_total",
    "Claims that could not be made.",
  );
  const isConcerned = (pod: Pod) => (pod.spec.volumes ?? []).some((volume) => volume.ephemeral);

  async function ensureClaim(pod: Pod, volume: Volume): Promise<void> {
    const claimName = claimNameOf(pod, volume) ?? "";
    const known = claimStore.get(`${namespaceOf(pod)}/${claimName}`);
    if (known && isOwnedByPod(known, pod)) return;
    const refuse = (why: string): Error => {
      const message = `ephemeral volume ${volume.name}: ${why}`;
      events.record({ resource: pods as ResourceInfo, object: pod, type: "Warning", reason: "FailedBinding", message });
      return new Error(message);
    };
    if (known)
      throw refuse(`PVC ${namespaceOf(pod)}/${claimName} was not created for pod ${nameOf(pod)} (pod is not owner)`);
    creations.add();
    try {
      await client.create(persistentVolumeClaims, claimFor(pod, volume, claimName));
    } catch (error) {
      failures.add();
      if (isAlreadyExists(error)) {
        const found = await client.get(persistentVolumeClaims, claimName, namespaceOf(pod));
        if (isOwnedByPod(found, pod)) return;
        throw refuse(`PVC ${namespaceOf(pod)}/${claimName} was not created for pod ${nameOf(pod)} (pod is not owner)`);
      }
      if (isNamespaceTerminating(error)) return;
      throw refuse(error instanceof Error ? error.message : String(error));
    }
  }

  return createController(
    {
      name: "ephemeral-volume-controller",
      workers: 2,
      triggers: [
        on(podStore, (pod, how) =>
          how !== "delete" && isConcerned(pod) ? [`${namespaceOf(pod)}/${nameOf(pod)}`] : [],
        ),
        // A claim that was deleted under its pod is made again.
        on(claimStore, (claim, how) => {
          const owner = claim.metadata.ownerReferences?.find((one) => one.controller && one.kind === "Pod");
          return how === "delete" && owner ? [`${namespaceOf(claim)}/${owner.name}`] : [];
        }),
      ],
      async sync(key) {
        const pod = podStore.get(key);
        if (!pod || isDeleting(pod) || isPodFinished(pod)) return;
        for (const volume of pod.spec.volumes ?? []) if (volume.ephemeral) await ensureClaim(pod, volume);
      },
    },
    deps,
  );
}

function claimFor(pod: Pod, volume: Volume, claimName: string): PersistentVolumeClaim {
  const template = volume.ephemeral?.volumeClaimTemplate;
  const { labels, annotations } = template?.metadata ?? {};
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: {
      name: claimName,
      namespace: namespaceOf(pod),
      ...(labels ? { labels: { ...labels } } : {}),
      ...(annotations ? { annotations: { ...annotations } } : {}),
      ownerReferences: [controllerReference(pods as ResourceInfo, pod)],
    },
    spec: { ...(template?.spec ?? {}) },
  };
}
