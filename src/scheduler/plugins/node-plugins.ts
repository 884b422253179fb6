// Plugins that look at one node by itself: unschedulable mark, name, taints, affinity, host ports, images.
// Names and messages are upstream's (pkg/scheduler/framework/plugins, v1.32).
import type { Node, NodeSelectorTerm, Pod, Taint } from "#model/gen/core-v1.ts";
import { matchesNodeSelector, matchesNodeTerm, type NodeFeatures } from "#model/node-selector.ts";
import { nameOf } from "#model/object.ts";
import { matchesNodeAffinity, untoleratedTaint } from "../node-selector.ts";
import { mark } from "../node-table.ts";
import { type HostPort, podInfoOrLess } from "../pod-info.ts";
import type { PluginArgs } from "./args.ts";
import {
  type Interest,
  maxScore,
  type Plugin,
  proportional,
  type Rejection,
  unresolvable,
  unschedulable,
} from "./framework.ts";

const mebi = 1024 * 1024;
/** Images smaller than this are not worth a preference; above the maximum (per container) more does not count. */
const imageMinBytes = 23 * mebi;
const imageMaxBytes = 1000 * mebi;

const unschedulableTaint = { key: "node.kubernetes.io/unschedulable", effect: "NoSchedule" };
const hardEffects = ["NoSchedule", "NoExecute"];

const asNode = (object: unknown): Node => object as Node;
const featuresOf = (node: Node): NodeFeatures => ({ name: nameOf(node), labels: node.metadata.labels ?? {} });
const isOwnToleration: Interest = { events: ["UnschedulablePodUpdatePodToleration"] };

const wereUnschedulable = unresolvable("node(s) were unschedulable");

export const nodeUnschedulable: Plugin = {
  name: "NodeUnschedulable",
  points: ["filter"],
  interests: [
    { events: ["NodeAdd", "NodeUpdateNodeTaint"], hint: (_, { next }) => !asNode(next).spec.unschedulable },
    isOwnToleration,
  ],
  filter({ pod }, { table }) {
    const isTolerated = untoleratedTaint([unschedulableTaint], pod.spec.tolerations, ["NoSchedule"]) === undefined;
    if (isTolerated) return {};
    return { check: ({ slot }) => (table.marks[slot]! & mark.unschedulable ? wereUnschedulable : undefined) };
  },
};

const otherName = unresolvable("node(s) didn't match the requested node name");

export const nodeName: Plugin = {
  name: "NodeName",
  points: ["filter"],
  interests: [{ events: ["NodeAdd"] }],
  filter({ pod }) {
    const wanted = pod.spec.nodeName;
    if (!wanted) return {};
    return { check: (node) => (node.name === wanted ? undefined : otherName) };
  },
};

const taintInTheWay = (taints: readonly Taint[] | undefined, pod: Pod): Taint | undefined =>
  untoleratedTaint(taints, pod.spec.tolerations, hardEffects);

export const taintToleration: Plugin = {
  name: "TaintToleration",
  points: ["filter", "preScore", "score"],
  interests: [
    {
      events: ["NodeAdd", "NodeUpdateNodeTaint"],
      hint: ({ pod }, { old, next }) =>
        (!old || taintInTheWay(asNode(old).spec.taints, pod) !== undefined) &&
        taintInTheWay(asNode(next).spec.taints, pod) === undefined,
    },
    isOwnToleration,
  ],
  filter({ pod }, { table }) {
    const said = new Map<string, Rejection>();
    return {
      check({ slot, taints }) {
        if (!(table.marks[slot]! & mark.hardTaint)) return undefined;
        const taint = taintInTheWay(taints, pod);
        if (!taint) return undefined;
        const text = `node(s) had untolerated taint {${taint.key}: ${taint.value ?? ""}}`;
        let rejection = said.get(text);
        if (!rejection) {
          rejection = unresolvable(text);
          said.set(text, rejection);
        }
        return rejection;
      },
    };
  },
  score({ pod }, { table }, nodes, out) {
    const preferring = (pod.spec.tolerations ?? []).filter((t) => !t.effect || t.effect === "PreferNoSchedule");
    let isAny = false;
    for (const [i, { slot, taints }] of nodes.entries()) {
      out[i] = 0;
      if (!(table.marks[slot]! & mark.softTaint)) continue;
      isAny = true;
      for (const taint of taints) if (untoleratedTaint([taint], preferring, ["PreferNoSchedule"])) out[i]!++;
    }
    if (isAny) proportional(out, nodes.length, "reverse");
    return isAny;
  },
};

/** Names of nodes that are the only ones to match, where every term says some; undefined where one does not. */
function namedNodes(terms: readonly NodeSelectorTerm[]): ReadonlySet<string> | undefined {
  const names = new Set<string>();
  if (terms.length === 0) return undefined;
  for (const { matchFields } of terms) {
    const named = (matchFields ?? []).filter((f) => f.key === "metadata.name" && f.operator === "In");
    const [first, ...rest] = named.map((f) => f.values ?? []);
    if (!first) return undefined;
    for (const name of first) if (rest.every((values) => values.includes(name))) names.add(name);
  }
  return names;
}

const otherAffinity = unresolvable("node(s) didn't match Pod's node affinity/selector");
const notEnforced = unresolvable("node(s) didn't match scheduler-enforced node affinity");

export function nodeAffinity({ addedAffinity }: PluginArgs["NodeAffinity"]): Plugin {
  const enforced = addedAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  const fits = (pod: Pod, node: NodeFeatures): boolean =>
    (!enforced || matchesNodeSelector(enforced, node)) && matchesNodeAffinity(pod, node);
  return {
    name: "NodeAffinity",
    points: ["preFilter", "filter", "preScore", "score"],
    interests: [
      {
        events: ["NodeAdd", "NodeUpdateNodeLabel"],
        hint: ({ pod }, { old, next }) =>
          fits(pod, featuresOf(asNode(next))) && !(old && fits(pod, featuresOf(asNode(old)))),
      },
    ],
    filter({ pod }) {
      const required = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
      const isRequired = required !== undefined || Object.keys(pod.spec.nodeSelector ?? {}).length > 0;
      if (!isRequired && !enforced) return {};
      const only = namedNodes(required?.nodeSelectorTerms ?? []);
      if (only?.size === 0) return { reject: unresolvable("pod affinity terms conflict") };
      return {
        ...(only && { only }),
        check(node) {
          if (enforced && !matchesNodeSelector(enforced, node)) return notEnforced;
          return matchesNodeAffinity(pod, node) ? undefined : otherAffinity;
        },
      };
    },
    score({ pod }, _, nodes, out) {
      const preferred = [
        ...(addedAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []),
        ...(pod.spec.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []),
      ];
      if (preferred.length === 0) return false;
      for (const [i, node] of nodes.entries()) {
        out[i] = 0;
        for (const term of preferred) if (matchesNodeTerm(term.preference, node)) out[i]! += term.weight;
      }
      proportional(out, nodes.length, "straight");
      return true;
    },
  };
}

const noFreePorts = unschedulable("node(s) didn't have free ports for the requested pod ports");
const collides = (wanted: readonly HostPort[], used: readonly HostPort[]): boolean =>
  used.some((other) => wanted.some((port) => collide(port, other)));

export const nodePorts: Plugin = {
  name: "NodePorts",
  points: ["preFilter", "filter"],
  interests: [
    {
      events: ["AssignedPodDelete"],
      hint: ({ hostPorts }, { old }) => collides(hostPorts, podInfoOrLess(old as Pod).hostPorts),
    },
    { events: ["NodeAdd"] },
  ],
  filter({ hostPorts }) {
    if (hostPorts.length === 0) return {};
    return {
      check({ podsWithPorts }) {
        for (const other of podsWithPorts.values()) if (collides(hostPorts, other.hostPorts)) return noFreePorts;
        return undefined;
      },
    };
  },
};

function collide(a: HostPort, b: HostPort): boolean {
  if (a.port !== b.port || a.protocol !== b.protocol) return false;
  return a.ip === b.ip || a.ip === "0.0.0.0" || b.ip === "0.0.0.0";
}

export const imageLocality: Plugin = {
  name: "ImageLocality",
  points: ["score"],
  interests: [],
  score({ pod }, { nodes: all, imageSpread }, nodes, out) {
    const containers = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
    const names = containers.map((c) => normalizedImage(c.image ?? ""));
    const found = names.filter((name) => imageSpread.has(name));
    if (found.length === 0) return false;
    const max = imageMaxBytes * names.length;
    for (const [i, node] of nodes.entries()) {
      let sum = 0;
      for (const name of found) {
        const size = node.images.get(name);
        if (size !== undefined) sum += Math.floor(size * (imageSpread.get(name)! / all.length));
      }
      const bounded = Math.min(Math.max(sum, imageMinBytes), max);
      out[i] = Math.floor((maxScore * (bounded - imageMinBytes)) / (max - imageMinBytes));
    }
    return true;
  },
};

/** `name` without a tag is `name:latest`. A registry port is not a tag. */
function normalizedImage(image: string): string {
  return image.lastIndexOf(":") <= image.lastIndexOf("/") ? `${image}:latest` : image;
}
