// A pod as decisions need it, worked out once: what it asks for, its ports, its affinity terms with selectors parsed.
// Never changed; a changed pod gets a new one. Upstream counterpart: framework.PodInfo.
import type { Pod, PodAffinityTerm, Volume } from "#model/gen/core-v1.ts";
import { type LabelRequirement, matchesRequirements, requirementsOf } from "#model/label-selector.ts";
import { isDeleting, keyOf, namespaceOf, uidOf } from "#model/object.ts";
import { claimNameOf } from "#model/volumes.ts";
import { type PodRequests, podRequests } from "./resources.ts";

export type Labels = Readonly<Record<string, string>>;
export type NamespaceLabels = ReadonlyMap<string, Labels>;

export interface HostPort {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

/** A pod (anti-)affinity term of one pod. */
export interface Term {
  readonly topologyKey: string;
  /** Undefined selects nobody. */
  readonly requirements: readonly LabelRequirement[] | undefined;
  /** Named ones, the owner's own where the term names none. */
  readonly namespaces: readonly string[];
  readonly namespaceRequirements: readonly LabelRequirement[] | undefined;
  /** Terms with the same text select the same pods under the same topology. */
  readonly text: string;
}

export interface WeightedTerm extends Term {
  /** Negative: rather not near those. */
  readonly weight: number;
}

export interface PodInfo extends PodRequests {
  readonly pod: Pod;
  readonly key: string;
  readonly uid: string;
  readonly namespace: string;
  readonly labels: Labels;
  readonly priority: number;
  readonly isDeleting: boolean;
  readonly hostPorts: readonly HostPort[];
  /** Volumes that other pods may be in the way of: claims, and disks named in the pod. */
  readonly hasClaims: boolean;
  readonly near: readonly Term[];
  readonly far: readonly Term[];
  readonly preferred: readonly WeightedTerm[];
}

const none: readonly never[] = [];

/** Volumes written into the pod that only one pod of a node may write. */
export const isDisk = (volume: Volume): boolean =>
  (volume.gcePersistentDisk ?? volume.awsElasticBlockStore ?? volume.iscsi ?? volume.rbd) !== undefined;

/** Rejects where an amount or a selector cannot be read. */
export function podInfoOf(pod: Pod): PodInfo {
  return { ...podRequests(pod), ...plainInfo(pod), ...termsOf(pod) };
}

/** For pods that run already: what cannot be read counts as nothing, rather than to stop all scheduling. */
export function podInfoOrLess(pod: Pod): PodInfo {
  try {
    return podInfoOf(pod);
  } catch {
    // Written by an older version; it runs whatever we think of it.
    const scoring = { milliCpu: 0, memoryBytes: 0 };
    return { requests: new Map(), scoring, ...plainInfo(pod), near: none, far: none, preferred: none };
  }
}

export const priorityOf = (pod: Pod): number => pod.spec.priority ?? 0;

const plainInfo = (pod: Pod) => ({
  pod,
  key: keyOf(pod),
  uid: uidOf(pod),
  namespace: namespaceOf(pod),
  labels: pod.metadata.labels ?? {},
  priority: priorityOf(pod),
  isDeleting: isDeleting(pod),
  hostPorts: hostPortsOf(pod),
  hasClaims: (pod.spec.volumes ?? none).some((volume) => claimNameOf(pod, volume) !== undefined || isDisk(volume)),
});

function hostPortsOf(pod: Pod): readonly HostPort[] {
  const sidecars = (pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === "Always");
  const out: HostPort[] = [];
  for (const container of [...(pod.spec.containers ?? []), ...sidecars]) {
    for (const port of container.ports ?? none) {
      if (!port.hostPort) continue;
      out.push({ ip: port.hostIP || "0.0.0.0", protocol: port.protocol ?? "TCP", port: port.hostPort });
    }
  }
  return out;
}

function termsOf(pod: Pod): Pick<PodInfo, "near" | "far" | "preferred"> {
  const { podAffinity, podAntiAffinity } = pod.spec.affinity ?? {};
  if (!podAffinity && !podAntiAffinity) return { near: none, far: none, preferred: none };
  const required = (terms: readonly PodAffinityTerm[] | undefined) => (terms ?? []).map((term) => termOf(term, pod));
  const preferred: WeightedTerm[] = [];
  for (const { podAffinityTerm, weight } of podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []) {
    preferred.push({ ...termOf(podAffinityTerm, pod), weight });
  }
  for (const { podAffinityTerm, weight } of podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []) {
    preferred.push({ ...termOf(podAffinityTerm, pod), weight: -weight });
  }
  return {
    near: required(podAffinity?.requiredDuringSchedulingIgnoredDuringExecution),
    far: required(podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution),
    preferred,
  };
}

function termOf(term: PodAffinityTerm, owner: Pod): Term {
  const named = term.namespaces ?? [];
  const isOwn = named.length === 0 && term.namespaceSelector === undefined;
  const namespaces = isOwn ? [namespaceOf(owner)] : [...named].sort();
  const requirements = requirementsOf(term.labelSelector);
  // The API server adds these to the selector when the pod is made; for those from before it they are added here.
  for (const [keys, operator] of [
    [term.matchLabelKeys, "in"],
    [term.mismatchLabelKeys, "notin"],
  ] as const) {
    for (const key of keys ?? []) {
      const value = owner.metadata.labels?.[key];
      if (value !== undefined) requirements?.push({ key, operator, values: [value] });
    }
  }
  const namespaceRequirements = requirementsOf(term.namespaceSelector);
  return {
    topologyKey: term.topologyKey,
    requirements,
    namespaces,
    namespaceRequirements,
    text: JSON.stringify([term.topologyKey, requirements, namespaces, namespaceRequirements]),
  };
}

/** Whether a pod with these labels in this namespace counts for the term. */
export function termSelects(term: Term, namespace: string, labels: Labels, known: NamespaceLabels): boolean {
  if (term.requirements === undefined || !matchesRequirements(term.requirements, labels)) return false;
  if (term.namespaces.includes(namespace)) return true;
  return (
    term.namespaceRequirements !== undefined && matchesRequirements(term.namespaceRequirements, known.get(namespace))
  );
}
