// Which nodes a daemon set's pods belong on, and which pods to make and end. Pure.
// Upstream counterpart: pkg/controller/daemon/{daemon_controller,update}.go and util/daemonset_util.go.
import type { DaemonSet, DaemonSetStatus } from "#model/gen/apps-v1.ts";
import type {
  Node,
  NodeSelectorRequirement,
  NodeSelectorTerm,
  Pod,
  PodSpec,
  Taint,
  Toleration,
} from "#model/gen/core-v1.ts";
import { isDeleting } from "#model/object.ts";
import { isPodAvailable, isPodFinished, isPodReady } from "../../runtime/pods.ts";
import { revisionHashLabel } from "../../runtime/revisions.ts";

/** What every daemon pod tolerates: it belongs to the node whatever state that is in. */
const addedTolerations: readonly Toleration[] = [
  { key: "node.kubernetes.io/not-ready", operator: "Exists", effect: "NoExecute" },
  { key: "node.kubernetes.io/unreachable", operator: "Exists", effect: "NoExecute" },
  { key: "node.kubernetes.io/disk-pressure", operator: "Exists", effect: "NoSchedule" },
  { key: "node.kubernetes.io/memory-pressure", operator: "Exists", effect: "NoSchedule" },
  { key: "node.kubernetes.io/pid-pressure", operator: "Exists", effect: "NoSchedule" },
  { key: "node.kubernetes.io/unschedulable", operator: "Exists", effect: "NoSchedule" },
];
const hostNetworkToleration: Toleration = {
  key: "node.kubernetes.io/network-unavailable",
  operator: "Exists",
  effect: "NoSchedule",
};

/** The template's pod spec, tied to one node by affinity so that the scheduler places it there and nowhere else. */
export function podSpecFor(spec: PodSpec, nodeName: string): PodSpec {
  const field = { key: "metadata.name", operator: "In", values: [nodeName] };
  const required = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  const old: readonly NodeSelectorTerm[] = required?.nodeSelectorTerms ?? [];
  const terms = old.length > 0 ? old.map((t) => ({ ...t, matchFields: [field] })) : [{ matchFields: [field] }];
  return {
    ...spec,
    affinity: {
      ...spec.affinity,
      nodeAffinity: {
        ...spec.affinity?.nodeAffinity,
        requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms },
      },
    },
    tolerations: withTolerations(spec),
  };
}

function withTolerations(spec: PodSpec): Toleration[] {
  const own = spec.tolerations ?? [];
  const added = spec.hostNetwork ? [...addedTolerations, hostNetworkToleration] : addedTolerations;
  return [
    ...own,
    ...added.filter((a) => !own.some((t) => t.key === a.key && t.effect === a.effect && t.operator === "Exists")),
  ];
}

/** The node a daemon pod is on or was made for. */
export function nodeOf(pod: Pod): string | undefined {
  if (pod.spec.nodeName) return pod.spec.nodeName;
  const required = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  for (const term of required?.nodeSelectorTerms ?? []) {
    const field = term.matchFields?.find((f) => f.key === "metadata.name" && f.operator === "In");
    if (field?.values?.length === 1) return field.values[0];
  }
  return undefined;
}

/** `run`: a pod should be started there; `stay`: one that is there may stay. */
export function placeOn(node: Node, spec: PodSpec): { readonly run: boolean; readonly stay: boolean } {
  const no = { run: false, stay: false };
  if (spec.nodeName && spec.nodeName !== node.metadata.name) return no;
  const labels = node.metadata.labels ?? {};
  if (!Object.entries(spec.nodeSelector ?? {}).every(([k, v]) => labels[k] === v)) return no;
  const required = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  if (required && !required.nodeSelectorTerms.some((term) => isTermMet(term, node))) return no;
  const tolerations = withTolerations(spec);
  const harmful = (node.spec.taints ?? []).filter((taint) => !tolerations.some((t) => isTolerated(t, taint)));
  if (harmful.some((t) => t.effect === "NoExecute")) return no;
  return { run: !harmful.some((t) => t.effect === "NoSchedule"), stay: true };
}

function isTolerated(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (toleration.key && toleration.key !== taint.key) return false;
  if ((toleration.operator ?? "Equal") === "Exists") return true;
  return toleration.key !== undefined && (toleration.value ?? "") === (taint.value ?? "");
}

function isTermMet(term: NodeSelectorTerm, node: Node): boolean {
  const fields: Readonly<Record<string, string>> = { "metadata.name": node.metadata.name ?? "" };
  const expressions = term.matchExpressions ?? [];
  const matchFields = term.matchFields ?? [];
  if (expressions.length + matchFields.length === 0) return false;
  return (
    expressions.every((r) => isRequirementMet(r, node.metadata.labels ?? {})) &&
    matchFields.every((r) => isRequirementMet(r, fields))
  );
}

function isRequirementMet(r: NodeSelectorRequirement, values: Readonly<Record<string, string>>): boolean {
  const value = Object.hasOwn(values, r.key) ? values[r.key] : undefined;
  switch (r.operator) {
    case "In":
      return value !== undefined && (r.values ?? []).includes(value);
    case "NotIn":
      return value === undefined || !(r.values ?? []).includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    case "Gt":
      return value !== undefined && Number(value) > Number(r.values?.[0]);
    case "Lt":
      return value !== undefined && Number(value) < Number(r.values?.[0]);
    default:
      return false;
  }
}

export interface DaemonPlan {
  readonly create: readonly string[];
  readonly remove: readonly Pod[];
  /** Of `remove`: pods that have ended and are to be replaced. */
  readonly ended: readonly Pod[];
}

/** One pod per fitting node: the oldest that works stays, ended ones are replaced, misplaced ones go. */
export function planPlacement(set: DaemonSet, nodes: readonly Node[], pods: readonly Pod[]): DaemonPlan {
  const byNode = groupByNode(pods);
  const spec = set.spec.template.spec!;
  const create: string[] = [];
  const remove: Pod[] = [];
  const ended: Pod[] = [];
  const known = new Set<string>();
  for (const node of nodes) {
    const name = node.metadata.name ?? "";
    known.add(name);
    const here = byNode.get(name) ?? [];
    const { run, stay } = placeOn(node, spec);
    if (!stay) {
      remove.push(...here.filter((pod) => !isDeleting(pod)));
      continue;
    }
    const over = here.filter((pod) => isPodFinished(pod) && !isDeleting(pod));
    ended.push(...over);
    remove.push(...over);
    // A deleted pod still holds its place until it is gone.
    const alive = here.filter((pod) => !isPodFinished(pod) && !isDeleting(pod)).sort(byAge);
    remove.push(...alive.slice(1));
    if (run && here.length === 0) create.push(name);
  }
  // Not scheduled and made for a node that is gone: nobody else would end those.
  for (const [name, orphans] of byNode) {
    if (!known.has(name)) remove.push(...orphans.filter((pod) => !pod.spec.nodeName && !isDeleting(pod)));
  }
  return { create, remove, ended };
}

/** Old pods to end now in a rolling update: unavailable ones at once, others as far as unavailability allows. */
export function planUpdate(
  set: DaemonSet,
  nodes: readonly Node[],
  pods: readonly Pod[],
  hash: string,
  nowMs: number,
): readonly Pod[] {
  if ((set.spec.updateStrategy?.type ?? "RollingUpdate") !== "RollingUpdate") return [];
  const byNode = groupByNode(pods);
  const fitting = nodes.filter((node) => placeOn(node, set.spec.template.spec!).run);
  const { maxUnavailable = 1, maxSurge = 0 } = set.spec.updateStrategy?.rollingUpdate ?? {};
  const resolve = (value: number | string) =>
    typeof value === "number" ? value : Math.ceil((Number.parseInt(value, 10) * fitting.length) / 100);
  // With a surge instead of unavailability pods are exchanged one after the other all the same.
  const most = resolve(maxUnavailable) || resolve(maxSurge) || 1;
  let unavailable = 0;
  const atOnce: Pod[] = [];
  const inTurn: Pod[] = [];
  for (const node of fitting) {
    const alive = (byNode.get(node.metadata.name ?? "") ?? []).filter((pod) => !isDeleting(pod));
    const works = alive.some((pod) => isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs));
    if (!works) unavailable++;
    const old = alive.filter((pod) => pod.metadata.labels?.[revisionHashLabel] !== hash);
    (works ? inTurn : atOnce).push(...old);
  }
  return [...atOnce, ...inTurn.slice(0, Math.max(0, most - unavailable))];
}

export function planStatus(
  set: DaemonSet,
  nodes: readonly Node[],
  pods: readonly Pod[],
  hash: string,
  nowMs: number,
): DaemonSetStatus {
  const byNode = groupByNode(pods);
  const counts = { desired: 0, current: 0, misscheduled: 0, ready: 0, updated: 0, available: 0 };
  for (const node of nodes) {
    const here = (byNode.get(node.metadata.name ?? "") ?? []).sort(byAge);
    if (!placeOn(node, set.spec.template.spec!).run) {
      if (here.length > 0) counts.misscheduled++;
      continue;
    }
    counts.desired++;
    const pod = here[0];
    if (!pod) continue;
    counts.current++;
    if (isPodReady(pod)) counts.ready++;
    if (isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs)) counts.available++;
    if (pod.metadata.labels?.[revisionHashLabel] === hash) counts.updated++;
  }
  const unavailable = counts.desired - counts.available;
  const { collisionCount, conditions } = set.status ?? {};
  return {
    currentNumberScheduled: counts.current,
    numberMisscheduled: counts.misscheduled,
    desiredNumberScheduled: counts.desired,
    numberReady: counts.ready,
    observedGeneration: set.metadata.generation ?? 0,
    ...(counts.updated ? { updatedNumberScheduled: counts.updated } : {}),
    ...(counts.available ? { numberAvailable: counts.available } : {}),
    ...(unavailable ? { numberUnavailable: unavailable } : {}),
    ...(collisionCount === undefined ? {} : { collisionCount }),
    ...(conditions ? { conditions } : {}),
  } as DaemonSetStatus;
}

function groupByNode(pods: readonly Pod[]): Map<string, Pod[]> {
  const out = new Map<string, Pod[]>();
  for (const pod of pods) {
    const name = nodeOf(pod);
    if (name === undefined) continue;
    const here = out.get(name);
    if (here) here.push(pod);
    else out.set(name, [pod]);
  }
  return out;
}

/** Scheduled before unscheduled, then oldest first. */
function byAge(a: Pod, b: Pod): number {
  if (Boolean(a.spec.nodeName) !== Boolean(b.spec.nodeName)) return a.spec.nodeName ? -1 : 1;
  const left = `${a.metadata.creationTimestamp} ${a.metadata.name}`;
  return left < `${b.metadata.creationTimestamp} ${b.metadata.name}` ? -1 : 1;
}
