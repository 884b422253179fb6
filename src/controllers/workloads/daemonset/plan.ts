// Which nodes a daemon set's pods belong on, and which pods to make and end. Pure.
// In a roll a node's pod is ended and made anew; with a surge the new one is made beside it first, and the old one ends
// when the new one can stand for it.
// Upstream counterpart: pkg/controller/daemon/{daemon_controller,update}.go and util/daemonset_util.go.
import type { DaemonSet, DaemonSetStatus } from "#model/gen/apps-v1.ts";
import type { Node, NodeSelectorTerm, Pod, PodSpec, Toleration } from "#model/gen/core-v1.ts";
import { matchesNodeTerm } from "#model/node-selector.ts";
import { isDeleting } from "#model/object.ts";
import { tolerates } from "#model/taints.ts";
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
  const { name = "", labels = {} } = node.metadata;
  if (spec.nodeName && spec.nodeName !== name) return no;
  if (!Object.entries(spec.nodeSelector ?? {}).every(([k, v]) => labels[k] === v)) return no;
  const required = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  if (required && !required.nodeSelectorTerms.some((term) => matchesNodeTerm(term, { name, labels }))) return no;
  const tolerations = withTolerations(spec);
  const harmful = (node.spec.taints ?? []).filter((taint) => !tolerations.some((t) => tolerates(t, taint)));
  if (harmful.some((t) => t.effect === "NoExecute")) return no;
  return { run: !harmful.some((t) => t.effect === "NoSchedule"), stay: true };
}

export interface DaemonInput {
  readonly set: DaemonSet;
  readonly nodes: readonly Node[];
  readonly pods: readonly Pod[];
  /** Of the template in force, as pods made of it carry it. */
  readonly hash: string;
  readonly nowMs: number;
}

export interface DaemonPlan {
  readonly create: readonly string[];
  readonly remove: readonly Pod[];
  /** Of `remove`: pods that have ended and are to be replaced. */
  readonly ended: readonly Pod[];
}

/** One pod per fitting node: the oldest that works stays, ended ones are replaced, misplaced ones go. */
export function planPlacement(input: DaemonInput): DaemonPlan {
  const { set, nodes, pods } = input;
  const byNode = groupByNode(pods);
  const spec = set.spec.template.spec!;
  const surplusOf = allowsSurge(set) ? surplusInSurge : (alive: readonly Pod[]) => alive.slice(1);
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
    remove.push(...surplusOf(alive, input));
    if (run && here.length === 0) create.push(name);
  }
  // Not scheduled and made for a node that is gone: nobody else would end those.
  for (const [name, orphans] of byNode) {
    if (!known.has(name)) remove.push(...orphans.filter((pod) => !pod.spec.nodeName && !isDeleting(pod)));
  }
  return { create, remove, ended };
}

/** Of one node's pods, oldest first: all but one of each template; the old one goes when it is not worth waiting for. */
function surplusInSurge(alive: readonly Pod[], { set, hash, nowMs }: DaemonInput): readonly Pod[] {
  const { fresh, old } = pairOf(alive, hash);
  const surplus = alive.filter((pod) => pod !== fresh && pod !== old);
  const { minReadySeconds = 0 } = set.spec;
  if (fresh && old && (!isPodReady(old) || isPodAvailable(fresh, minReadySeconds, nowMs))) surplus.push(old);
  return surplus;
}

const isOfHash = (pod: Pod, hash: string): boolean => pod.metadata.labels?.[revisionHashLabel] === hash;
const pairOf = (pods: readonly Pod[], hash: string) => ({
  fresh: pods.find((pod) => isOfHash(pod, hash)),
  old: pods.find((pod) => !isOfHash(pod, hash)),
});

const rollOf = ({ spec }: DaemonSet) =>
  (spec.updateStrategy?.type ?? "RollingUpdate") === "RollingUpdate" ? (spec.updateStrategy ?? {}) : undefined;
/** A number, or a share of `total` rounded up. */
const resolve = (value: number | string, total: number): number =>
  typeof value === "number" ? value : Math.ceil((Number.parseInt(value, 10) * total) / 100);
const allowsSurge = (set: DaemonSet): boolean => resolve(rollOf(set)?.rollingUpdate?.maxSurge ?? 0, 1) > 0;

/** What a rolling update does now. */
export interface UpdatePlan {
  readonly remove: readonly Pod[];
  /** Nodes that get a new pod beside the old one. */
  readonly create: readonly string[];
}

export function planUpdate(input: DaemonInput): UpdatePlan {
  const { set, nodes, pods } = input;
  const roll = rollOf(set);
  if (!roll) return { remove: [], create: [] };
  const fitting = nodes.filter((node) => placeOn(node, set.spec.template.spec!).run);
  const { maxUnavailable = 1, maxSurge = 0 } = roll.rollingUpdate ?? {};
  const byNode = groupByNode(pods);
  const alive = fitting.map(({ metadata: { name = "" } }) => ({
    name,
    pods: (byNode.get(name) ?? []).filter((pod) => !isDeleting(pod)).sort(byAge),
  }));
  const most = { surge: resolve(maxSurge, fitting.length), unavailable: resolve(maxUnavailable, fitting.length) };
  return most.surge > 0 ? planSurge(input, alive, most.surge) : planExchange(input, alive, most.unavailable || 1);
}

interface NodePods {
  readonly name: string;
  readonly pods: readonly Pod[];
}

/** Old pods to end: unavailable ones at once, others as far as unavailability allows. */
function planExchange({ set, hash, nowMs }: DaemonInput, nodes: readonly NodePods[], most: number): UpdatePlan {
  let unavailable = 0;
  const atOnce: Pod[] = [];
  const inTurn: Pod[] = [];
  for (const { pods } of nodes) {
    const works = pods.some((pod) => isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs));
    if (!works) unavailable++;
    (works ? inTurn : atOnce).push(...pods.filter((pod) => !isOfHash(pod, hash)));
  }
  return { remove: [...atOnce, ...inTurn.slice(0, Math.max(0, most - unavailable))], create: [] };
}

/** New pods beside old ones: beside unavailable ones at once, beside others as far as the surge allows. */
function planSurge({ set, hash, nowMs }: DaemonInput, nodes: readonly NodePods[], most: number): UpdatePlan {
  const works = (pod: Pod) => isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs);
  let surging = 0;
  const remove: Pod[] = [];
  const atOnce: string[] = [];
  const inTurn: string[] = [];
  for (const { name, pods } of nodes) {
    const { fresh, old } = pairOf(pods, hash);
    if (!old) continue;
    if (!fresh) (works(old) ? inTurn : atOnce).push(name);
    else if (!works(old) || works(fresh)) remove.push(old);
    else surging++;
  }
  return { remove, create: [...atOnce, ...inTurn.slice(0, Math.max(0, most - surging))] };
}

export function planStatus({ set, nodes, pods, hash, nowMs }: DaemonInput): DaemonSetStatus {
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
    if (isOfHash(pod, hash)) counts.updated++;
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
