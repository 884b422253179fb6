// Who has which processors, NUMA nodes and devices: what is taken, what is free, and what a pod would get. Pure; the manager
// keeps the state and the file. A container of a Guaranteed pod that asks for whole processors gets them for itself; the
// others share what is left. Counterpart: the static policies of the kubelet's cpu, memory and device managers.
import type { Container, Pod } from "#model/gen/core-v1.ts";
import type { NodeConfiguration } from "../configuration.ts";
import { milliOf, wholeOf } from "../pods/quantities.ts";
import { qosClass } from "../pods/resources.ts";
import { type AffinityProvider, decideAffinity } from "./affinity.ts";
import type { ResourceDevices } from "./plugins.ts";
import { type Topology, takeProcessors } from "./topology.ts";

export interface Share {
  readonly processors: readonly number[];
  /** Empty: any. */
  readonly memoryNodes: readonly number[];
  readonly memoryBytes: number;
  readonly devices: Readonly<Record<string, readonly string[]>>;
}
/** By pod uid, by container name. */
export type Reservations = Readonly<Record<string, Readonly<Record<string, Share>>>>;

export interface ReserveInput {
  readonly pod: Pod;
  readonly held: Reservations;
  readonly topology: Topology;
  readonly reservedProcessors: ReadonlySet<number>;
  readonly configuration: Pick<NodeConfiguration, "cpuManagerPolicy" | "memoryManagerPolicy" | "topologyManagerPolicy">;
  readonly devices: ReadonlyMap<string, ResourceDevices>;
}

export type ReserveResult =
  | { readonly ok: true; readonly shares: Readonly<Record<string, Share>> }
  | { readonly ok: false; readonly reason: string; readonly message: string };

/** Those that live as long as the pod. */
const lasting = (pod: Pod): readonly Container[] => [
  ...(pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === "Always"),
  ...(pod.spec.containers ?? []),
];

export function wholeProcessors(pod: Pod, container: Container): number {
  if (qosClass(pod) !== "Guaranteed") return 0;
  const milli = milliOf(container.resources?.requests?.["cpu"] ?? container.resources?.limits?.["cpu"]);
  return milli > 0 && milli % 1000 === 0 ? milli / 1000 : 0;
}

export const heldProcessors = (held: Reservations): ReadonlySet<number> =>
  new Set(Object.values(held).flatMap((pod) => Object.values(pod).flatMap((share) => share.processors)));

/** What containers without processors of their own run on. */
export const sharedProcessors = (topology: Topology, held: Reservations): number[] => {
  const taken = heldProcessors(held);
  return topology.processors.map((p) => p.id).filter((id) => !taken.has(id));
};

export function reserve(input: ReserveInput): ReserveResult {
  const { pod, topology, configuration } = input;
  const uid = pod.metadata.uid ?? "";
  const { [uid]: _old, ...others } = input.held;
  const shares: Record<string, Share> = {};
  for (const container of lasting(pod)) {
    const held: Reservations = { ...others, [uid]: shares };
    const wanted = wantedBy(input, container);
    const freeProcessors = new Set(sharedProcessors(topology, held).filter((id) => !input.reservedProcessors.has(id)));
    const freeDevices = new Map(wanted.devices.map(([name]) => [name, freeDevicesOf(input, held, name)]));
    const providers = providersOf(input, held, wanted, freeProcessors, freeDevices);
    const verdict = decideAffinity(
      configuration.topologyManagerPolicy,
      providers,
      topology.nodes.map((n) => n.id),
    );
    if (!verdict.isAllowed) {
      return {
        ok: false,
        reason: "TopologyAffinityError",
        message: "Pod was rejected: Resources cannot be allocated with Topology locality",
      };
    }
    const processors =
      wanted.processors > 0
        ? takeProcessors(topology, freeProcessors, wanted.processors, verdict.nodes)
        : new Set<number>();
    if (!processors) {
      return unexpected(
        `not enough cpus available to satisfy request: requested=${wanted.processors}, available=${freeProcessors.size}`,
      );
    }
    const devices: Record<string, readonly string[]> = {};
    for (const [name, count] of wanted.devices) {
      const free = freeDevices.get(name) ?? new Map();
      if (free.size < count) {
        return unexpected(
          `requested number of devices unavailable for ${name}. Requested: ${count}, Available: ${free.size}`,
        );
      }
      devices[name] = pickDevices(free, count, verdict.nodes);
    }
    const memoryNodes = wanted.memoryBytes > 0 ? memoryNodesFor(input, held, wanted.memoryBytes, verdict.nodes) : [];
    if (!memoryNodes) return unexpected("not enough memory on the NUMA nodes");
    if (processors.size === 0 && wanted.devices.length === 0 && memoryNodes.length === 0) continue;
    shares[container.name] = {
      processors: [...processors].sort((a, b) => a - b),
      memoryNodes,
      memoryBytes: wanted.memoryBytes,
      devices,
    };
  }
  // Plain init containers come before these and run on what they will have.
  const processors = Object.values(shares).flatMap((share) => share.processors);
  for (const { name, restartPolicy } of processors.length > 0 ? (pod.spec.initContainers ?? []) : []) {
    if (restartPolicy === "Always") continue;
    shares[name] = { processors: processors.toSorted((a, b) => a - b), memoryNodes: [], memoryBytes: 0, devices: {} };
  }
  return { ok: true, shares };
}

const unexpected = (why: string): ReserveResult => ({
  ok: false,
  reason: "UnexpectedAdmissionError",
  message: `Pod was rejected: Allocate failed due to ${why}, which is unexpected`,
});

interface Wanted {
  readonly processors: number;
  readonly memoryBytes: number;
  readonly devices: readonly (readonly [string, number])[];
}

function wantedBy({ pod, configuration, devices }: ReserveInput, container: Container): Wanted {
  const limits = container.resources?.limits ?? {};
  const isPinned = configuration.memoryManagerPolicy === "Static" && qosClass(pod) === "Guaranteed";
  return {
    processors: configuration.cpuManagerPolicy === "static" ? wholeProcessors(pod, container) : 0,
    memoryBytes: isPinned ? wholeOf(limits["memory"]) : 0,
    devices: Object.entries(limits).flatMap(([name, text]) =>
      devices.has(name) && wholeOf(text) > 0 ? [[name, wholeOf(text)] as const] : [],
    ),
  };
}

function freeDevicesOf(input: ReserveInput, held: Reservations, name: string): Map<string, readonly number[]> {
  const taken = new Set(
    Object.values(held).flatMap((pod) => Object.values(pod).flatMap((share) => share.devices[name] ?? [])),
  );
  return new Map([...(input.devices.get(name)?.healthy ?? [])].filter(([id]) => !taken.has(id)));
}

/** Near ones first. */
function pickDevices(
  free: ReadonlyMap<string, readonly number[]>,
  count: number,
  near: ReadonlySet<number> | undefined,
): string[] {
  const isNear = (nodes: readonly number[]) =>
    near === undefined || nodes.length === 0 || nodes.some((n) => near.has(n));
  const rows = [...free].sort(([a, an], [b, bn]) => Number(isNear(bn)) - Number(isNear(an)) || (a < b ? -1 : 1));
  return rows.slice(0, count).map(([id]) => id);
}

function memoryTaken(held: Reservations, node: number): number {
  let sum = 0;
  for (const pod of Object.values(held)) {
    for (const share of Object.values(pod)) {
      if (share.memoryNodes.includes(node)) sum += share.memoryBytes / share.memoryNodes.length;
    }
  }
  return sum;
}

const memoryFree = (input: ReserveInput, held: Reservations, nodes: ReadonlySet<number>): number =>
  input.topology.nodes
    .filter((n) => nodes.has(n.id))
    .reduce((sum, n) => sum + n.memoryBytes - memoryTaken(held, n.id), 0);

/** The fewest nodes with room, within `near` where that is enough. */
function memoryNodesFor(
  input: ReserveInput,
  held: Reservations,
  bytes: number,
  near: ReadonlySet<number> | undefined,
): number[] | undefined {
  const ids = input.topology.nodes.map((n) => n.id);
  if (near && memoryFree(input, held, near) >= bytes) return [...near].sort((a, b) => a - b);
  const single = ids.find((id) => memoryFree(input, held, new Set([id])) >= bytes);
  if (single !== undefined) return [single];
  return memoryFree(input, held, new Set(ids)) >= bytes ? ids : undefined;
}

function providersOf(
  input: ReserveInput,
  held: Reservations,
  wanted: Wanted,
  freeProcessors: ReadonlySet<number>,
  freeDevices: ReadonlyMap<string, ReadonlyMap<string, readonly number[]>>,
): AffinityProvider[] {
  const { topology, reservedProcessors } = input;
  const out: AffinityProvider[] = [];
  if (wanted.processors > 0) {
    const on = (nodes: ReadonlySet<number>, usable: (id: number) => boolean) =>
      topology.processors.filter((p) => nodes.has(p.numa) && usable(p.id)).length >= wanted.processors;
    out.push({
      fits: (nodes) => on(nodes, (id) => freeProcessors.has(id)),
      couldFit: (nodes) => on(nodes, (id) => !reservedProcessors.has(id)),
    });
  }
  if (wanted.memoryBytes > 0) {
    out.push({
      fits: (nodes) => memoryFree(input, held, nodes) >= wanted.memoryBytes,
      couldFit: (nodes) => memoryFree(input, {}, nodes) >= wanted.memoryBytes,
    });
  }
  for (const [name, count] of wanted.devices) {
    const all = input.devices.get(name)?.healthy ?? new Map<string, readonly number[]>();
    // Devices that tell no place lie anywhere.
    if ([...all.values()].every((nodes) => nodes.length === 0)) continue;
    const on = (nodes: ReadonlySet<number>, devices: ReadonlyMap<string, readonly number[]>) =>
      [...devices.values()].filter((at) => at.length === 0 || at.some((n) => nodes.has(n))).length >= count;
    out.push({ fits: (nodes) => on(nodes, freeDevices.get(name) ?? new Map()), couldFit: (nodes) => on(nodes, all) });
  }
  return out;
}
