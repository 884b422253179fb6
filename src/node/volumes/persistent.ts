// Volumes that outlive their pod, and inline CSI volumes: finds the volume behind a claim, brings it to the pod, and takes
// it away when the pod is gone. What was begun for a pod is written down before it is begun, in the pod's folder, so that
// whichever run of the agent comes to take it away knows everything it needs, with or without the API.
//
//   claim ─▶ bound? ─▶ volume ─▶ hostPath: as it is   local: folder, or device to be mounted   csi: csi/mounter.ts
//
// Counterpart: the kubelet's desired state of world populator, operation executor and reconstruction.
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Node, PersistentVolume, PersistentVolumeClaim, Pod, Volume } from "#model/gen/core-v1.ts";
import { matchesNodeSelector } from "#model/node-selector.ts";
import { isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { nodes, persistentVolumeClaims, persistentVolumes, pods } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { claimNameOf, isFullyBound, isOwnedByPod, uniqueVolumeName } from "#model/volumes.ts";
import { listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import { kindOf, removeEmptyFolder, removeFile, writePlainFile } from "#platform/folders.ts";
import { giveToGroup } from "#platform/ownership.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { type CsiMounter, type CsiPlace, type CsiVolume, inlineHandle } from "./csi/mounter.ts";
import { localFolder, makeLocalFolder } from "./local-path.ts";
import { isMounted, unmountAll } from "./mount-points.ts";
import { VolumeError } from "./volume-error.ts";

export interface PersistentVolumesOptions {
  readonly nodeName: string;
  /** `<data>/agent/pods` */
  readonly podsFolder: string;
  /** Where the storage class local-path keeps its volumes. */
  readonly storageFolder: string;
}

export interface PersistentVolumesDeps {
  readonly client: Client;
  readonly commands: Commands;
  readonly events: EventSink;
  readonly csi: CsiMounter;
  /** Makes or checks a path of the host. */
  readonly ensureHostPath: (path: string, type: string) => Promise<string>;
  /** What is in use has changed: Node.status.volumesInUse. */
  readonly changed: () => void;
}

/** Written down per volume of a pod. */
interface Entry {
  readonly volume: string;
  /** The PersistentVolume, or the pod's own volume where it is inline. */
  readonly specName: string;
  /** What the container is given. */
  readonly path: string;
  /** Everything was done once: a later look changes no owners. */
  readonly isReady: boolean;
  readonly csi?: CsiPlace;
}

interface Found {
  readonly persistent: PersistentVolume;
  readonly claim: PersistentVolumeClaim;
}

const entriesFolder = "storage";

export class PersistentVolumes {
  readonly #options: PersistentVolumesOptions;
  readonly #deps: PersistentVolumesDeps;
  /** By pod uid, then by the pod's name of the volume. Bounded by the pods of this node. */
  readonly #entries = new Map<string, Map<string, Entry>>();
  /** Of the entries, those that this run of the agent has looked after itself. */
  readonly #brought = new Set<string>();
  /** One thing at a time per volume: two pods may share one. */
  readonly #locks = new Map<string, Promise<void>>();
  #node: Node | undefined;

  constructor(options: PersistentVolumesOptions, deps: PersistentVolumesDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Where the volume lies, once it is ready. */
  pathOf(podUid: string, volume: string): string | undefined {
    const entry = this.#entries.get(podUid)?.get(volume);
    return entry?.isReady ? entry.path : undefined;
  }

  /** Reads what earlier runs have written down. */
  async open(): Promise<void> {
    for (const pod of await listFolder(this.#options.podsFolder)) {
      if (!pod.isDirectory()) continue;
      const folder = `${this.#options.podsFolder}/${pod.name}/${entriesFolder}`;
      for (const file of await listFolder(folder)) {
        const text = (await readFileIfExists(`${folder}/${file.name}`))?.toString("utf8") ?? "";
        const entry = parseEntry(text);
        // Cut off by a crash while it was begun: the rest of it was never begun.
        if (entry) this.#remember(pod.name, entry);
      }
    }
  }

  isInUse(specName: string): boolean {
    for (const ofPod of this.#entries.values()) {
      for (const entry of ofPod.values()) if (entry.specName === specName) return true;
    }
    return false;
  }

  /** For Node.status.volumesInUse. */
  attachedInUse(): string[] {
    const names = new Set<string>();
    for (const ofPod of this.#entries.values()) {
      for (const { csi } of ofPod.values()) if (csi?.isAttached) names.add(uniqueVolumeName(csi.driver, csi.handle));
    }
    return [...names].sort();
  }

  /** The host path of the volume, for volumes of a claim, ephemeral and inline CSI volumes; undefined for others. */
  async ensure(pod: Pod, volume: Volume): Promise<string | undefined> {
    if (volume.csi) return this.#inline(pod, volume);
    const claimName = claimNameOf(pod, volume);
    if (claimName === undefined) return undefined;
    let found: Found;
    try {
      found = await this.#find(pod, volume, claimName);
    } catch (error) {
      const entry = this.#entries.get(uidOf(pod))?.get(volume.name);
      // What was set up once stays while the API is away, or when its objects are being taken apart.
      if (entry?.isReady && (await this.#isThere(uidOf(pod), entry))) return entry.path;
      throw error;
    }
    const path = await this.#locked(nameOf(found.persistent), () => this.#bring(pod, volume, found));
    this.#brought.add(`${uidOf(pod)}/${volume.name}`);
    return path;
  }

  /** Takes everything of a pod away; fails where something stays, and may be called again. */
  async release(podUid: string): Promise<void> {
    for (const entry of [...(this.#entries.get(podUid)?.values() ?? [])]) {
      await this.#locked(entry.specName, () => this.#takeAway(podUid, entry));
    }
  }

  async #find(pod: Pod, volume: Volume, claimName: string): Promise<Found> {
    const { client } = this.#deps;
    const fail = (why: string) =>
      new VolumeError(
        `Unable to attach or mount volumes: unmounted volumes=[${volume.name}], unattached volumes=[], failed to process volumes=[${volume.name}]: ${why}`,
      );
    const namespace = namespaceOf(pod);
    const about = `error processing PVC ${namespace}/${claimName}`;
    let claim: PersistentVolumeClaim;
    try {
      claim = await client.get(persistentVolumeClaims, claimName, namespace);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      throw fail(`${about}: failed to fetch PVC from API server: persistentvolumeclaims "${claimName}" not found`);
    }
    if (volume.ephemeral && !isOwnedByPod(claim, pod)) {
      throw fail(
        `PVC ${namespace}/${claimName} was not created for pod ${namespace}/${nameOf(pod)} (pod is not owner)`,
      );
    }
    // The phase follows a moment after the binding itself.
    if (!isFullyBound(claim) || claim.status?.phase === "Lost") throw fail(`${about}: PVC is not bound`);
    const isHeld = this.#entries.get(uidOf(pod))?.has(volume.name) ?? false;
    if (isDeleting(claim) && !isHeld) throw fail(`${about}: PVC is being deleted`);
    let persistent: PersistentVolume;
    const name = claim.spec.volumeName ?? "";
    try {
      persistent = await client.get(persistentVolumes, name);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      throw fail(`${about}: failed to fetch PV "${name}" from API server: persistentvolumes "${name}" not found`);
    }
    if (persistent.spec.claimRef?.uid !== uidOf(claim)) {
      throw fail(
        `${about}: PV ${name} spec.ClaimRef.UID ${persistent.spec.claimRef?.uid ?? ""} does not match pvc.UID ${uidOf(claim)}`,
      );
    }
    return { persistent, claim };
  }

  async #bring(pod: Pod, volume: Volume, { persistent, claim }: Found): Promise<string> {
    const name = nameOf(persistent);
    const fail = (why: string) => new VolumeError(`MountVolume.SetUp failed for volume "${name}" : ${why}`);
    const { spec } = persistent;
    const isBlock = spec.volumeMode === "Block";
    const readOnly = volume.persistentVolumeClaim?.readOnly === true;
    if (spec.nodeAffinity?.required && !(await this.#isHere(persistent))) {
      throw new VolumeError(
        `MountVolume.NodeAffinity check failed for volume "${name}" : no matching NodeSelectorTerms`,
      );
    }
    if (spec.csi) {
      const csi: CsiVolume = {
        specName: name,
        source: spec.csi,
        isInline: false,
        isBlock,
        readOnly: readOnly || spec.csi.readOnly === true,
        accessModes: spec.accessModes ?? [],
        mountOptions: spec.mountOptions ?? [],
      };
      return this.#bringCsi(pod, volume, csi, { persistent, claim });
    }
    const uid = uidOf(pod);
    const before = this.#entries.get(uid)?.get(volume.name);
    const own = localFolder(persistent, this.#options.storageFolder);
    if (own !== undefined) await makeLocalFolder(this.#options.storageFolder, own);
    if (spec.hostPath) {
      if (isBlock) await this.#mustBeDevice(spec.hostPath.path, fail);
      else
        await this.#deps.ensureHostPath(
          spec.hostPath.path,
          own === undefined ? (spec.hostPath.type ?? "") : "Directory",
        );
      await this.#write(uid, { volume: volume.name, specName: name, path: spec.hostPath.path, isReady: true });
      return spec.hostPath.path;
    }
    if (!spec.local) throw fail("this kind of volume is not supported");
    const kind = await kindOf(spec.local.path);
    if (kind === undefined) throw fail(`path "${spec.local.path}" does not exist`);
    if (isBlock) {
      await this.#mustBeDevice(spec.local.path, fail);
      await this.#write(uid, { volume: volume.name, specName: name, path: spec.local.path, isReady: true });
      return spec.local.path;
    }
    let path = spec.local.path;
    const isDevice = kind === "block-device";
    if (isDevice) path = `${this.#podFolder(uid)}/volumes/kubernetes.io~local-volume/${name}`;
    if (before?.isReady && before.path === path && (!isDevice || (await isMounted(path)))) return path;
    const entry: Entry = { volume: volume.name, specName: name, path, isReady: false };
    await this.#write(uid, entry);
    if (isDevice) await this.#mountDevice(spec.local.path, path, spec.local.fsType ?? "ext4", persistent, readOnly);
    const group = pod.spec.securityContext?.fsGroup;
    if (group !== undefined && !readOnly) await this.#own(pod, path, group);
    await this.#write(uid, { ...entry, isReady: true });
    return path;
  }

  async #inline(pod: Pod, volume: Volume): Promise<string> {
    const { driver, fsType, volumeAttributes, nodePublishSecretRef, readOnly } = volume.csi!;
    const csi: CsiVolume = {
      specName: volume.name,
      source: {
        driver,
        volumeHandle: inlineHandle(uidOf(pod), volume.name),
        ...(fsType ? { fsType } : {}),
        ...(volumeAttributes ? { volumeAttributes } : {}),
        ...(nodePublishSecretRef ? { nodePublishSecretRef } : {}),
      },
      isInline: true,
      isBlock: false,
      readOnly: readOnly === true,
      accessModes: ["ReadWriteOnce"],
      mountOptions: [],
    };
    return this.#locked(csi.source.volumeHandle, () => this.#bringCsi(pod, volume, csi, undefined));
  }

  async #bringCsi(pod: Pod, volume: Volume, csi: CsiVolume, found: Found | undefined): Promise<string> {
    const mounter = this.#deps.csi;
    const uid = uidOf(pod);
    const object = await mounter.driverObject(csi.source.driver);
    const place = mounter.place(pod, csi, object);
    const before = this.#entries.get(uid)?.get(volume.name);
    const entry: Entry = {
      volume: volume.name,
      specName: csi.specName,
      path: place.target,
      isReady: before?.isReady ?? false,
      csi: place,
    };
    // Before the attachment is looked for: from now on the node uses the volume, and it must not be detached.
    if (!before) await this.#write(uid, entry);
    const isNew = await mounter.mount(pod, csi, place, object);
    if (found && (await mounter.expand(csi, place, found.persistent, found.claim))) {
      const message = `MountVolume.NodeExpandVolume succeeded for volume "${csi.specName}" ${this.#options.nodeName}`;
      const event = { type: "Normal", reason: "FileSystemResizeSuccessful", message } as const;
      this.#deps.events.record({ resource: pods as ResourceInfo, object: pod, ...event });
      this.#deps.events.record({ resource: persistentVolumeClaims as ResourceInfo, object: found.claim, ...event });
    }
    if (isNew && !entry.isReady) {
      const group = await mounter.groupOf(pod, csi, object);
      if (group !== undefined) await this.#own(pod, place.target, group);
      await this.#write(uid, { ...entry, isReady: true });
    }
    return place.target;
  }

  async #own(pod: Pod, path: string, gid: number): Promise<void> {
    const onlyWhenTopDiffers = pod.spec.securityContext?.fsGroupChangePolicy === "OnRootMismatch";
    await giveToGroup(path, { gid, readOnly: false, onlyWhenTopDiffers });
  }

  async #mustBeDevice(path: string, fail: (why: string) => VolumeError): Promise<void> {
    if ((await kindOf(path)) !== "block-device") throw fail(`${path} is not a block device`);
  }

  /** A device is given a file system where it has nothing on it at all. */
  async #mountDevice(
    device: string,
    path: string,
    fsType: string,
    persistent: PersistentVolume,
    readOnly: boolean,
  ): Promise<void> {
    const { commands } = this.#deps;
    await makeFolder(path, 0o750);
    if (await isMounted(path)) return;
    // Exit code 2: no signature of any kind was found.
    const probe = await commands.run("blkid", ["-p", "-u", "filesystem,raid,crypto,other", device]);
    if (probe.code === 2 && !readOnly) {
      const quiet = fsType.startsWith("ext") ? ["-F", "-m0"] : [];
      await runChecked(commands, `mkfs.${fsType}`, [...quiet, device], { timeoutMs: 10 * 60_000 });
    }
    const options = [readOnly ? "ro" : "rw", ...(persistent.spec.mountOptions ?? [])].join(",");
    await runChecked(commands, "mount", ["-t", fsType, "-o", options, "--", device, path]);
  }

  async #takeAway(podUid: string, entry: Entry): Promise<void> {
    const { csi } = this.#deps;
    if (entry.csi) {
      await csi.unpublish(entry.csi);
      if (entry.csi.staging !== "" && !this.#isShared(podUid, entry)) await csi.unstage(entry.csi);
    } else if (entry.path.startsWith(`${this.#podFolder(podUid)}/`)) {
      await unmountAll(entry.path, this.#deps.commands);
      await removeEmptyFolder(entry.path);
    }
    await removeFile(`${this.#podFolder(podUid)}/${entriesFolder}/${entry.volume}`);
    this.#brought.delete(`${podUid}/${entry.volume}`);
    const ofPod = this.#entries.get(podUid);
    ofPod?.delete(entry.volume);
    if (ofPod?.size === 0) {
      this.#entries.delete(podUid);
      await removeEmptyFolder(`${this.#podFolder(podUid)}/${entriesFolder}`);
    }
    if (entry.csi?.isAttached) this.#deps.changed();
  }

  #isShared(podUid: string, entry: Entry): boolean {
    for (const [uid, ofPod] of this.#entries) {
      for (const other of ofPod.values()) {
        const isSelf = uid === podUid && other.volume === entry.volume;
        if (!isSelf && other.csi?.driver === entry.csi?.driver && other.csi?.handle === entry.csi?.handle) return true;
      }
    }
    return false;
  }

  /** May the volume be used on this node? Labels are asked for anew when the ones known do not fit. */
  async #isHere(persistent: PersistentVolume): Promise<boolean> {
    const required = persistent.spec.nodeAffinity?.required;
    if (!required) return true;
    const fits = (node: Node | undefined) =>
      node !== undefined && matchesNodeSelector(required, { name: nameOf(node), labels: node.metadata.labels ?? {} });
    if (fits(this.#node)) return true;
    this.#node = await this.#deps.client.get(nodes, this.#options.nodeName);
    return fits(this.#node);
  }

  /** After a reboot the folder is there and what belongs on it is not. */
  async #isThere(podUid: string, entry: Entry): Promise<boolean> {
    const isMount = entry.csi !== undefined || entry.path.startsWith(`${this.#podFolder(podUid)}/`);
    return !isMount || this.#brought.has(`${podUid}/${entry.volume}`) || (await isMounted(entry.path));
  }

  #podFolder(podUid: string): string {
    return `${this.#options.podsFolder}/${podUid}`;
  }

  #remember(podUid: string, entry: Entry): void {
    const ofPod = this.#entries.get(podUid) ?? new Map<string, Entry>();
    ofPod.set(entry.volume, entry);
    this.#entries.set(podUid, ofPod);
  }

  async #write(podUid: string, entry: Entry): Promise<void> {
    const before = this.#entries.get(podUid)?.get(entry.volume);
    if (before && JSON.stringify(before) === JSON.stringify(entry)) return;
    const folder = `${this.#podFolder(podUid)}/${entriesFolder}`;
    await makeFolder(folder, 0o750);
    await writePlainFile(`${folder}/${entry.volume}`, JSON.stringify(entry), 0o600);
    this.#remember(podUid, entry);
    if (entry.csi?.isAttached && !before) this.#deps.changed();
  }

  async #locked<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#locks.get(name) ?? Promise.resolve();
    const mine = before.then(work);
    const over = mine.then(
      () => {},
      () => {},
    );
    this.#locks.set(name, over);
    try {
      return await mine;
    } finally {
      if (this.#locks.get(name) === over) this.#locks.delete(name);
    }
  }
}

function parseEntry(text: string): Entry | undefined {
  try {
    const value = JSON.parse(text) as Partial<Entry> | null;
    return typeof value?.volume === "string" && typeof value.specName === "string" ? (value as Entry) : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
