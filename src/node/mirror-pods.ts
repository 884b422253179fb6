// The API's copies of static pods: what marks them and how they are made. Counterpart: the kubelet's mirror pod client.
import type { Pod } from "#model/gen/core-v1.ts";

export const annotations = {
  hash: "kubernetes.io/config.hash",
  mirror: "kubernetes.io/config.mirror",
  seen: "kubernetes.io/config.seen",
  source: "kubernetes.io/config.source",
} as const;

export const isMirrorPod = (pod: Pod): boolean => pod.metadata.annotations?.[annotations.mirror] !== undefined;

/** The API's copy of a static pod. Pure. */
export function mirrorOf(pod: Pod, nodeUid: string): Pod {
  const { uid = "", ...metadata } = pod.metadata;
  const owner = { apiVersion: "v1", kind: "Node", name: pod.spec.nodeName ?? "", uid: nodeUid, controller: true };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      ...metadata,
      annotations: { ...metadata.annotations, [annotations.mirror]: uid },
      ownerReferences: [owner],
    },
    spec: pod.spec,
  };
}

export const isMirrorOf = (mirror: Pod, pod: Pod): boolean =>
  mirror.metadata.annotations?.[annotations.mirror] === pod.metadata.uid;
