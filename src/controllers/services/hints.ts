// Topology hints: which zone's clients an endpoint is for. With the annotation topology-mode: Auto each zone gets
// endpoints in proportion to the processors of its nodes, so that no endpoint carries more than a fifth above its share;
// where that cannot be had there are no hints at all. What was given out stays as long as it is still fair. Pure.
// Upstream counterpart: staging/src/k8s.io/endpointslice/topologycache.
import type { Node, Service } from "#model/gen/core-v1.ts";
import type { Endpoint } from "#model/gen/discovery-v1.ts";
import { parseQuantity } from "#model/quantity.ts";

/** What one endpoint may carry beyond its share. */
const overloadThreshold = 0.2;
const zoneLabel = "topology.kubernetes.io/zone";
/** Nodes of these roles run nothing that takes part. */
const excludedLabels = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/** The older name counts first. */
const modeAnnotations = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"] as const;

export function wantsTopologyHints({ metadata: { annotations = {} } }: Service): boolean {
  const mode = annotations[modeAnnotations[0]] ?? annotations[modeAnnotations[1]];
  return mode === "Auto" || mode === "auto";
}

/** Share of each zone in the processors of all nodes; undefined where a ready node says too little, or there is one zone. */
export type ZoneShares = ReadonlyMap<string, number>;

export function zoneShares(nodes: readonly Node[]): ZoneShares | undefined {
  const cores = new Map<string, number>();
  let total = 0;
  for (const { metadata, status } of nodes) {
    const labels = metadata.labels ?? {};
    const isReady = status?.conditions?.some((one) => one.type === "Ready" && one.status === "True");
    if (!isReady || excludedLabels.some((label) => Object.hasOwn(labels, label))) continue;
    const zone = labels[zoneLabel];
    const own = coresOf(status?.allocatable?.["cpu"] ?? "0");
    if (!zone || own <= 0) return undefined;
    cores.set(zone, (cores.get(zone) ?? 0) + own);
    total += own;
  }
  if (cores.size < 2) return undefined;
  return new Map([...cores].sort(([a], [b]) => (a < b ? -1 : 1)).map(([zone, own]) => [zone, own / total]));
}

export const hintMessages = {
  enabled: "Topology Aware Hints has been enabled",
  disabled: "Topology Aware Hints has been disabled",
  nodes: "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes",
  zone: "One or more endpoints do not have a zone specified",
  endpoints: "Insufficient number of endpoints",
  overload: "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold",
} as const;

export type HintPlan =
  /** The zone of each endpoint by its place in the list; not ready ones have none. */
  { readonly zones: readonly (string | undefined)[]; readonly problem?: undefined } | { readonly problem: string };

interface Allocation {
  readonly least: number;
  readonly most: number;
  readonly wanted: number;
}

/** `before`: the zone that each endpoint was for until now. */
export function planHints(
  endpoints: readonly Endpoint[],
  before: readonly (string | undefined)[],
  shares: ZoneShares | undefined,
): HintPlan {
  if (!shares) return { problem: hintMessages.nodes };
  const ready = endpoints.filter(isReady);
  const allocations = allocate(ready.length, shares);
  if ("problem" in allocations) return allocations;
  if (ready.some(({ zone }) => !zone)) return { problem: hintMessages.zone };
  const known = endpoints.map((endpoint, i) => (isReady(endpoint) ? before[i] : undefined));
  if (isFair(endpoints, known, allocations.byZone)) return { zones: known };
  return { zones: distribute(endpoints, allocations.byZone) };
}

const isReady = ({ conditions }: Endpoint): boolean => conditions?.ready === true;

function allocate(
  count: number,
  shares: ZoneShares,
): { readonly byZone: ReadonlyMap<string, Allocation> } | { readonly problem: string } {
  const numbers = `(${count} endpoints, ${shares.size} zones)`;
  if (shares.size > count) return { problem: `${hintMessages.endpoints} ${numbers}` };
  const leastOf = (share: number) => Math.ceil((share * count) / (1 + overloadThreshold) - 1e-9);
  const least = [...shares.values()].reduce((sum, share) => sum + leastOf(share), 0);
  if (least > count) return { problem: `${hintMessages.overload} ${numbers}` };
  const byZone = new Map<string, Allocation>();
  for (const [zone, share] of shares) {
    const own = leastOf(share);
    byZone.set(zone, { least: own, most: own + count - least, wanted: Math.max(share * count, own) });
  }
  return { byZone };
}

/** Every ready endpoint is for a zone that counts, and no zone has too few or too many. */
function isFair(
  endpoints: readonly Endpoint[],
  zones: readonly (string | undefined)[],
  allocations: ReadonlyMap<string, Allocation>,
): boolean {
  const counts = new Map<string, number>();
  for (const [i, endpoint] of endpoints.entries()) {
    if (!isReady(endpoint)) continue;
    const zone = zones[i];
    if (zone === undefined || !allocations.has(zone)) return false;
    counts.set(zone, (counts.get(zone) ?? 0) + 1);
  }
  return [...allocations].every(([zone, { least, most }]) => {
    const count = counts.get(zone) ?? 0;
    return count >= least && count <= most;
  });
}

/** Each endpoint is for its own zone, but for those that a zone with too many gives to one with too few. */
function distribute(
  endpoints: readonly Endpoint[],
  allocations: ReadonlyMap<string, Allocation>,
): (string | undefined)[] {
  const zones = endpoints.map((endpoint) => (isReady(endpoint) ? endpoint.zone : undefined));
  const counts = new Map<string, number>();
  for (const zone of zones) if (zone !== undefined) counts.set(zone, (counts.get(zone) ?? 0) + 1);
  const giving = new Map<string, number>();
  const taking = new Map<string, number>();
  // A zone without ready nodes gives all that it has.
  for (const [zone, count] of counts) if (!allocations.has(zone)) giving.set(zone, count);
  for (const [zone, { wanted }] of allocations) {
    const difference = (counts.get(zone) ?? 0) - wanted;
    if (difference > 0) giving.set(zone, difference);
    else if (difference < 0) taking.set(zone, -difference);
  }
  for (const [i, own] of zones.entries()) {
    if (own === undefined) continue;
    const surplus = giving.get(own) ?? 0;
    const [neediest, need] = most(taking);
    if (neediest === undefined || surplus < 0.5 || need < 0.5 || (surplus < 1 && need < 1)) continue;
    zones[i] = neediest;
    giving.set(own, surplus - 1);
    taking.set(neediest, need - 1);
  }
  return zones;
}

function most(zones: ReadonlyMap<string, number>): readonly [zone: string | undefined, count: number] {
  let found: readonly [string | undefined, number] = [undefined, 0];
  for (const [zone, count] of zones) if (count > found[1]) found = [zone, count];
  return found;
}

const coresOf = (text: string): number => Number(parseQuantity(text).milliValue()) / 1000;
