// Volumes and claims: when a volume's phase began, and the two spellings of a claim's data source. Upstream counterpart:
// pkg/registry/core/persistentvolume, persistentvolumeclaim, pkg/api/persistentvolumeclaim.
import { rfc3339 } from "#base/clock.ts";
import type { PersistentVolume, PersistentVolumeClaim } from "#model/gen/core-v1.ts";
import type { Strategy } from "../../strategy.ts";
import { withStatus } from "./plain.ts";

export const persistentVolumes: Strategy<PersistentVolume> = {
  ...(withStatus({}) as Strategy<PersistentVolume>),
  prepareForCreate(volume, { clock }) {
    volume.status = { phase: "Pending", lastPhaseTransitionTime: rfc3339(clock.now()) };
    delete volume.spec?.volumeAttributesClassName;
  },
};

export const persistentVolumeClaims: Strategy<PersistentVolumeClaim> = {
  ...(withStatus({}) as Strategy<PersistentVolumeClaim>),
  prepareForCreate(claim) {
    claim.status = { phase: "Pending" };
    if (!claim.spec) return;
    // VolumeAttributesClass is off by default in 1.32.
    delete claim.spec.volumeAttributesClassName;
    const { dataSource, dataSourceRef } = claim.spec;
    if (dataSource && !dataSourceRef) claim.spec.dataSourceRef = { ...dataSource };
    else if (dataSourceRef && !dataSource && !dataSourceRef.namespace) {
      const { namespace: _, ...source } = dataSourceRef;
      claim.spec.dataSource = source;
    }
    // Objects of another namespace are not enabled; kinds of the core group other than claims cannot be copied.
    if (claim.spec.dataSourceRef?.namespace === "") delete claim.spec.dataSourceRef.namespace;
  },
};
