// Keeps claims that pods use and volumes that claims use from vanishing: their finalizers go only when nobody needs them.
// A pod counts once it has a node, and until it is deleted, finished or not. What the stores say is asked of the API again
// before a claim is let go. Upstream counterpart: pvc-protection-controller, pv-protection-controller.
import type { Service } from "#base/service.ts";
import type { PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import { type ApiObject, isDeleting, nameOf, namespaceOf, splitKey, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { persistentVolumeClaims, persistentVolumes, pods } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { claimNameOf, claimNamesOf, isOwnedByPod, volumeFinalizers } from "#model/volumes.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { isPodFinished } from "../runtime/pods.ts";
import { indexPodsByClaim, podsByClaim } from "./binder.ts";

/** Does the pod hold the claim? A claim made for it is let go when its containers have ended. */
export function holdsClaim(pod: Pod, claim: PersistentVolumeClaim): boolean {
  if (!pod.spec.nodeName) return false;
  return (pod.spec.volumes ?? []).some((volume) => {
    if (claimNameOf(pod, volume) !== nameOf(claim)) return false;
    return volume.ephemeral ? isOwnedByPod(claim, pod) && !isShutDown(pod) : true;
  });
}

const isShutDown = (pod: Pod): boolean =>
  isPodFinished(pod) && !(pod.status?.containerStatuses ?? []).some((status) => status.state?.running !== undefined);

export function createClaimProtection(deps: ControllerDeps): Service {
  const { client } = deps;
  const claimStore = deps.informers.informer(persistentVolumeClaims);
  const podStore = deps.informers.informer(pods);
  indexPodsByClaim(podStore);
  const setFinalizers = finalizerWriter(deps, persistentVolumeClaims as ResourceInfo);

  return createController(
    {
      name: "persistentvolumeclaim-protection-controller",
      workers: 2,
      triggers: [
        on(claimStore),
        on(podStore, (pod, how) => {
          const isOver = how === "delete" || isPodFinished(pod);
          return isOver ? claimNamesOf(pod).map((name) => `${namespaceOf(pod)}/${name}`) : [];
        }),
      ],
      async sync(key) {
        const claim = claimStore.get(key);
        if (!claim) return;
        const finalizer = volumeFinalizers.claimProtection;
        const has = claim.metadata.finalizers?.includes(finalizer) ?? false;
        if (!isDeleting(claim)) {
          if (!has) await setFinalizers(claim, [...(claim.metadata.finalizers ?? []), finalizer]);
          return;
        }
        if (!has || podStore.byIndex(podsByClaim, key).some((pod) => holdsClaim(pod, claim))) return;
        const { items } = await client.list(pods, { namespace: splitKey(key).namespace });
        if (items.some((pod) => holdsClaim(pod, claim))) return;
        await setFinalizers(claim, claim.metadata.finalizers?.filter((one) => one !== finalizer) ?? []);
      },
    },
    deps,
  );
}

export function createVolumeProtection(deps: ControllerDeps): Service {
  const volumeStore = deps.informers.informer(persistentVolumes);
  const setFinalizers = finalizerWriter(deps, persistentVolumes as ResourceInfo);
  return createController(
    {
      name: "persistentvolume-protection-controller",
      workers: 2,
      triggers: [on(volumeStore)],
      async sync(key) {
        const volume = volumeStore.get(key);
        if (!volume) return;
        const finalizer = volumeFinalizers.volumeProtection;
        const has = volume.metadata.finalizers?.includes(finalizer) ?? false;
        if (!isDeleting(volume)) {
          if (!has) await setFinalizers(volume, [...(volume.metadata.finalizers ?? []), finalizer]);
          return;
        }
        if (!has || volume.status?.phase === "Bound") return;
        await setFinalizers(volume, volume.metadata.finalizers?.filter((one) => one !== finalizer) ?? []);
      },
    },
    deps,
  );
}

/** Writes an object's finalizers against the revision they were read at. */
export function finalizerWriter({ client }: Pick<ControllerDeps, "client">, resource: ResourceInfo) {
  return async (object: ApiObject, finalizers: readonly string[]): Promise<void> => {
    const { resourceVersion } = object.metadata;
    try {
      const target = { name: nameOf(object), namespace: object.metadata.namespace };
      await client.patch(resource, target, { metadata: { uid: uidOf(object), resourceVersion, finalizers } });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  };
}
