// Attaches CSI volumes to the nodes of their pods and takes them off again: makes and deletes VolumeAttachments, which the
// driver's external-attacher carries out. The decisions are in attach-plan.ts. One key for everything: what has to be
// attached is found by looking at all pods with claims, and a cluster without attachable volumes is done at a glance.
// Upstream counterpart: persistentvolume-attach-detach-controller.
import type { Service } from "#base/service.ts";
import type { Node, PersistentVolume, Pod } from "#model/gen/core-v1.ts";
import type { VolumeAttachment } from "#model/gen/storage-v1.ts";
import { nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import {
  csiDrivers,
  nodes,
  persistentVolumeClaims,
  persistentVolumes,
  pods,
  volumeAttachments,
} from "#model/resources.ts";
import { isAlreadyExists, isNotFound } from "#model/status.ts";
import { claimNamesOf, isFullyBound } from "#model/volumes.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";
import { isPodFinished } from "../runtime/pods.ts";
import { deleteIfThere } from "../runtime/writes.ts";
import { type AttachPlan, attachedByNode, planAttachments } from "./attach-plan.ts";

const everything = "attachments";
const csiVolumes = "csi";
/** Volumes that a silent node holds are looked at again so often. */
const heldMs = 30_000;

export function createAttachDetach(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const events = deps.events.as("attachdetach-controller");
  const podStore = deps.informers.informer(pods);
  const claimStore = deps.informers.informer(persistentVolumeClaims);
  const volumeStore = deps.informers.informer(persistentVolumes);
  const attachmentStore = deps.informers.informer(volumeAttachments);
  const driverStore = deps.informers.informer(csiDrivers);
  const nodeStore = deps.informers.informer(nodes);
  volumeStore.addIndex(csiVolumes, ({ spec }) => (spec.csi ? [csiVolumes] : []));
  /** No more than there are attachments. */
  const unwanted = new Map<string, number>();
  /** Attachments whose success was told; no more than there are. */
  const told = new Set<string>();

  const forcedDetaches = deps.metrics.counter(
    "attach_detach_controller_attachdetach_controller_forced_detaches",
    "Volumes that were taken off a node although it says that it uses them.",
  );

  const say = (pod: Pod, type: "Normal" | "Warning", reason: string, message: string) =>
    events.record({ resource: pods as ResourceInfo, object: pod, type, reason, message });

  const isAttachable = (volume: PersistentVolume): boolean =>
    volume.spec.csi !== undefined && driverStore.get(volume.spec.csi.driver)?.spec.attachRequired !== false;

  function* uses(): Iterable<{ pod: Pod; volumes: PersistentVolume[] }> {
    for (const pod of podStore.list()) {
      if (!pod.spec.nodeName || isPodFinished(pod)) continue;
      const volumes = claimNamesOf(pod).flatMap((claimName) => {
        const claim = claimStore.get(`${namespaceOf(pod)}/${claimName}`);
        const volume = claim && isFullyBound(claim) ? volumeStore.get(claim.spec.volumeName ?? "") : undefined;
        return volume && isAttachable(volume) && volume.spec.claimRef?.uid === uidOf(claim!) ? [volume] : [];
      });
      if (volumes.length > 0) yield { pod, volumes };
    }
  }

  async function apply(plan: AttachPlan): Promise<void> {
    for (const { name, volume, node } of plan.attach) {
      const attachment: VolumeAttachment = {
        apiVersion: "storage.k8s.io/v1",
        kind: "VolumeAttachment",
        metadata: { name },
        spec: {
          attacher: volume.spec.csi!.driver,
          nodeName: node,
          source: { persistentVolumeName: nameOf(volume) },
        },
      };
      try {
        await client.create(volumeAttachments, attachment);
      } catch (error) {
        if (!isAlreadyExists(error)) throw error;
      }
    }
    for (const one of plan.detach) {
      const reason = plan.forced.get(one);
      if ((await deleteIfThere(client, volumeAttachments, one)) && reason) forcedDetaches.add(1, { reason });
    }
  }

  function tell(plan: AttachPlan): void {
    for (const { name, volume, pods: users, attachment } of plan.present) {
      const message = attachment.status?.attachError?.message;
      const key = `${name} ${message ?? ""}`;
      if ((!attachment.status?.attached && message === undefined) || told.has(key)) continue;
      told.add(key);
      const about = `for volume "${nameOf(volume)}"`;
      for (const pod of users) {
        if (attachment.status?.attached) {
          say(pod, "Normal", "SuccessfulAttachVolume", `AttachVolume.Attach succeeded ${about} `);
        } else say(pod, "Warning", "FailedAttachVolume", `AttachVolume.Attach failed ${about} : ${message}`);
      }
    }
    for (const { volume, pods: waiting, users } of plan.blocked) {
      // A claim is of one namespace, and so are the pods that share it: their names may be told.
      const why =
        users.length > 0
          ? `Volume is already used by pod(s) ${users.map(nameOf).join(", ")}`
          : "Volume is already exclusively attached to one node and can't be attached to another";
      const message = `Multi-Attach error for volume "${nameOf(volume)}" ${why}`;
      for (const pod of waiting) say(pod, "Warning", "FailedAttachVolume", message);
    }
    const present = new Set(plan.present.map(({ name }) => name));
    for (const key of told) if (!present.has(key.split(" ")[0] ?? "")) told.delete(key);
  }

  async function tellNodes(attachments: readonly VolumeAttachment[]): Promise<void> {
    const attached = attachedByNode(attachments, (name) => volumeStore.get(name));
    for (const node of nodeStore.list()) {
      const wanted = attached.get(nameOf(node)) ?? [];
      if (isEqual(wanted, node.status?.volumesAttached ?? [])) continue;
      try {
        const patch = { status: { volumesAttached: wanted.length > 0 ? wanted : null } };
        await client.patch(nodes, { name: nameOf(node) }, patch, { subresource: "status" });
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    }
  }

  const one = () => [everything];
  const ofPod = (pod: Pod) => (claimNamesOf(pod).length > 0 ? one() : []);
  let inUse = new Map<string, string>();
  const ofNode = (node: Node, how: string): string[] => {
    const before = inUse.get(nameOf(node)) ?? "[]";
    const now = JSON.stringify(node.status?.volumesInUse ?? []);
    if (how === "delete") inUse.delete(nameOf(node));
    else if (now !== "[]") inUse.set(nameOf(node), now);
    else inUse.delete(nameOf(node));
    return how === "delete" || now !== before ? one() : [];
  };

  return createController(
    {
      name: "persistentvolume-attach-detach-controller",
      workers: 1,
      // Or a volume that is in use again would be taken from its node without the wait.
      begin: () => unwanted.clear(),
      triggers: [
        on(podStore, ofPod),
        on(claimStore, (claim) => (isFullyBound(claim) ? one() : [])),
        on(volumeStore, (volume) => (volume.spec.csi ? one() : [])),
        on(attachmentStore, one),
        on(driverStore, one),
        on(nodeStore, ofNode),
      ],
      async sync(_key, again) {
        const attachments = attachmentStore.list();
        if (attachments.length === 0 && volumeStore.byIndex(csiVolumes, csiVolumes).length === 0) {
          inUse = new Map();
          return;
        }
        const nowMs = clock.monotonicMs();
        const plan = planAttachments({
          uses: uses(),
          attachments,
          node: (name) => nodeStore.get(name),
          volume: (name) => volumeStore.get(name),
          unwantedSinceMs: (name) => unwanted.get(name),
          nowMs,
        });
        const held = new Set(plan.held.map(nameOf));
        for (const name of unwanted.keys()) if (!held.has(name)) unwanted.delete(name);
        for (const name of held) if (!unwanted.has(name)) unwanted.set(name, nowMs);
        tell(plan);
        await apply(plan);
        await tellNodes(attachments);
        if (plan.held.length > 0 || plan.blocked.length > 0) again(heldMs);
      },
    },
    deps,
  );
}
