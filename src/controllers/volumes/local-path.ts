// The local-path provisioner, built in: storage class `local-path`, the default one, whose volumes are folders of the node
// that the pod was given. Here the objects are made and deleted; the folder itself is the node agent's (it makes it at the
// first mount and removes it when the volume object is being deleted, then lets the object go by taking its finalizer).
//
//   claim with class and chosen node ─▶ volume pvc-UID, <storage>/pvc-UID_NAMESPACE_NAME, bound to the claim beforehand
//   volume Released, policy Delete   ─▶ deleted; gone when its node has removed the folder, or is no more
//
// Counterpart: rancher/local-path-provisioner as k3s deploys it, without helper pods.
import type { Service } from "#base/service.ts";
import type { Node, PersistentVolume, PersistentVolumeClaim } from "#model/gen/core-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import { isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { nodes, persistentVolumeClaims, persistentVolumes, storageClasses } from "#model/resources.ts";
import { isAlreadyExists } from "#model/status.ts";
import {
  claimReference,
  classOfClaim,
  isBindCompleted,
  localPathProvisioner,
  sizeOfClaim,
  volumeAnnotations,
  volumeFinalizers,
} from "#model/volumes.ts";
import { type ControllerDeps, createController, on, waitFor } from "../runtime/controller.ts";
import { deleteIfThere, dropFinalizer } from "../runtime/writes.ts";

export interface LocalPathOptions {
  /** Where volumes lie on every node, e.g. /var/lib/mote/storage. */
  readonly folder: string;
}

const className = "local-path";
const typeAnnotation = "volumeType";
const defaultTypeAnnotation = "defaultVolumeType";
const nodeAnnotation = "local.path.provisioner/selected-node";
const hostnameLabel = "kubernetes.io/hostname";
const classKey = "class:";
const claimKey = "claim:";
const volumeKey = "volume:";

export const localPathClass = (): StorageClass => ({
  apiVersion: "storage.k8s.io/v1",
  kind: "StorageClass",
  metadata: {
    name: className,
    annotations: { "storageclass.kubernetes.io/is-default-class": "true", [defaultTypeAnnotation]: "local" },
  },
  provisioner: localPathProvisioner,
  reclaimPolicy: "Delete",
  volumeBindingMode: "WaitForFirstConsumer",
});

export type Provisioned = { readonly volume: PersistentVolume } | { readonly refusal: string };

/** The volume for a claim on a node, or why there can be none. Pure. */
export function planLocalVolume(
  claim: PersistentVolumeClaim,
  entry: StorageClass,
  node: Node,
  { folder }: LocalPathOptions,
): Provisioned {
  const modes = claim.spec.accessModes ?? [];
  if (claim.spec.volumeMode === "Block") return { refusal: "block volume provisioning is not supported" };
  if (claim.spec.selector) return { refusal: "claim.Spec.Selector is not supported" };
  if (claim.spec.dataSource || claim.spec.dataSourceRef) return { refusal: "a data source is not supported" };
  if (modes.some((mode) => mode !== "ReadWriteOnce" && mode !== "ReadWriteOncePod")) {
    return { refusal: "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes" };
  }
  for (const parameter of ["pathPattern", "nodePath"]) {
    if (entry.parameters?.[parameter]) return { refusal: `parameter ${parameter} is not supported` };
  }
  const annotations = claim.metadata.annotations ?? {};
  const type = annotations[typeAnnotation] ?? entry.metadata.annotations?.[defaultTypeAnnotation] ?? "hostPath";
  if (type !== "local" && type !== "hostPath") return { refusal: `"${type}" is not a recognised volume type` };
  const name = `pvc-${uidOf(claim)}`;
  const path = `${folder}/${name}_${namespaceOf(claim)}_${nameOf(claim)}`;
  const hostname = node.metadata.labels?.[hostnameLabel] ?? nameOf(node);
  return {
    volume: {
      apiVersion: "v1",
      kind: "PersistentVolume",
      metadata: {
        name,
        annotations: {
          [volumeAnnotations.provisionedBy]: localPathProvisioner,
          [nodeAnnotation]: nameOf(node),
        },
        finalizers: [volumeFinalizers.provisioner],
      },
      spec: {
        capacity: { storage: String(sizeOfClaim(claim)) },
        accessModes: [...modes],
        persistentVolumeReclaimPolicy: entry.reclaimPolicy ?? "Delete",
        storageClassName: nameOf(entry),
        volumeMode: "Filesystem",
        ...(entry.mountOptions ? { mountOptions: [...entry.mountOptions] } : {}),
        claimRef: claimReference(claim),
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [{ matchExpressions: [{ key: hostnameLabel, operator: "In", values: [hostname] }] }],
          },
        },
        ...(type === "local" ? { local: { path } } : { hostPath: { path, type: "DirectoryOrCreate" } }),
      },
    },
  };
}

const isOurs = (volume: PersistentVolume): boolean =>
  volume.metadata.annotations?.[volumeAnnotations.provisionedBy] === localPathProvisioner;

export function createLocalPathProvisioner(deps: ControllerDeps, options: LocalPathOptions): Service {
  const { client } = deps;
  const events = deps.events.as(localPathProvisioner);
  const claimStore = deps.informers.informer(persistentVolumeClaims);
  const volumeStore = deps.informers.informer(persistentVolumes);
  const classStore = deps.informers.informer(storageClasses);
  const nodeStore = deps.informers.informer(nodes);

  const say = (claim: PersistentVolumeClaim, type: "Normal" | "Warning", reason: string, message: string) =>
    events.record({ resource: persistentVolumeClaims as ResourceInfo, object: claim, type, reason, message });

  /** Once per start, as an add-on is applied; who deletes it means it until then. */
  async function ensureClass(): Promise<void> {
    if (classStore.get(className)) return;
    try {
      await client.create(storageClasses, localPathClass());
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
  }

  async function provision(key: string): Promise<void> {
    const claim = claimStore.get(key);
    if (!claim || isDeleting(claim) || isBindCompleted(claim) || claim.spec.volumeName) return;
    if (claim.metadata.annotations?.[volumeAnnotations.storageProvisioner] !== localPathProvisioner) return;
    const entry = classStore.get(classOfClaim(claim));
    if (entry?.provisioner !== localPathProvisioner || volumeStore.get(`pvc-${uidOf(claim)}`)) return;
    const fail = (why: string) =>
      say(
        claim,
        "Warning",
        "ProvisioningFailed",
        `failed to provision volume with StorageClass "${nameOf(entry)}": ${why}`,
      );
    const selected = claim.metadata.annotations[volumeAnnotations.selectedNode];
    if (selected === undefined) {
      fail("configuration error, no node was specified");
      return;
    }
    const node = nodeStore.get(selected);
    if (!node) {
      fail(`node "${selected}" not found`);
      return giveNodeBack(claim);
    }
    say(claim, "Normal", "Provisioning", `External provisioner is provisioning volume for claim "${key}"`);
    const planned = planLocalVolume(claim, entry, node, options);
    if ("refusal" in planned) {
      fail(planned.refusal);
      return;
    }
    try {
      await client.create(persistentVolumes, planned.volume);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      return;
    }
    const message = `Successfully provisioned volume ${nameOf(planned.volume)}`;
    say(claim, "Normal", "ProvisioningSucceeded", message);
  }

  /** The scheduler chooses again. */
  async function giveNodeBack(claim: PersistentVolumeClaim): Promise<void> {
    const { resourceVersion } = claim.metadata;
    const patch = { metadata: { resourceVersion, annotations: { [volumeAnnotations.selectedNode]: null } } };
    await client.patch(persistentVolumeClaims, { name: nameOf(claim), namespace: namespaceOf(claim) }, patch);
  }

  async function reclaim(name: string): Promise<void> {
    const volume = volumeStore.get(name);
    if (!volume || !isOurs(volume)) return;
    const isDelete = volume.spec.persistentVolumeReclaimPolicy === "Delete";
    const isOver = volume.status?.phase === "Released" || volume.status?.phase === "Failed";
    if (!isDeleting(volume)) {
      if (!isDelete || !isOver) return;
      await deleteIfThere(client, persistentVolumes, volume);
      return;
    }

    if (volume.status?.phase === "Bound") return;
    // The folder is its node's to remove; without node, or where it is to be kept, there is nothing to wait for.
    if (isDelete && nodeStore.get(volume.metadata.annotations?.[nodeAnnotation] ?? "")) return;
    await dropFinalizer(client, persistentVolumes, volume, volumeFinalizers.provisioner);
  }

  return createController(
    {
      name: "local-path-provisioner",
      firstKeys: [classKey],
      workers: 4,
      triggers: [
        on(claimStore, (claim, how) => (how === "delete" ? [] : [`${claimKey}${keyOf(claim)}`])),
        on(volumeStore, (volume, how) =>
          how === "delete" || !isOurs(volume) ? [] : [`${volumeKey}${nameOf(volume)}`],
        ),
        on(nodeStore, (_, how) =>
          how === "delete"
            ? volumeStore
                .list()
                .filter(isDeleting)
                .map((one) => `${volumeKey}${nameOf(one)}`)
            : [],
        ),
        waitFor(classStore),
      ],
      sync(key) {
        if (key === classKey) return ensureClass();
        return key.startsWith(claimKey) ? provision(key.slice(claimKey.length)) : reclaim(key.slice(volumeKey.length));
      },
    },
    deps,
  );
}
