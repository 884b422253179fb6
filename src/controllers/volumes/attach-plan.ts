// Which CSI volumes have to be attached to which nodes, and which no longer. Pure; attacher.ts does it.
// A volume stays attached as long as its node says that it uses it, unless the node is gone, out of service, or silent for
// six minutes. Attachments that somebody made by hand are left alone: only those under the computed name are ours.
// Upstream counterpart: pkg/controller/volume/attachdetach.

import { attachmentName } from "#client/attachment-name.ts";
import type { Node, PersistentVolume, Pod } from "#model/gen/core-v1.ts";
import type { VolumeAttachment } from "#model/gen/storage-v1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { uniqueVolumeName } from "#model/volumes.ts";

/** maxWaitForUnmountDuration. */
export const forceDetachMs = 6 * 60_000;
const outOfService = "node.kubernetes.io/out-of-service";
const ourNames = /^csi-[0-9a-f]{64}$/;

export interface Wish {
  readonly name: string;
  readonly volume: PersistentVolume;
  readonly node: string;
  readonly pods: readonly Pod[];
}

export interface AttachInput {
  /** Pods with a node, and the attachable volumes of each. */
  readonly uses: Iterable<{ readonly pod: Pod; readonly volumes: readonly PersistentVolume[] }>;
  readonly attachments: readonly VolumeAttachment[];
  readonly node: (name: string) => Node | undefined;
  readonly volume: (name: string) => PersistentVolume | undefined;
  /** Since when nobody has wanted the attachment. */
  readonly unwantedSinceMs: (name: string) => number | undefined;
  readonly nowMs: number;
}

export interface AttachPlan {
  readonly attach: readonly Wish[];
  /** Attached elsewhere, and can be on one node only. */
  readonly blocked: readonly (Wish & { readonly other: string; readonly users: readonly Pod[] })[];
  readonly detach: readonly VolumeAttachment[];
  /** Of `detach`: those that their node still uses, and why they go all the same. */
  readonly forced: ReadonlyMap<VolumeAttachment, "timeout" | "out-of-service">;
  /** Wanted and there, attached or not. */
  readonly present: readonly (Wish & { readonly attachment: VolumeAttachment })[];
  /** Unwanted, but their node still uses them. */
  readonly held: readonly VolumeAttachment[];
}

export function planAttachments(input: AttachInput): AttachPlan {
  const wishes = new Map<string, { name: string; volume: PersistentVolume; node: string; pods: Pod[] }>();
  for (const { pod, volumes } of input.uses) {
    const node = pod.spec.nodeName ?? "";
    for (const volume of volumes) {
      const { driver, volumeHandle } = volume.spec.csi!;
      const name = attachmentName(volumeHandle, driver, node);
      const wish = wishes.get(name) ?? { name, volume, node, pods: [] };
      wish.pods.push(pod);
      wishes.set(name, wish);
    }
  }
  const byName = new Map(input.attachments.map((one) => [nameOf(one), one]));
  const attach: Wish[] = [];
  const blocked: (Wish & { other: string; users: readonly Pod[] })[] = [];
  const present: (Wish & { attachment: VolumeAttachment })[] = [];
  const promised = new Map<string, string>();
  for (const one of input.attachments) {
    const { persistentVolumeName } = one.spec.source;
    if (persistentVolumeName) promised.set(persistentVolumeName, one.spec.nodeName);
  }
  for (const wish of wishes.values()) {
    const attachment = byName.get(wish.name);
    if (attachment) {
      present.push({ ...wish, attachment });
      continue;
    }
    const other = isForOneNode(wish.volume) ? promised.get(nameOf(wish.volume)) : undefined;
    if (other !== undefined && other !== wish.node) {
      const rival = [...wishes.values()].find(
        ({ node, volume }) => node === other && nameOf(volume) === nameOf(wish.volume),
      );
      blocked.push({ ...wish, other, users: rival?.pods ?? [] });
    } else {
      attach.push(wish);
      promised.set(nameOf(wish.volume), wish.node);
    }
  }
  const detach: VolumeAttachment[] = [];
  const held: VolumeAttachment[] = [];
  const forced = new Map<VolumeAttachment, "timeout" | "out-of-service">();
  for (const one of input.attachments) {
    if (wishes.has(nameOf(one)) || isDeleting(one) || !isOurs(one, input)) continue;
    const use = useOf(one, input);
    if (use === "held") {
      held.push(one);
      continue;
    }
    if (use !== "none") forced.set(one, use);
    detach.push(one);
  }
  return { attach, blocked, detach, forced, present, held };
}

const isForOneNode = (volume: PersistentVolume): boolean =>
  !(volume.spec.accessModes ?? []).some((mode) => mode === "ReadWriteMany" || mode === "ReadOnlyMany");

function isOurs(one: VolumeAttachment, input: AttachInput): boolean {
  if (!ourNames.test(nameOf(one))) return false;
  const csi = input.volume(one.spec.source.persistentVolumeName ?? "")?.spec.csi;
  return !csi || nameOf(one) === attachmentName(csi.volumeHandle, csi.driver, one.spec.nodeName);
}

/** Whether the node says that it uses it; `held`: and is to be believed. */
function useOf(one: VolumeAttachment, input: AttachInput): "none" | "held" | "timeout" | "out-of-service" {
  const node = input.node(one.spec.nodeName);
  const csi = input.volume(one.spec.source.persistentVolumeName ?? "")?.spec.csi;
  if (!node || !csi) return "none";
  if (!node.status?.volumesInUse?.includes(uniqueVolumeName(csi.driver, csi.volumeHandle))) return "none";
  if (node.spec.taints?.some((taint) => taint.key === outOfService)) return "out-of-service";
  const isReady = node.status.conditions?.some((c) => c.type === "Ready" && c.status === "True") ?? false;
  const sinceMs = input.unwantedSinceMs(nameOf(one)) ?? input.nowMs;
  return isReady || input.nowMs - sinceMs < forceDetachMs ? "held" : "timeout";
}

/** Node.status.volumesAttached by node: what is attached there, in the order of names. */
export function attachedByNode(
  attachments: readonly VolumeAttachment[],
  volume: AttachInput["volume"],
): Map<string, { readonly name: string; readonly devicePath: string }[]> {
  const found = new Map<string, { name: string; devicePath: string }[]>();
  for (const { spec, status } of attachments) {
    const csi = volume(spec.source.persistentVolumeName ?? "")?.spec.csi;
    if (!status?.attached || !csi) continue;
    const list = found.get(spec.nodeName) ?? [];
    list.push({ name: uniqueVolumeName(csi.driver, csi.volumeHandle), devicePath: "" });
    found.set(spec.nodeName, list);
  }
  for (const list of found.values()) list.sort((a, b) => (a.name < b.name ? -1 : 1));
  return found;
}
