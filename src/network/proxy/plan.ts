// The nftables table that forwards services of one address family, from service ports. Pure.
//
//   prerouting, output (nat)                           filter: input, forward, output
//     cluster IP . proto . port  ─► svc-ID               service without endpoints ─► refuse (tcp reset / icmp)
//     external IP . proto . port ─► ext-ID               cluster IP, port unknown  ─► refuse
//     local address: proto . node port ─► ext-ID
//   ext-ID: Local policy? ─► loc-ID or drop; else masquerade mark ─► svc-ID
//   svc-ID, loc-ID: known client ─► its ep-ID/…; else one at random
//   ep-ID/IP/PORT: hairpin mark, remember client, dnat
//
//   postrouting: marked ─► masquerade; from pods to outside the cluster ─► masquerade
//
// Upstream counterpart: pkg/proxy/nftables/proxier.go.
import { familyOfIp, type IpFamily, parseIpRange } from "#base/ip-range.ts";
import type { Chain, Collection, Ruleset, TableFamily } from "./ruleset.ts";
import type { Endpoint, ServicePort } from "./service-port.ts";

export interface ProxyPlanOptions {
  readonly table: string;
  /** Pods of all nodes; the table is of its family. */
  readonly clusterCidr: string;
  /** Pods reach what is outside of the cluster under their node's address. */
  readonly masqueradesOutside: boolean;
  /** False where bridged packets pass nftables unseen: then answers between pods on one bridge are kept on the path by masquerade. */
  readonly hasBridgeNetfilter: boolean;
}

/** The bit kube-proxy uses for the same purpose. */
const masqueradeBit = "0x4000";
/** Clients remembered per endpoint; beyond it new ones go unremembered. */
const affinityMax = 65_535;

interface Dialect {
  readonly family: TableFamily;
  readonly addressType: string;
  readonly unreachable: string;
  readonly multicast: string;
  /** Node ports are at all addresses of the machine but these. */
  readonly nodePortMatch: string;
}
const dialects: Readonly<Record<IpFamily, Dialect>> = {
  IPv4: {
    family: "ip",
    addressType: "ipv4_addr",
    unreachable: "icmp type port-unreachable",
    multicast: "224.0.0.0/4",
    nodePortMatch: "",
  },
  IPv6: {
    family: "ip6",
    addressType: "ipv6_addr",
    unreachable: "icmpv6 type port-unreachable",
    multicast: "ff00::/8",
    // The kernel never sends what comes from there to another machine: a refusal is better than silence.
    nodePortMatch: "ip6 daddr != ::1 ",
  },
};
const dialectOf = ({ clusterCidr }: ProxyPlanOptions): Dialect => dialects[familyOfIp(clusterCidr)];

const serviceKey = (addressType: string) => `type ${addressType} . inet_proto . inet_service : verdict;`;
const nodePortKey = "type inet_proto . inet_service : verdict;";

export function planProxy(ports: readonly ServicePort[], options: ProxyPlanOptions): Ruleset {
  const chains = new Map<string, Chain>();
  const collections = new Map<string, Collection>();
  const serviceIps = new Map<string, string>();
  const nodePorts = new Map<string, string>();
  const refusedServices = new Map<string, string>();
  const refusedNodePorts = new Map<string, string>();
  const clusterIps = new Map<string, string>();
  const { family, addressType } = dialectOf(options);
  addBaseChains(chains, options);

  for (const port of ports) {
    const all = port.endpoints;
    const local = port.localEndpoints;
    const internal = port.isInternalLocal ? local : all;
    const hasExternal = port.nodePort !== undefined || port.externalIps.length > 0 || port.loadBalancerIps.length > 0;
    const at = (ip: string): string => `${ip} . ${port.protocol} . ${port.port}`;
    clusterIps.set(port.clusterIp, "");

    const balance = (name: string, endpoints: readonly Endpoint[]) =>
      chains.set(name, { hook: undefined, rules: balancerRules(port, endpoints, family) });
    if (all.length > 0 && (hasExternal || !port.isInternalLocal)) balance(`svc-${port.id}`, all);
    if (local.length > 0 && ((hasExternal && port.isExternalLocal) || port.isInternalLocal)) {
      balance(`loc-${port.id}`, local);
    }
    for (const endpoint of reachable(port)) addEndpoint(chains, collections, port, endpoint, options);

    if (internal.length > 0)
      serviceIps.set(at(port.clusterIp), `goto ${port.isInternalLocal ? "loc" : "svc"}-${port.id}`);
    // Endpoints elsewhere but none here: the client should try again, not give up.
    else refusedServices.set(at(port.clusterIp), all.length > 0 ? "drop" : "goto refuse");

    if (!hasExternal) continue;
    if (all.length === 0) {
      for (const ip of [...port.externalIps, ...port.loadBalancerIps]) refusedServices.set(at(ip), "goto refuse");
      if (port.nodePort) refusedNodePorts.set(`${port.protocol} . ${port.nodePort}`, "goto refuse");
      continue;
    }
    chains.set(`ext-${port.id}`, { hook: undefined, rules: externalRules(port, local.length > 0, options) });
    for (const ip of port.externalIps) serviceIps.set(at(ip), `goto ext-${port.id}`);
    if (port.nodePort) nodePorts.set(`${port.protocol} . ${port.nodePort}`, `goto ext-${port.id}`);
    if (port.loadBalancerIps.length > 0 && port.sourceRanges.length > 0) {
      const rules = [`${family} saddr { ${merged(port.sourceRanges)} } goto ext-${port.id}`, "drop"];
      chains.set(`fw-${port.id}`, { hook: undefined, rules });
    }
    for (const ip of port.loadBalancerIps) {
      serviceIps.set(at(ip), `goto ${port.sourceRanges.length > 0 ? "fw" : "ext"}-${port.id}`);
    }
  }

  const declaration = serviceKey(addressType);
  collections.set("service-ips", { kind: "map", declaration, elements: serviceIps });
  collections.set("node-ports", { kind: "map", declaration: nodePortKey, elements: nodePorts });
  collections.set("refused-services", { kind: "map", declaration, elements: refusedServices });
  collections.set("refused-node-ports", { kind: "map", declaration: nodePortKey, elements: refusedNodePorts });
  collections.set("cluster-ips", { kind: "set", declaration: `type ${addressType};`, elements: clusterIps });
  return { family, table: options.table, chains, collections };
}

/** Where hints keep clients in their zone, or others are ready elsewhere, a local one may be in its own list only. */
const reachable = ({ endpoints, localEndpoints }: ServicePort): readonly Endpoint[] => [
  ...endpoints,
  ...localEndpoints.filter((one) => !endpoints.some(({ ip, port }) => ip === one.ip && port === one.port)),
];

function addBaseChains(chains: Map<string, Chain>, options: ProxyPlanOptions): void {
  const { clusterCidr, hasBridgeNetfilter, masqueradesOutside } = options;
  const { family: ip, multicast, nodePortMatch, unreachable } = dialectOf(options);
  const base = (name: string, hook: string, ...rules: string[]) =>
    chains.set(name, { hook: `${hook} policy accept;`, rules });
  const plain = (name: string, ...rules: string[]) => chains.set(name, { hook: undefined, rules });

  plain("mark-for-masquerade", `meta mark set meta mark or ${masqueradeBit}`);
  plain("refuse", "meta l4proto tcp reject with tcp reset", `reject with ${unreachable}`);
  plain(
    "services",
    `${ip} daddr @cluster-ips ${ip} saddr != ${clusterCidr} jump mark-for-masquerade`,
    `${ip} daddr . meta l4proto . th dport vmap @service-ips`,
    `${nodePortMatch}fib daddr type local meta l4proto . th dport vmap @node-ports`,
  );
  plain(
    "refusals",
    `${ip} daddr . meta l4proto . th dport vmap @refused-services`,
    "fib daddr type local meta l4proto . th dport vmap @refused-node-ports",
    // Whatever still goes to a cluster address here was not translated: there is no such port.
    `${ip} daddr @cluster-ips goto refuse`,
  );
  // Node ports on 127.0.0.1 need route_localnet, which would open 127.0.0.0/8 to the network; this closes it again.
  if (ip === "ip") {
    base("guard", "type filter hook prerouting priority -300;", 'iifname != "lo" ip daddr 127.0.0.0/8 drop');
  }
  base("prerouting", "type nat hook prerouting priority -100;", "jump services");
  base("output", "type nat hook output priority -100;", "jump services");
  base("filter-input", "type filter hook input priority 0;", "ct state new jump refusals");
  base("filter-forward", "type filter hook forward priority 0;", "ct state new jump refusals");
  base("filter-output", "type filter hook output priority 0;", "ct state new jump refusals");
  base(
    "postrouting",
    "type nat hook postrouting priority 100;",
    `meta mark & ${masqueradeBit} == ${masqueradeBit} meta mark set meta mark xor ${masqueradeBit} masquerade fully-random`,
    ...(masqueradesOutside
      ? [`${ip} saddr ${clusterCidr} ${ip} daddr != { ${clusterCidr}, ${multicast} } masquerade fully-random`]
      : []),
    ...(hasBridgeNetfilter ? [] : [`ct status dnat ${ip} saddr ${clusterCidr} ${ip} daddr ${clusterCidr} masquerade`]),
  );
}

function externalRules(port: ServicePort, hasLocal: boolean, options: ProxyPlanOptions): string[] {
  if (!port.isExternalLocal) return ["jump mark-for-masquerade", `goto svc-${port.id}`];
  return [
    // From inside the cluster the external address is a short cut for the service: any endpoint will do.
    `${dialectOf(options).family} saddr ${options.clusterCidr} goto svc-${port.id}`,
    "fib saddr type local jump mark-for-masquerade",
    `fib saddr type local goto svc-${port.id}`,
    hasLocal ? `goto loc-${port.id}` : "drop",
  ];
}

function balancerRules(port: ServicePort, endpoints: readonly Endpoint[], ip: TableFamily): string[] {
  const rules: string[] = [];
  if (port.affinitySeconds !== undefined) {
    for (const e of endpoints) rules.push(`${ip} saddr @${affinityName(port, e)} goto ${endpointName(port, e)}`);
  }
  const targets = endpoints.map((e, i) => `${i} : goto ${endpointName(port, e)}`);
  if (endpoints.length === 1) rules.push(`goto ${endpointName(port, endpoints[0]!)}`);
  else rules.push(`numgen random mod ${endpoints.length} vmap { ${targets.join(", ")} }`);
  return rules;
}

function addEndpoint(
  chains: Map<string, Chain>,
  collections: Map<string, Collection>,
  port: ServicePort,
  endpoint: Endpoint,
  options: ProxyPlanOptions,
): void {
  const { family: ip, addressType } = dialectOf(options);
  const rules = [`${ip} saddr ${endpoint.ip} jump mark-for-masquerade`];
  if (port.affinitySeconds !== undefined) {
    const name = affinityName(port, endpoint);
    const declaration = `type ${addressType}; flags dynamic,timeout; timeout ${port.affinitySeconds}s; size ${affinityMax};`;
    collections.set(name, { kind: "set", declaration, elements: new Map() });
    rules.push(`update @${name} { ${ip} saddr }`);
  }
  rules.push(
    `meta l4proto ${port.protocol} dnat to ${ip === "ip" ? endpoint.ip : `[${endpoint.ip}]`}:${endpoint.port}`,
  );
  chains.set(endpointName(port, endpoint), { hook: undefined, rules });
}

const endpointName = (port: ServicePort, e: Endpoint): string => `ep-${port.id}/${nameOf(e)}`;
/** Names cannot have colons. */
const nameOf = ({ ip, port }: Endpoint): string => `${ip.replaceAll(":", ".")}/${port}`;
/** The timeout is part of the name because a set cannot change it. */
const affinityName = (port: ServicePort, e: Endpoint): string => `aff-${port.id}/${nameOf(e)}/${port.affinitySeconds}`;

/** nft refuses overlapping ranges in one set: keeps those that no other covers. */
function merged(ranges: readonly string[]): string {
  const parsed = ranges.flatMap((text) => {
    const range = parseIpRange(text);
    if (!range) return [];
    return { text, start: range.base, end: range.base + (1n << BigInt(range.hostBits)) };
  });
  const kept = parsed.filter(
    (a, i) =>
      !parsed.some((b, j) => b.start <= a.start && a.end <= b.end && (b.end - b.start > a.end - a.start || j < i)),
  );
  return kept.map((r) => r.text).join(", ");
}

/** UDP flows that must be forgotten: their endpoint has gone, or the service had none when they began. */
export interface StaleFlow {
  readonly protocol: "udp";
  readonly originalIp?: string;
  readonly originalPort?: number;
  readonly endpointIp?: string;
}

/** Entries the kernel would keep sending to where nobody listens: UDP has no end that would clear them. */
export function staleFlows(before: readonly ServicePort[], after: readonly ServicePort[]): StaleFlow[] {
  const now = new Map(after.map((port) => [port.id, port]));
  const was = new Map(before.map((port) => [port.id, port]));
  const out: StaleFlow[] = [];
  for (const old of before) {
    if (old.protocol !== "udp") continue;
    const current = now.get(old.id);
    const kept = new Set(current && reachable(current).map((e) => `${e.ip}:${e.port}`));
    for (const { ip, port } of reachable(old)) if (!kept.has(`${ip}:${port}`)) out.push(...flowsOf(old, ip));
  }
  for (const port of after) {
    if (port.protocol !== "udp" || port.endpoints.length === 0) continue;
    if ((was.get(port.id)?.endpoints.length ?? 0) === 0) out.push(...flowsOf(port, undefined));
  }
  return out;
}

/** Where there are many, fewer that say less: by endpoint, whichever service led to it. */
export function fewerFlows(flows: readonly StaleFlow[], max: number): readonly StaleFlow[] {
  if (flows.length <= max) return flows;
  const endpointIps = new Set(flows.flatMap(({ endpointIp }) => endpointIp ?? []));
  return [
    ...[...endpointIps].map((endpointIp) => ({ protocol: "udp" as const, endpointIp })),
    ...flows.filter(({ endpointIp }) => endpointIp === undefined),
  ];
}

function flowsOf(port: ServicePort, endpointIp: string | undefined): StaleFlow[] {
  const rest = endpointIp === undefined ? {} : { endpointIp };
  const ips = [port.clusterIp, ...port.externalIps, ...port.loadBalancerIps];
  return [
    ...ips.map((originalIp) => ({ protocol: "udp" as const, originalIp, originalPort: port.port, ...rest })),
    ...(port.nodePort ? [{ protocol: "udp" as const, originalPort: port.nodePort, ...rest }] : []),
  ];
}
