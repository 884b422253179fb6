// Keeps claims that pods use and volumes that claims use from vanishing: their finalizers go only when nobody needs them.
// A pod counts once it has a node, and until it is deleted, finished or not. What the stores say is asked of the API again
// before a claim is let go. Upstream counterpart: pvc-protection-controller, pv-protection-controller.
import type { Service } from "#base/service.ts";
import type { Informer } from "#client/informer.ts";
import type { PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import { type ApiObject, keyOf, nameOf, namespaceOf } from "#model/object.ts";
import { persistentVolumeClaims, persistentVolumes, pods } from "#model/resources.ts";
import { claimNameOf, claimNamesOf, isOwnedByPod, volumeFinalizers } from "#model/volumes.ts";
import { type ControllerDeps, on, type Trigger } from "../runtime/controller.ts";
import { createObjectController } from "../runtime/object-controller.ts";
import { isPodFinished } from "../runtime/pods.ts";
import { dropFinalizer, writeFinalizers } from "../runtime/writes.ts";
import { indexPodsByClaim, podsByClaim } from "./binder.ts";

interface Protection<T extends ApiObject> {
  readonly name: string;
  readonly store: Informer<T>;
  readonly triggers?: readonly Trigger[];
  readonly finalizer: string;
  /** Asked of one that is being deleted. */
  isNeeded(object: T): boolean | Promise<boolean>;
}

function createProtection<T extends ApiObject>(
  { finalizer, isNeeded, store, ...spec }: Protection<T>,
  deps: ControllerDeps,
): Service {
  const { client } = deps;
  const isProtected = (object: T) => object.metadata.finalizers?.includes(finalizer) ?? false;
  return createObjectController(
    {
      ...spec,
      workers: 2,
      store,
      async sync(object) {
        if (isProtected(object)) return;
        await writeFinalizers(client, store.resource, object, [...(object.metadata.finalizers ?? []), finalizer]);
      },
      async end(object) {
        if (!isProtected(object) || (await isNeeded(object))) return;
        await dropFinalizer(client, store.resource, object, finalizer);
      },
    },
    deps,
  );
}

/** Does the pod hold the claim? A claim made for it is let go when its containers have ended. */
function holdsClaim(pod: Pod, claim: PersistentVolumeClaim): boolean {
  if (!pod.spec.nodeName) return false;
  return (pod.spec.volumes ?? []).some((volume) => {
    if (claimNameOf(pod, volume) !== nameOf(claim)) return false;
    return volume.ephemeral ? isOwnedByPod(claim, pod) && !isShutDown(pod) : true;
  });
}

const isShutDown = (pod: Pod): boolean =>
  isPodFinished(pod) && !(pod.status?.containerStatuses ?? []).some((status) => status.state?.running !== undefined);

export function createClaimProtection(deps: ControllerDeps): Service {
  const podStore = deps.informers.informer(pods);
  indexPodsByClaim(podStore);
  return createProtection(
    {
      name: "persistentvolumeclaim-protection-controller",
      store: deps.informers.informer(persistentVolumeClaims),
      triggers: [
        on(podStore, (pod, how) => {
          const isOver = how === "delete" || isPodFinished(pod);
          return isOver ? claimNamesOf(pod).map((name) => `${namespaceOf(pod)}/${name}`) : [];
        }),
      ],
      finalizer: volumeFinalizers.claimProtection,
      async isNeeded(claim) {
        const isHolder = (pod: Pod) => holdsClaim(pod, claim);
        if (podStore.byIndex(podsByClaim, keyOf(claim)).some(isHolder)) return true;
        const { items } = await deps.client.list(pods, { namespace: namespaceOf(claim) });
        return items.some(isHolder);
      },
    },
    deps,
  );
}

export const createVolumeProtection = (deps: ControllerDeps): Service =>
  createProtection(
    {
      name: "persistentvolume-protection-controller",
      store: deps.informers.informer(persistentVolumes),
      finalizer: volumeFinalizers.volumeProtection,
      isNeeded: (volume) => volume.status?.phase === "Bound",
    },
    deps,
  );
