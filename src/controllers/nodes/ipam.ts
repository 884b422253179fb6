// Gives every node that has no range of pod addresses the first free /24 of the cluster's. The first of all is left to the
// node of the server, which takes it by itself. Upstream counterpart: pkg/controller/nodeipam, RangeAllocator.
import type { Service } from "#base/service.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nameOf } from "#model/object.ts";
import { nodes } from "#model/resources.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";

const nodeBits = 24;
/** One key for all: two nodes at a time would get the same range. */
const everything = "all";

/** Ranges by node. Nodes for which there is none left are in `without`. */
export function planRanges(
  clusterCidr: string,
  known: readonly Node[],
): { readonly ranges: ReadonlyMap<string, string>; readonly without: readonly string[] } {
  const [base = "", bits = "32"] = clusterCidr.split("/");
  const count = 2 ** Math.max(0, nodeBits - Number(bits));
  const first = base.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const taken = new Set(known.flatMap(({ spec }) => spec?.podCIDRs ?? spec?.podCIDR ?? []));
  const ranges = new Map<string, string>();
  const without: string[] = [];
  let next = 1;
  for (const node of known) {
    if (node.spec?.podCIDR || node.metadata.deletionTimestamp) continue;
    while (next < count && taken.has(rangeAt(first, next))) next++;
    if (next < count) ranges.set(nameOf(node), rangeAt(first, next++));
    else without.push(nameOf(node));
  }
  return { ranges, without };
}

function rangeAt(first: number, index: number): string {
  const value = first + index * 2 ** (32 - nodeBits);
  return `${[24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".")}/${nodeBits}`;
}

export function createNodeIpam(deps: ControllerDeps, options: { readonly clusterCidr: string }): Service {
  const store = deps.informers.informer(nodes);
  /** Given and not seen yet: the informer is behind what was just written. */
  const given = new Map<string, { readonly uid: string | undefined; readonly range: string }>();
  return createController(
    {
      name: "node-ipam-controller",
      workers: 1,
      triggers: [on(store, () => [everything])],
      firstKeys: [everything],
      async sync() {
        const known = store.list().map((node) => {
          const mine = given.get(nameOf(node));
          if (node.spec?.podCIDR) given.delete(nameOf(node));
          if (node.spec?.podCIDR || !mine || mine.uid !== node.metadata.uid) return node;
          return { ...node, spec: { ...node.spec, podCIDR: mine.range, podCIDRs: [mine.range] } };
        });
        for (const name of given.keys()) if (!store.get(name)) given.delete(name);
        const { ranges, without } = planRanges(options.clusterCidr, known);
        for (const [name, range] of ranges) {
          await deps.client.patch(nodes, { name }, { spec: { podCIDR: range, podCIDRs: [range] } });
          given.set(name, { uid: store.get(name)?.metadata.uid, range });
        }
        for (const name of without) {
          const object = store.get(name);
          const message = `Node ${name} status is now: CIDRNotAvailable`;
          if (object)
            deps.events.record({ resource: nodes, object, type: "Normal", reason: "CIDRNotAvailable", message });
        }
      },
    },
    deps,
  );
}
