// Folders behind the storage class local-path. The provisioner (controllers/volumes/local-path.ts) names them; this makes
// them at the first mount and removes them when their volume object is being deleted, after which the object may go.
// Only a folder that lies right below the storage folder and bears its volume's own name is ever made or removed, so that
// no volume object, whoever wrote it, can point this at something else.

import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Informer } from "#client/informer.ts";
import { WorkQueue, type WorkQueueOptions } from "#client/workqueue.ts";
import type { PersistentVolume } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { persistentVolumes } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import { localPathProvisioner, volumeAnnotations, volumeFinalizers } from "#model/volumes.ts";
import { makeFolder } from "#platform/files.ts";
import { changeMode, kindOf, linkTarget, removeTree } from "#platform/folders.ts";

const nodeAnnotation = "local.path.provisioner/selected-node";
const queueOptions: WorkQueueOptions = { name: "local-path-folders", minRetryMs: 1000, maxRetryMs: 300_000 };

/** The folder's name, where the volume is one of ours and its path is the one that it must have. */
export function localFolder(volume: PersistentVolume, storageFolder: string): string | undefined {
  if (volume.metadata.annotations?.[volumeAnnotations.provisionedBy] !== localPathProvisioner) return undefined;
  const { claimRef, hostPath, local } = volume.spec;
  const name = `${nameOf(volume)}_${claimRef?.namespace ?? ""}_${claimRef?.name ?? ""}`;
  const path = local?.path ?? hostPath?.path;
  return path === `${storageFolder}/${name}` && !name.includes("/") && /^pvc-[0-9a-f-]{36}$/.test(nameOf(volume))
    ? path
    : undefined;
}

export async function makeLocalFolder(storageFolder: string, path: string): Promise<void> {
  await makeFolder(storageFolder, 0o700);
  if ((await linkTarget(path)) !== undefined) throw new Error(`${path} is a symbolic link`);
  // What its users have made of its mode later is theirs.
  if ((await kindOf(path)) !== undefined) return;
  await makeFolder(path, 0o777);
  // Whatever the umask: pods of any user may write.
  await changeMode(path, 0o777);
}

export interface LocalFoldersDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly log: Logger;
  readonly events: EventSink;
  readonly volumes: Informer<PersistentVolume>;
  /** Is it still mounted into a pod of this node? */
  readonly isInUse: (volumeName: string) => boolean;
}

/** Removes the folders of volumes that are being deleted, until the signal. */
export async function removeLocalFolders(
  options: { readonly nodeName: string; readonly storageFolder: string },
  deps: LocalFoldersDeps,
  signal: AbortSignal,
): Promise<void> {
  const { client, events, log, volumes } = deps;
  const queue = new WorkQueue(queueOptions, deps);
  const isDue = (volume: PersistentVolume): boolean =>
    isDeleting(volume) &&
    volume.metadata.annotations?.[nodeAnnotation] === options.nodeName &&
    volume.spec.persistentVolumeReclaimPolicy === "Delete" &&
    volume.status?.phase !== "Bound" &&
    (volume.metadata.finalizers ?? []).includes(volumeFinalizers.provisioner);
  const mark = (volume: PersistentVolume) => {
    if (isDue(volume)) queue.add(nameOf(volume));
  };
  const stop = volumes.addHandler({ add: mark, update: mark });

  const removeOne = async (name: string): Promise<void> => {
    const volume = volumes.get(name);
    if (!volume || !isDue(volume)) {
      queue.forget(name);
      return;
    }
    if (deps.isInUse(name)) {
      queue.retry(name);
      return;
    }
    try {
      const path = localFolder(volume, options.storageFolder);
      if (path === undefined) throw new Error("its path is not one of this node's storage folder");
      await removeTree(path);
      const finalizers = volume.metadata.finalizers?.filter((one) => one !== volumeFinalizers.provisioner) ?? [];
      const { resourceVersion } = volume.metadata;
      await client.patch(
        persistentVolumes,
        { name },
        { metadata: { uid: uidOf(volume), resourceVersion, finalizers } },
      );
      log.info("removed the folder of a local volume", { path });
      queue.forget(name);
    } catch (error) {
      if (isNotFound(error)) {
        queue.forget(name);
        return;
      }
      if (!isConflict(error)) {
        const message = `cannot remove the folder of volume ${name}: ${messageOf(error)}`;
        const resource = persistentVolumes as ResourceInfo;
        events.record({ resource, object: volume, type: "Warning", reason: "VolumeFailedDelete", message });
      }
      queue.retry(name);
    }
  };
  try {
    await queue.run({ workers: 1 }, removeOne, signal);
  } finally {
    stop();
  }
}
