// Binds claims to volumes and carries volumes through their phases. The decisions are in plan.ts; one key at a time, so
// that no two bindings race for a volume. Storage itself is made and removed by provisioners: this says which one has to
// act (annotation storage-provisioner) and leaves released volumes with policy Delete to them.
// Upstream counterpart: persistentvolume-binder-controller.
import { rfc3339 } from "#base/clock.ts";
import type { Service } from "#base/service.ts";
import type { PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import { isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { persistentVolumeClaims, persistentVolumes, pods, storageClasses } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { boundVolume, claimNamesOf, defaultClassOf, isBindCompleted, volumeAnnotations } from "#model/volumes.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";
import { Latest } from "./latest.ts";
import { boundClaim, planClaim, planVolume, type Said, unboundVolume } from "./plan.ts";

const claimPrefix = "claim:";
const volumePrefix = "volume:";
export const podsByClaim = "claim";
const volumesByClaim = "claim";
const unbound = "unbound";

/** Lets `pods of a claim` be answered without walking all pods. */
export const indexPodsByClaim = (store: { addIndex(name: string, fn: (pod: Pod) => readonly string[]): void }): void =>
  store.addIndex(podsByClaim, (pod) => claimNamesOf(pod).map((name) => `${namespaceOf(pod)}/${name}`));

export function createVolumeBinder(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const name = "persistentvolume-controller";
  const events = deps.events.as(name);
  const claimStore = deps.informers.informer(persistentVolumeClaims);
  const volumeStore = deps.informers.informer(persistentVolumes);
  const classStore = deps.informers.informer(storageClasses);
  const podStore = deps.informers.informer(pods);
  const claims = new Latest(claimStore);
  const volumes = new Latest(volumeStore);
  indexPodsByClaim(podStore);
  claimStore.addIndex(unbound, (claim) => (isBindCompleted(claim) ? [] : [unbound]));
  volumeStore.addIndex(volumesByClaim, ({ spec }) =>
    spec.claimRef ? [`${spec.claimRef.namespace}/${spec.claimRef.name}`] : [],
  );
  const { metrics } = deps;
  const isBound = (volume: PersistentVolume) => volume.status?.phase === "Bound";
  metrics.gaugeOf("pv_collector_total_pv_count", "Persistent volumes.", () => volumeStore.size);
  metrics.gaugeOf(
    "pv_collector_bound_pv_count",
    "Persistent volumes that a claim has.",
    () => volumeStore.list().filter(isBound).length,
  );
  metrics.gaugeOf(
    "pv_collector_unbound_pvc_count",
    "Claims without a volume.",
    () => claimStore.byIndex(unbound, unbound).length,
  );
  metrics.gaugeOf(
    "pv_collector_bound_pvc_count",
    "Claims that have a volume.",
    () => claimStore.size - claimStore.byIndex(unbound, unbound).length,
  );
  const unboundKeys = () => claimStore.byIndex(unbound, unbound).map((claim) => `${claimPrefix}${keyOf(claim)}`);

  const sayClaim = (claim: PersistentVolumeClaim, said: Said | undefined) => {
    if (said) events.record({ resource: persistentVolumeClaims as ResourceInfo, object: claim, ...said });
  };
  const sayVolume = (volume: PersistentVolume, said: Said) =>
    events.record({ resource: persistentVolumes as ResourceInfo, object: volume, ...said });

  const writeVolume = async (volume: PersistentVolume) => volumes.wrote(await client.update(persistentVolumes, volume));
  const writeClaim = async (claim: PersistentVolumeClaim) =>
    claims.wrote(await client.update(persistentVolumeClaims, claim));

  async function setVolumePhase(volume: PersistentVolume, phase: string, message = ""): Promise<PersistentVolume> {
    // What others have written beside a phase that fits is theirs.
    if (volume.status?.phase === phase && (message === "" || volume.status.message === message)) return volume;
    const isMoved = volume.status?.phase !== phase;
    const { message: _, reason: __, ...rest } = volume.status ?? {};
    const status = {
      ...rest,
      phase,
      ...(message === "" ? {} : { message }),
      ...(isMoved ? { lastPhaseTransitionTime: rfc3339(clock.now()) } : {}),
    };
    return volumes.wrote(await client.updateStatus(persistentVolumes, { ...volume, status }));
  }

  /** Modes and size are the volume's from the moment of binding on; later changes of size are the expander's. */
  async function setClaimPhase(claim: PersistentVolumeClaim, phase: string, volume?: PersistentVolume): Promise<void> {
    const status = { ...claim.status, phase };
    if (volume && claim.status?.phase !== phase) {
      status.accessModes = [...(volume.spec.accessModes ?? [])];
      status.capacity = { ...volume.spec.capacity };
      if (volume.spec.volumeAttributesClassName) {
        status.currentVolumeAttributesClassName = volume.spec.volumeAttributesClassName;
      }
    }
    if (!volume) {
      delete status.accessModes;
      delete status.capacity;
    }
    if (isEqual(status, claim.status)) return;
    claims.wrote(await client.updateStatus(persistentVolumeClaims, { ...claim, status }));
  }

  /** The volume's side first: a crash in between leaves a volume that knows whom it is for. */
  async function bind(given: PersistentVolume, givenClaim: PersistentVolumeClaim): Promise<void> {
    let volume = given;
    let claim = givenClaim;
    const wanted = boundVolume(volume, claim);
    if (wanted !== volume) volume = await writeVolume(wanted);
    volume = await setVolumePhase(volume, "Bound");
    const wantedClaim = boundClaim(claim, volume);
    if (wantedClaim !== claim) claim = await writeClaim(wantedClaim);
    await setClaimPhase(claim, "Bound", volume);
  }

  /** Says whose turn it is; the provisioner does the rest. */
  async function provision(claim: PersistentVolumeClaim, provisioner: string): Promise<void> {
    const { storageProvisioner, oldStorageProvisioner } = volumeAnnotations;
    const { annotations } = claim.metadata;
    let current = claim;
    if (annotations?.[storageProvisioner] !== provisioner) {
      const next = { ...annotations, [storageProvisioner]: provisioner, [oldStorageProvisioner]: provisioner };
      current = await writeClaim({ ...claim, metadata: { ...claim.metadata, annotations: next } });
    }
    sayClaim(current, {
      type: "Normal",
      reason: "ExternalProvisioning",
      message: `Waiting for a volume to be created either by the external provisioner '${provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.`,
    });
    await setClaimPhase(current, "Pending");
  }

  async function syncClaim(key: string): Promise<void> {
    const claim = claims.get(key);
    if (!claim) return;
    const step = planClaim(claim, {
      volume: (volumeName) => volumes.get(volumeName),
      volumes: () => volumes.list(),
      storageClass: (className) => classStore.get(className),
      defaultClass: () => defaultClassOf(classStore.list()),
      waitingPods: () => podStore.byIndex(podsByClaim, key).filter((pod) => !pod.spec.nodeName && !isDeleting(pod)),
    });
    switch (step.do) {
      case "nothing":
        return;
      case "assign-class":
        await writeClaim({ ...claim, spec: { ...claim.spec, storageClassName: step.className } });
        return syncClaim(key);
      case "bind":
        return bind(step.volume, claim);
      case "wait":
        sayClaim(claim, step.say);
        return setClaimPhase(claim, "Pending");
      case "provision":
        return provision(claim, step.provisioner);
      default:
        if (claim.status?.phase !== "Lost") sayClaim(claim, step.say);
        return setClaimPhase(claim, "Lost");
    }
  }

  /** What the API says now: a store that is behind must not make a volume lose its claim, and with it its data. */
  async function claimOf(volume: PersistentVolume): Promise<PersistentVolumeClaim | undefined> {
    const reference = volume.spec.claimRef;
    if (!reference) return undefined;
    const known = claims.get(`${reference.namespace}/${reference.name}`);
    if (known && uidOf(known) === reference.uid) return known;
    try {
      return await client.get(persistentVolumeClaims, reference.name ?? "", reference.namespace);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async function syncVolume(volumeName: string): Promise<void> {
    const volume = volumes.get(volumeName);
    if (!volume) return;
    const step = planVolume(volume, volume.spec.claimRef?.uid ? await claimOf(volume) : undefined);
    switch (step.do) {
      case "nothing":
        return;
      case "phase":
        await setVolumePhase(volume, step.phase);
        return;
      case "release": {
        const isOver = volume.status?.phase === "Released" || volume.status?.phase === "Failed";
        return reclaim(isOver ? volume : await setVolumePhase(volume, "Released"));
      }
      case "unbind":
        await setVolumePhase(await writeVolume(unboundVolume(volume)), "Available");
        return;
      default:
        if (step.say) sayVolume(volume, step.say);
        return syncClaim(`${volume.spec.claimRef?.namespace}/${volume.spec.claimRef?.name}`);
    }
  }

  async function reclaim(volume: PersistentVolume): Promise<void> {
    const fail = async (reason: string, message: string) => {
      if (volume.status?.phase === "Failed" && volume.status.message === message) return;
      await setVolumePhase(volume, "Failed", message);
      sayVolume(volume, { type: "Warning", reason, message });
    };
    switch (volume.spec.persistentVolumeReclaimPolicy ?? "Retain") {
      case "Delete":
        // Whoever provisioned it watches for released volumes and deletes storage and object.
        if (volume.metadata.annotations?.[volumeAnnotations.provisionedBy] || volume.spec.csi) return;
        return fail(
          "VolumeFailedDelete",
          `error getting deleter volume plugin for volume "${nameOf(volume)}": no deletable volume plugin matched`,
        );
      case "Recycle":
        return fail("VolumeFailedRecycle", "No recycler plugin found for the volume!");
      default:
        return;
    }
  }

  const keysOfVolume = (volume: PersistentVolume, how: string): string[] => {
    const reference = volume.spec.claimRef;
    const own = how === "delete" ? [] : [`${volumePrefix}${nameOf(volume)}`];
    if (reference) return [...own, `${claimPrefix}${reference.namespace}/${reference.name}`];
    if (volume.status?.phase !== "Available") return own;
    // Something new to be had: all that wait for its class, and those that asked for it by name.
    return [...own, ...unboundKeys()];
  };

  return createController(
    {
      name: "persistentvolume-binder-controller",
      workers: 1,
      triggers: [
        on(claimStore, (claim, how) => [
          ...(how === "delete" ? [] : [`${claimPrefix}${keyOf(claim)}`]),
          ...volumeStore.byIndex(volumesByClaim, keyOf(claim)).map((volume) => `${volumePrefix}${nameOf(volume)}`),
        ]),
        on(volumeStore, keysOfVolume),
        on(classStore, unboundKeys),
        on(podStore, (pod, how) =>
          how === "add" && !pod.spec.nodeName
            ? claimNamesOf(pod).map((claimName) => `${claimPrefix}${namespaceOf(pod)}/${claimName}`)
            : [],
        ),
      ],
      sync: (key) =>
        key.startsWith(claimPrefix)
          ? syncClaim(key.slice(claimPrefix.length))
          : syncVolume(key.slice(volumePrefix.length)),
    },
    deps,
  );
}
