// Gives every node that has no range of pod addresses the first free part of the cluster's ranges, one of each address
// family; also to those of servers, of which there may be several.
// No range is given twice: one run at a time writes any (what it writes counts only while its server leads), a run begins with
// what all before it have written (the informers are listed again), and what it wrote itself it knows, also where it was not
// told whether that came to pass.
// Upstream counterpart: pkg/controller/nodeipam, RangeAllocator.
import { type IpFamily, type IpRange, parseIpRange, parseIpRanges, subnetAt } from "#base/ip-range.ts";
import type { Service } from "#base/service.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nameOf } from "#model/object.ts";
import { nodes } from "#model/resources.ts";
import { ApiError } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";

export interface NodeRangeOptions {
  /** One range, or one of each family with a comma between. */
  readonly clusterCidr: string;
  /** Network bits of what a node gets. */
  readonly maskSizes: Readonly<Record<IpFamily, number>>;
}

/** As many nodes as one range is divided among; upstream's bound for IPv6, and more than a cluster has. */
const mostNodes = 65_536;
/** One key for all: two nodes at a time would get the same range. */
const everything = "all";

/** Ranges by node, in the order of families. Nodes for which there is none left are in `without`. */
export function planRanges(
  { clusterCidr, maskSizes }: NodeRangeOptions,
  known: readonly Node[],
): { readonly ranges: ReadonlyMap<string, readonly string[]>; readonly without: readonly string[] } {
  const held = known.flatMap(({ spec }) => spec?.podCIDRs ?? spec?.podCIDR ?? []);
  const pools = parseIpRanges(clusterCidr).map((range) => freeRanges(range, maskSizes[range.family], held));
  const ranges = new Map<string, readonly string[]>();
  const without: string[] = [];
  let next = pools.map((pool) => pool.next());
  for (const node of known) {
    if (node.spec?.podCIDR || node.metadata.deletionTimestamp) continue;
    // One family alone would leave the node with half of what services promise.
    const mine = next.flatMap(({ value }) => value ?? []);
    if (mine.length === pools.length) {
      ranges.set(nameOf(node), mine);
      next = pools.map((pool) => pool.next());
    } else without.push(nameOf(node));
  }
  return { ranges, without };
}

/** What is left of a range, in order. What nodes hold may be of another size, from before a change of settings. */
function* freeRanges(range: IpRange, bits: number, held: readonly string[]): Generator<string, undefined> {
  const hostBits = (range.family === "IPv4" ? 32 : 128) - bits;
  const count = Math.min(mostNodes, 2 ** Math.max(0, range.hostBits - hostBits));
  const taken = new Set<number>();
  for (const text of held) {
    const other = parseIpRange(text);
    if (other?.family !== range.family) continue;
    const indexOf = (address: bigint) => (address - range.base) >> BigInt(hostBits);
    const first = indexOf(other.base);
    const last = indexOf(other.base + (1n << BigInt(other.hostBits)) - 1n);
    if (last < 0n || first >= BigInt(count)) continue;
    const end = Math.min(count - 1, Number(last));
    for (let index = Math.max(0, Number(first)); index <= end; index++) taken.add(index);
  }
  for (let index = 0; index < count; index++) if (!taken.has(index)) yield subnetAt(range, bits, index);
  return undefined;
}

export function createNodeIpam(deps: ControllerDeps, options: NodeRangeOptions): Service {
  const store = deps.informers.informer(nodes);
  /** Given and not seen yet: the informer is behind what was just written, or it was not written after all. */
  const given = new Map<string, Given>();
  const give = async (name: string, one: Given): Promise<void> => {
    try {
      await deps.client.patch(nodes, { name }, { metadata: { uid: one.uid }, spec: specOf(one.ranges) });
      one.isWritten = true;
    } catch (error) {
      // It was refused; of all else nobody knows whether it was written.
      if (error instanceof ApiError && error.code < 500) given.delete(name);
      throw error;
    }
  };
  /** A node that is not to be had keeps none of the others waiting. */
  const giveAll = async (all: Iterable<readonly [string, Given]>): Promise<void> => {
    let failure: { readonly error: unknown } | undefined;
    for (const [name, one] of all) {
      given.set(name, one);
      try {
        await give(name, one);
      } catch (error) {
        failure ??= { error };
      }
    }
    if (failure) throw failure.error;
  };
  return createController(
    {
      name: "node-ipam-controller",
      workers: 1,
      triggers: [on(store, () => [everything])],
      firstKeys: [everything],
      begin: () => given.clear(),
      async sync() {
        const known = store.list().map((node) => {
          const mine = given.get(nameOf(node));
          if (node.spec?.podCIDR) given.delete(nameOf(node));
          if (node.spec?.podCIDR || !mine || mine.uid !== node.metadata.uid) return node;
          return { ...node, spec: { ...node.spec, ...specOf(mine.ranges) } };
        });
        for (const name of given.keys()) if (!store.get(name)) given.delete(name);
        // Mostly: something else of a node has changed. With a thousand nodes planning takes milliseconds.
        if (given.size === 0 && known.every(({ spec }) => spec?.podCIDR)) return;
        const { ranges, without } = planRanges(options, known);
        const fresh = [...ranges].map(
          ([name, mine]) => [name, { uid: store.get(name)?.metadata.uid, ranges: mine, isWritten: false }] as const,
        );
        const again = [...given].filter(([, { isWritten }]) => !isWritten);
        await giveAll([...again, ...fresh]);
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

interface Given {
  readonly uid: string | undefined;
  readonly ranges: readonly string[];
  isWritten: boolean;
}

const specOf = (ranges: readonly string[]): { podCIDR: string; podCIDRs: string[] } => ({
  podCIDR: ranges[0] ?? "",
  podCIDRs: [...ranges],
});
