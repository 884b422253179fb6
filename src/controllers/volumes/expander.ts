// Claims that ask for more than their volume has: says who has to grow it (annotation storage-resizer). The resizer of the
// driver grows the volume, the node the file system on it. Upstream counterpart: persistentvolume-expander-controller.
import type { Service } from "#base/service.ts";
import { nameOf } from "#model/object.ts";
import { compareQuantities } from "#model/quantity.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { persistentVolumeClaims, persistentVolumes, storageClasses } from "#model/resources.ts";
import { classOfClaim, sizeOfClaim, volumeAnnotations } from "#model/volumes.ts";
import { type ControllerDeps, waitFor } from "../runtime/controller.ts";
import { createObjectController } from "../runtime/object-controller.ts";

export function createVolumeExpander(deps: ControllerDeps): Service {
  const { client } = deps;
  const events = deps.events.as("volume_expand");
  const volumeStore = deps.informers.informer(persistentVolumes);
  const classStore = deps.informers.informer(storageClasses);
  return createObjectController(
    {
      name: "persistentvolume-expander-controller",
      workers: 1,
      store: deps.informers.informer(persistentVolumeClaims),
      triggers: [waitFor(volumeStore), waitFor(classStore)],
      async sync(claim) {
        const has = claim.status?.capacity?.["storage"];
        if (claim.status?.phase !== "Bound" || has === undefined) return;
        if (compareQuantities(sizeOfClaim(claim), has) <= 0) return;
        const volume = volumeStore.get(claim.spec.volumeName ?? "");
        if (!volume) return;
        const driver = volume.spec.csi?.driver ?? classStore.get(classOfClaim(claim))?.provisioner;
        if (driver === undefined) return;
        const { annotations, namespace, resourceVersion } = claim.metadata;
        if (annotations?.[volumeAnnotations.storageResizer] !== driver) {
          const metadata = { resourceVersion, annotations: { [volumeAnnotations.storageResizer]: driver } };
          await client.patch(persistentVolumeClaims, { name: nameOf(claim), namespace }, { metadata });
        }
        events.record({
          resource: persistentVolumeClaims as ResourceInfo,
          object: claim,
          type: "Normal",
          reason: "ExternalExpanding",
          message: "waiting for an external controller to expand this PVC",
        });
      },
    },
    deps,
  );
}
