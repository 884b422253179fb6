// Plugins that look at one node by itself: unschedulable mark, name, taints, affinity, host ports, images.
// Names, weights and messages are upstream's (pkg/scheduler/framework/plugins, v1.32 default profile).
import { matchesNodeTerm } from "#model/node-selector.ts";
import { matchesNodeAffinity, untoleratedTaint } from "../node-selector.ts";
import { type HostPort, hostPortsOf } from "../snapshot.ts";
import { maxScore, type Plugin, proportional, unresolvable, unschedulable } from "./framework.ts";

const mebi = 1024 * 1024;
/** Images smaller than this are not worth a preference; above the maximum (per container) more does not count. */
const imageMinBytes = 23 * mebi;
const imageMaxBytes = 1000 * mebi;

const unschedulableTaint = { key: "node.kubernetes.io/unschedulable", effect: "NoSchedule" };

export const nodeUnschedulable: Plugin = {
  name: "NodeUnschedulable",
  weight: 0,
  events: ["nodeAdded", "nodeTaintsChanged"],
  prepare(pod) {
    const isTolerated = untoleratedTaint([unschedulableTaint], pod.spec.tolerations, ["NoSchedule"]) === undefined;
    if (isTolerated) return {};
    return {
      filter: ({ node }) => (node.spec.unschedulable ? unresolvable("node(s) were unschedulable") : undefined),
    };
  },
};

export const nodeName: Plugin = {
  name: "NodeName",
  weight: 0,
  events: ["nodeAdded"],
  prepare(pod) {
    const wanted = pod.spec.nodeName;
    if (!wanted) return {};
    return {
      filter: (node) =>
        node.name === wanted ? undefined : unresolvable("node(s) didn't match the requested node name"),
    };
  },
};

export const taintToleration: Plugin = {
  name: "TaintToleration",
  weight: 3,
  events: ["nodeAdded", "nodeTaintsChanged"],
  prepare(pod) {
    const tolerations = pod.spec.tolerations ?? [];
    const preferring = tolerations.filter((t) => !t.effect || t.effect === "PreferNoSchedule");
    return {
      filter({ node }) {
        const taint = untoleratedTaint(node.spec.taints, tolerations, ["NoSchedule", "NoExecute"]);
        return taint && unresolvable(`node(s) had untolerated taint {${taint.key}: ${taint.value ?? ""}}`);
      },
      score({ node }) {
        let count = 0;
        for (const taint of node.spec.taints ?? []) {
          if (untoleratedTaint([taint], preferring, ["PreferNoSchedule"])) count++;
        }
        return count;
      },
      normalize: (scores) => proportional(scores, "reverse"),
    };
  },
};

export const nodeAffinity: Plugin = {
  name: "NodeAffinity",
  weight: 2,
  events: ["nodeAdded", "nodeLabelsChanged"],
  prepare(pod) {
    const affinity = pod.spec.affinity?.nodeAffinity;
    const preferred = affinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
    const isRequired =
      affinity?.requiredDuringSchedulingIgnoredDuringExecution !== undefined ||
      Object.keys(pod.spec.nodeSelector ?? {}).length > 0;
    return {
      ...(isRequired && {
        filter: (node) =>
          matchesNodeAffinity(pod, node)
            ? undefined
            : unresolvable("node(s) didn't match Pod's node affinity/selector"),
      }),
      ...(preferred.length > 0 && {
        score: (node) => {
          let sum = 0;
          for (const term of preferred) if (matchesNodeTerm(term.preference, node)) sum += term.weight;
          return sum;
        },
        normalize: (scores) => proportional(scores, "straight"),
      }),
    };
  },
};

export const nodePorts: Plugin = {
  name: "NodePorts",
  weight: 0,
  events: ["nodeAdded", "assignedPodRemoved"],
  prepare(pod) {
    const wanted = hostPortsOf(pod);
    if (wanted.length === 0) return {};
    return {
      filter(node) {
        for (const other of node.pods.values()) {
          if (hostPortsOf(other).some((used) => wanted.some((port) => collide(port, used)))) {
            return unschedulable("node(s) didn't have free ports for the requested pod ports");
          }
        }
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
  weight: 1,
  events: [],
  prepare(pod, snapshot) {
    const containers = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
    const names = containers.map((c) => normalizedImage(c.image ?? ""));
    const total = snapshot.nodes.length;
    return {
      score(node) {
        let sum = 0;
        for (const name of names) {
          const size = node.images.get(name);
          if (size !== undefined) sum += Math.floor(size * ((snapshot.imageSpread.get(name) ?? 0) / total));
        }
        const max = imageMaxBytes * names.length;
        const bounded = Math.min(Math.max(sum, imageMinBytes), max);
        return Math.floor((maxScore * (bounded - imageMinBytes)) / (max - imageMinBytes));
      },
    };
  },
};

/** `name` without a tag is `name:latest`. A registry port is not a tag. */
function normalizedImage(image: string): string {
  return image.lastIndexOf(":") <= image.lastIndexOf("/") ? `${image}:latest` : image;
}
