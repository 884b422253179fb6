// DefaultStorageClass: a claim that names no class gets the one marked as default, the youngest where there are several.
// Upstream: plugin/pkg/admission/storage/storageclass/setdefault.
import type { PersistentVolumeClaim } from "#model/gen/core-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import type { AdmissionPlugin } from "./plugin.ts";

const marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const oldAnnotation = "volume.beta.kubernetes.io/storage-class";

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
      if (!claim?.spec || claim.spec.storageClassName != null) return;
      if (claim.metadata.annotations?.[oldAnnotation] !== undefined) return;
      const classes = await context.list<StorageClass>("storageclasses.storage.k8s.io");
      const defaults = classes.filter(({ metadata }) => marks.some((mark) => metadata.annotations?.[mark] === "true"));
      const age = (entry: StorageClass) => entry.metadata.creationTimestamp ?? "";
      const name = (entry: StorageClass) => entry.metadata.name ?? "";
      defaults.sort((a, b) => age(b).localeCompare(age(a)) || name(a).localeCompare(name(b)));
      const chosen = defaults[0]?.metadata.name;
      if (chosen !== undefined) claim.spec.storageClassName = chosen;
    },
  };
}
