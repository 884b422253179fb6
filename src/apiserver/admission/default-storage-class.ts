// DefaultStorageClass: a claim that names no class gets the one marked as default, the youngest where there are several.
// Claims that came before there was one get it from the binder. Upstream: plugin/pkg/admission/storage/storageclass/setdefault.
import type { PersistentVolumeClaim } from "#model/gen/core-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import { defaultClassOf, wantsDefaultClass } from "#model/volumes.ts";
import type { AdmissionPlugin } from "./plugin.ts";

export function createDefaultStorageClass(): AdmissionPlugin {
  return {
    name: "DefaultStorageClass",
    handles: ({ operation, resource, subresource }) =>
      operation === "CREATE" &&
      resource.group === "" &&
      resource.plural === "persistentvolumeclaims" &&
      subresource === "",
    async mutate(request, context) {
      const claim = request.object as PersistentVolumeClaim | undefined;
      // An empty name means "no class" and stays.
      if (!claim?.spec || !wantsDefaultClass(claim)) return;
      const chosen = defaultClassOf(await context.list<StorageClass>("storageclasses.storage.k8s.io"))?.metadata.name;
      if (chosen !== undefined) claim.spec.storageClassName = chosen;
    },
  };
}
