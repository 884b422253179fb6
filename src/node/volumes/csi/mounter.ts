// Brings a CSI volume to a pod and takes it away again: wait for its attachment, stage it once on the node, publish it for
// the pod, give it to the pod's group, grow its file system. Every call may be repeated: drivers must bear that, and after
// a restart of the agent it is how things are found out. Which calls are made is by the driver's capabilities and its
// CSIDriver object. Counterpart: the kubelet's csi plugin (csi_mounter, csi_attacher, csi_block, expander).
import { createHash } from "node:crypto";
import type { Clock } from "#base/clock.ts";
import { attachmentName } from "#client/attachment-name.ts";
import type { Client } from "#client/client.ts";
import type { CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import type { CSIDriver } from "#model/gen/storage-v1.ts";
import { nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { compareQuantities, parseQuantity } from "#model/quantity.ts";
import { csiDrivers, persistentVolumeClaims, secrets, volumeAttachments } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { makeFolder } from "#platform/files.ts";
import { removeEmptyFolder, removeFile } from "#platform/folders.ts";
import { type NodePublishVolumeRequest, type VolumeCapability, VolumeCapabilityAccessModeMode } from "#wire/gen/csi.ts";
import type { WireInput } from "#wire/protobuf.ts";
import type { PodTokens } from "../tokens.ts";
import { VolumeError } from "../volume-error.ts";
import { type CsiDriverClient, csiErrorText } from "./driver.ts";

export interface CsiVolume {
  /** Name of the PersistentVolume, or of the pod's volume where it is inline. */
  readonly specName: string;
  readonly source: CSIPersistentVolumeSource;
  readonly isInline: boolean;
  readonly isBlock: boolean;
  readonly readOnly: boolean;
  readonly accessModes: readonly string[];
  readonly mountOptions: readonly string[];
}

/** What is needed to take a volume away, kept on disk as long as it is there. */
export interface CsiPlace {
  readonly driver: string;
  readonly handle: string;
  /** Where the pod's view of it lies. */
  readonly target: string;
  /** Empty for inline volumes, which are their pod's alone. */
  readonly staging: string;
  readonly isBlock: boolean;
  /** Shown in Node.status.volumesInUse until unstaged. */
  readonly isAttached: boolean;
}

export interface CsiMounterOptions {
  readonly nodeName: string;
  /** /var/lib/kubelet: drivers' manifests name it. */
  readonly kubeletFolder: string;
  /** How long a pod waits for its volume to be attached before it says so and comes back later. */
  readonly attachWaitMs: number;
}

export interface CsiMounterDeps {
  readonly client: Client;
  readonly tokens: PodTokens;
  readonly clock: Clock;
  readonly driver: (name: string) => CsiDriverClient | undefined;
}

const attachPollMs = 500;

const hex = (text: string): string => createHash("sha256").update(text).digest("hex");

/** The handle of an inline volume: as upstream makes it. */
export const inlineHandle = (podUid: string, volume: string): string => `csi-${hex(`${podUid}${volume}`)}`;

/** A driver that does not tell one writer from many on a node knows only the older of the two names. */
const accessModes = VolumeCapabilityAccessModeMode;
const accessModeNumbers: Readonly<Record<string, { readonly plain: number; readonly counted: number }>> = {
  ReadWriteOnce: { plain: accessModes.SINGLE_NODE_WRITER, counted: accessModes.SINGLE_NODE_MULTI_WRITER },
  ReadWriteOncePod: { plain: accessModes.SINGLE_NODE_WRITER, counted: accessModes.SINGLE_NODE_SINGLE_WRITER },
  ReadOnlyMany: { plain: accessModes.MULTI_NODE_READER_ONLY, counted: accessModes.MULTI_NODE_READER_ONLY },
  ReadWriteMany: { plain: accessModes.MULTI_NODE_MULTI_WRITER, counted: accessModes.MULTI_NODE_MULTI_WRITER },
};

export class CsiMounter {
  readonly #options: CsiMounterOptions;
  readonly #deps: CsiMounterDeps;
  /** Staged by this run of the agent: by staging path. */
  readonly #staged = new Set<string>();
  /** Published by this run of the agent: by target path. */
  readonly #published = new Set<string>();

  constructor(options: CsiMounterOptions, deps: CsiMounterDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Where it will lie. Upstream's paths: drivers and their tools know them. */
  place(pod: Pod, volume: CsiVolume, driver: CSIDriver | undefined): CsiPlace {
    const { kubeletFolder } = this.#options;
    const { driver: name, volumeHandle: handle } = volume.source;
    const plugin = `${kubeletFolder}/plugins/kubernetes.io/csi`;
    const podUid = uidOf(pod);
    return {
      driver: name,
      handle,
      isBlock: volume.isBlock,
      target: volume.isBlock
        ? `${plugin}/volumeDevices/publish/${volume.specName}/${podUid}`
        : `${kubeletFolder}/pods/${podUid}/volumes/kubernetes.io~csi/${volume.specName}/mount`,
      staging: stagingOf(volume, plugin),
      isAttached: !volume.isInline && driver?.spec.attachRequired !== false,
    };
  }

  async driverObject(name: string): Promise<CSIDriver | undefined> {
    try {
      return await this.#deps.client.get(csiDrivers, name);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** True where the volume is new to the pod in this run of the agent. */
  async mount(pod: Pod, volume: CsiVolume, place: CsiPlace, object: CSIDriver | undefined): Promise<boolean> {
    const driver = this.#driver(place.driver, volume.specName);
    if (volume.isInline && !(object?.spec.volumeLifecycleModes ?? []).includes("Ephemeral")) {
      throw this.#error(volume, `volume mode "Ephemeral" not supported by driver ${place.driver}`);
    }
    const isNew = !this.#published.has(place.target);
    if (!isNew && object?.spec.requiresRepublish !== true) return false;
    const publishContext = place.isAttached ? await this.#attachment(volume, place) : {};
    const volumeCapability = await this.#capability(pod, volume, driver);
    const request = {
      volumeId: place.handle,
      publishContext,
      volumeCapability,
      volumeContext: await this.#context(pod, volume, object),
    };
    const isStaging = place.staging !== "" && (await this.#asked(volume, () => driver.can("STAGE_UNSTAGE_VOLUME")));
    if (isStaging && !this.#staged.has(place.staging)) {
      await makeFolder(place.staging, 0o750);
      await this.#asked(volume, async () =>
        driver.call("Node/NodeStageVolume", {
          ...request,
          volumeContext: volume.source.volumeAttributes ?? {},
          stagingTargetPath: place.staging,
          secrets: await this.#secret(volume.source.nodeStageSecretRef),
        }),
      );
      this.#staged.add(place.staging);
    }
    const parent = place.target.slice(0, place.target.lastIndexOf("/"));
    await makeFolder(parent, 0o750);
    const reference = volume.source.nodePublishSecretRef;
    const publish: WireInput<NodePublishVolumeRequest> = {
      ...request,
      stagingTargetPath: isStaging ? place.staging : "",
      targetPath: place.target,
      readonly: volume.readOnly,
      secrets: await this.#secret(reference && { namespace: namespaceOf(pod), ...reference }),
    };
    await this.#asked(volume, () => driver.call("Node/NodePublishVolume", publish));
    this.#published.add(place.target);
    return isNew;
  }

  /** Takes the pod's view away. */
  async unpublish(place: CsiPlace): Promise<void> {
    await this.#driver(place.driver, place.handle).call("Node/NodeUnpublishVolume", {
      volumeId: place.handle,
      targetPath: place.target,
    });
    this.#published.delete(place.target);
    if (place.isBlock) await removeFile(place.target);
    else await removeEmptyFolder(place.target);
    await removeEmptyFolder(place.target.slice(0, place.target.lastIndexOf("/")));
  }

  /** Nobody on this node needs it any more. */
  async unstage(place: CsiPlace): Promise<void> {
    const driver = this.#driver(place.driver, place.handle);
    this.#staged.delete(place.staging);
    if (!(await driver.can("STAGE_UNSTAGE_VOLUME"))) return;
    const request = { volumeId: place.handle, stagingTargetPath: place.staging };
    await driver.call("Node/NodeUnstageVolume", request);
    await removeEmptyFolder(place.staging);
    await removeEmptyFolder(place.staging.slice(0, place.staging.lastIndexOf("/")));
  }

  /** Does its fsGroup mean anything to this volume, and who applies it? */
  async groupOf(pod: Pod, volume: CsiVolume, object: CSIDriver | undefined): Promise<number | undefined> {
    const group = pod.spec.securityContext?.fsGroup;
    if (group === undefined || volume.readOnly || volume.isBlock) return undefined;
    const policy = object?.spec.fsGroupPolicy ?? "ReadWriteOnceWithFSType";
    if (policy === "None") return undefined;
    if (policy !== "File") {
      const isAlone = volume.accessModes.some((mode) => mode === "ReadWriteOnce" || mode === "ReadWriteOncePod");
      if (!volume.source.fsType || !isAlone) return undefined;
    }
    const driver = this.#driver(volume.source.driver, volume.specName);
    return (await driver.can("VOLUME_MOUNT_GROUP")) ? undefined : group;
  }

  /** Grows the file system where the volume has become larger than the claim knows; true when it was done. */
  async expand(
    volume: CsiVolume,
    place: CsiPlace,
    persistent: PersistentVolume,
    claim: PersistentVolumeClaim,
  ): Promise<boolean> {
    const capacity = persistent.spec.capacity?.["storage"];
    const known = claim.status?.capacity?.["storage"];
    if (capacity === undefined || known === undefined || compareQuantities(capacity, known) <= 0) return false;
    const driver = this.#driver(place.driver, volume.specName);
    if (volume.readOnly) return false;
    if (await driver.can("EXPAND_VOLUME")) {
      await driver.call("Node/NodeExpandVolume", {
        volumeId: place.handle,
        volumePath: place.target,
        stagingTargetPath: place.staging,
        capacityRange: { requiredBytes: parseQuantity(capacity).value() },
        volumeCapability: capabilityOf(volume, undefined, await driver.can("SINGLE_NODE_MULTI_WRITER")),
        secrets: await this.#secret(volume.source.nodeExpandSecretRef),
      });
    }
    const conditions = (claim.status?.conditions ?? []).filter(
      ({ type }) => type !== "FileSystemResizePending" && type !== "Resizing",
    );
    const status = {
      capacity: { storage: capacity },
      conditions: conditions.length > 0 ? conditions : null,
      allocatedResourceStatuses: null,
    };
    const target = { name: nameOf(claim), namespace: namespaceOf(claim) };
    await this.#deps.client.patch(persistentVolumeClaims, target, { status }, { subresource: "status" });
    return true;
  }

  #driver(name: string, specName: string): CsiDriverClient {
    const driver = this.#deps.driver(name);
    if (driver) return driver;
    throw new VolumeError(
      `MountVolume.SetUp failed for volume "${specName}" : kubernetes.io/csi: driver name ${name} not found in the list of registered CSI drivers`,
    );
  }

  #error(volume: CsiVolume, text: string): VolumeError {
    return new VolumeError(`MountVolume.SetUp failed for volume "${volume.specName}" : ${text}`);
  }

  /** What the driver refuses is the pod's trouble, told in its events. */
  async #asked<T>(volume: CsiVolume, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw error instanceof VolumeError ? error : this.#error(volume, csiErrorText(error));
    }
  }

  /** What the attacher left for the node; fails until the volume is attached. */
  async #attachment(volume: CsiVolume, place: CsiPlace): Promise<Record<string, string>> {
    const { clock } = this.#deps;
    const untilMs = clock.monotonicMs() + this.#options.attachWaitMs;
    for (;;) {
      try {
        return await this.#attachmentNow(volume, place);
      } catch (error) {
        if (!(error instanceof VolumeError) || clock.monotonicMs() + attachPollMs > untilMs) throw error;
        await clock.sleep(attachPollMs);
      }
    }
  }

  async #attachmentNow(volume: CsiVolume, place: CsiPlace): Promise<Record<string, string>> {
    const name = attachmentName(place.handle, place.driver, this.#options.nodeName);
    try {
      const found = await this.#deps.client.get(volumeAttachments, name);
      if (found.metadata.deletionTimestamp) throw this.#error(volume, "volume attachment is being deleted");
      const message = found.status?.attachError?.message;
      if (found.status?.attached === true) return found.status.attachmentMetadata ?? {};
      throw this.#error(volume, message ? `attach failed: ${message}` : "volume is not attached yet");
    } catch (error) {
      if (isNotFound(error)) throw this.#error(volume, "volume is not attached yet");
      throw error;
    }
  }

  async #capability(pod: Pod, volume: CsiVolume, driver: CsiDriverClient): Promise<WireInput<VolumeCapability>> {
    const group = pod.spec.securityContext?.fsGroup;
    const isByDriver = group !== undefined && (await this.#asked(volume, () => driver.can("VOLUME_MOUNT_GROUP")));
    const countsWriters = await this.#asked(volume, () => driver.can("SINGLE_NODE_MULTI_WRITER"));
    return capabilityOf(volume, isByDriver ? group : undefined, countsWriters);
  }

  async #secret(
    reference: { readonly name?: string | undefined; readonly namespace?: string | undefined } | undefined,
  ): Promise<Record<string, string>> {
    if (!reference?.name) return {};
    const found = await this.#deps.client.get(secrets, reference.name, reference.namespace);
    return Object.fromEntries(
      Object.entries(found.data ?? {}).map(([key, base64]) => [key, Buffer.from(base64, "base64").toString("utf8")]),
    );
  }

  async #context(pod: Pod, volume: CsiVolume, object: CSIDriver | undefined): Promise<Record<string, string>> {
    const context: Record<string, string> = { ...volume.source.volumeAttributes };
    if (object?.spec.podInfoOnMount === true) {
      context["csi.storage.k8s.io/pod.name"] = nameOf(pod);
      context["csi.storage.k8s.io/pod.namespace"] = namespaceOf(pod);
      context["csi.storage.k8s.io/pod.uid"] = uidOf(pod);
      context["csi.storage.k8s.io/serviceAccount.name"] = pod.spec.serviceAccountName ?? "";
      context["csi.storage.k8s.io/ephemeral"] = String(volume.isInline);
    }
    const requests = object?.spec.tokenRequests ?? [];
    if (requests.length > 0) {
      const tokens: Record<string, unknown> = {};
      for (const { audience, expirationSeconds = 3600 } of requests) {
        tokens[audience] = await this.#deps.tokens.issue(pod, { audience, expirationSeconds });
      }
      context["csi.storage.k8s.io/serviceAccount.tokens"] = JSON.stringify(tokens);
    }
    return context;
  }
}

function stagingOf({ isBlock, isInline, source, specName }: CsiVolume, plugin: string): string {
  if (isInline) return "";
  return isBlock
    ? `${plugin}/volumeDevices/staging/${specName}`
    : `${plugin}/${source.driver}/${hex(source.volumeHandle)}/globalmount`;
}

function capabilityOf(
  volume: CsiVolume,
  group: number | undefined,
  countsWriters: boolean,
): WireInput<VolumeCapability> {
  const row = accessModeNumbers[volume.accessModes[0] ?? ""] ?? accessModeNumbers["ReadWriteOnce"]!;
  const accessMode = { mode: countsWriters ? row.counted : row.plain };
  if (volume.isBlock) return { block: {}, accessMode } as WireInput<VolumeCapability>;
  return {
    mount: {
      fsType: volume.source.fsType ?? "",
      mountFlags: [...volume.mountOptions],
      volumeMountGroup: group === undefined ? "" : String(group),
    },
    accessMode,
  } as WireInput<VolumeCapability>;
}
