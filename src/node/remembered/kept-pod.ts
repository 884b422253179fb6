// What of a pod is worth keeping: all it is made from, and of its status what this node alone knows: how far it has come and
// which containers have run. Addresses, conditions and probes are found out anew. Pure.

import { pathOf } from "#client/client.ts";
import type { ContainerState, ContainerStatus, Pod, PodSpec, PodStatus } from "#model/gen/core-v1.ts";
import { namespaceOf, uidOf } from "#model/object.ts";
import { configMaps, persistentVolumeClaims, runtimeClasses, secrets, services } from "#model/resources.ts";
import { claimNamesOf } from "#model/volumes.ts";

/** Of the last state, how it ended: restarts are judged and counted by it. */
function keptStatus(status: ContainerStatus): ContainerStatus {
  const { name, state, lastState, restartCount, image, imageID, containerID } = status;
  // Why it waits changes all the time, and is found out anew.
  const kept: ContainerState = state?.waiting ? { waiting: {} } : (state ?? {});
  return {
    ...{ name, state: kept, restartCount, image, imageID, ready: false },
    ...(lastState?.terminated ? { lastState: { terminated: lastState.terminated } } : {}),
    ...(containerID === undefined ? {} : { containerID }),
  };
}

/** `pod` with the status that this node has last worked out, whether or not the API has it. */
export function keptPod(pod: Pod): Pod {
  const { managedFields: _, resourceVersion: __, generation: ___, ...metadata } = pod.metadata;
  const { phase, reason, message, startTime, qosClass } = pod.status ?? {};
  const { containerStatuses = [], initContainerStatuses = [], ephemeralContainerStatuses = [] } = pod.status ?? {};
  const lists = { containerStatuses, initContainerStatuses, ephemeralContainerStatuses };
  const statuses = Object.entries(lists).filter(([, list]) => list.length > 0);
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata,
    spec: pod.spec,
    status: {
      ...(phase === undefined ? {} : { phase }),
      ...(reason === undefined ? {} : { reason }),
      ...(message === undefined ? {} : { message }),
      ...(startTime === undefined ? {} : { startTime }),
      ...(qosClass === undefined ? {} : { qosClass }),
      ...Object.fromEntries(statuses.map(([field, list]) => [field, list.map(keptStatus)])),
    },
  };
}

const statusesOf = (status: PodStatus): readonly ContainerStatus[] => [
  ...(status.initContainerStatuses ?? []),
  ...(status.containerStatuses ?? []),
  ...(status.ephemeralContainerStatuses ?? []),
];

/**
 * What must be on disk at once: another spec, another phase, a container that has run for the first time. That one has run
 * once more may be lost with the power.
 */
export const vitalFacts = ({ metadata, spec, status = {} }: Pod): string =>
  JSON.stringify([
    ...[metadata.labels, metadata.annotations, metadata.deletionTimestamp, spec, status.phase],
    statusesOf(status).map(({ name, state, restartCount }) => [
      name,
      Boolean(state?.running ?? state?.terminated) || restartCount > 0,
      // Of pods that run to an end, each end counts.
      spec.restartPolicy !== "Always" && state?.terminated !== undefined,
    ]),
  ]);

export const isFinal = ({ phase }: PodStatus): boolean => phase === "Succeeded" || phase === "Failed";
/** Whether anything of it has run. */
export const hasBegun = (status: PodStatus): boolean =>
  statusesOf(status).some(
    ({ state, restartCount }) => Boolean(state?.running ?? state?.terminated) || restartCount > 0,
  );
const restartsOf = (status: PodStatus): number => statusesOf(status).reduce((sum, s) => sum + s.restartCount, 0);
const hasRun = (status: PodStatus): number =>
  statusesOf(status).filter(({ state }) => state?.running !== undefined || state?.terminated !== undefined).length;

/** Whether this node knows more of the pod than the API does: it could not tell before it went down. */
export function isAhead(kept: PodStatus, known: PodStatus | undefined): boolean {
  if (!known || isFinal(known)) return !known;
  if (isFinal(kept)) return true;
  const [ours, theirs] = [restartsOf(kept), restartsOf(known)];
  return ours > theirs || (ours === theirs && hasRun(kept) > hasRun(known));
}

interface Named {
  readonly name?: string | undefined;
}

/** API paths of all that the pod is made of but volumes, which claims name. */
export function pathsOf(pod: Pod): Set<string> {
  const namespace = namespaceOf(pod);
  const paths = new Set<string>([
    pathOf(services, namespace),
    pathOf(services, "default", "kubernetes"),
    ...claimNamesOf(pod).map((name) => pathOf(persistentVolumeClaims, namespace, name)),
  ]);
  const map = (ref: Named | undefined) => ref?.name && paths.add(pathOf(configMaps, namespace, ref.name));
  const secret = (name: string | undefined) => name && paths.add(pathOf(secrets, namespace, name));
  const { spec } = pod;
  if (spec.runtimeClassName) paths.add(pathOf(runtimeClasses, undefined, spec.runtimeClassName));
  for (const { name } of spec.imagePullSecrets ?? []) secret(name);
  for (const volume of spec.volumes ?? []) {
    map(volume.configMap);
    secret(volume.secret?.secretName);
    secret(volume.csi?.nodePublishSecretRef?.name);
    for (const source of volume.projected?.sources ?? []) {
      map(source.configMap);
      secret(source.secret?.name);
    }
  }
  for (const { env = [], envFrom = [] } of containersOf(spec)) {
    for (const { configMapRef, secretRef } of envFrom) {
      map(configMapRef);
      secret(secretRef?.name);
    }
    for (const { valueFrom } of env) {
      map(valueFrom?.configMapKeyRef);
      secret(valueFrom?.secretKeyRef?.name);
    }
  }
  return paths;
}

const containersOf = (spec: PodSpec) => [
  ...(spec.initContainers ?? []),
  ...(spec.containers ?? []),
  ...(spec.ephemeralContainers ?? []),
];

export const podKey = (uid: string): string => `pod/${uid}`;
export const aboutPod = (pod: Pod): string =>
  `pod ${namespaceOf(pod)}/${pod.metadata.name ?? ""} (${uidOf(pod)}) of ${pod.metadata.ownerReferences?.[0]?.kind ?? "nobody"}`;
