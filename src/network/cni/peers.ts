// What Node objects tell of the overlay: flannel's annotations read and written, so that nodes of k3s and of mote carry
// each other's pods. Whatever another node wrote about itself ends in commands of the kernel's tools, so it is taken only
// in the form it must have; anything else makes that node no peer. Pure.
// Upstream counterpart: flannel's pkg/subnet/kube.
import type { Node } from "#model/gen/core-v1.ts";
import { nameOf } from "#model/object.ts";
import { addressFamily, addressSet } from "#platform/addresses.ts";

export type Backend = "vxlan" | "host-gw" | "wireguard-native" | "none";
/** As nodes call them in their annotations. */
export const backendTypes: Readonly<Record<Exclude<Backend, "none">, string>> = {
  vxlan: "vxlan",
  "host-gw": "host-gw",
  "wireguard-native": "wireguard",
};
export type Family = 4 | 6;
export const families: readonly Family[] = [4, 6];

/** One family of a node: its pods, and how to get there. */
export interface PeerSide {
  /** 10.42.1.0/24 */
  readonly subnet: string;
  readonly publicIp: string;
  /** Of its VXLAN device; absent with other backends. */
  readonly vtepMac: string | undefined;
  /** Of its WireGuard device; absent with other backends. */
  readonly publicKey?: string;
}

export interface Peer {
  readonly name: string;
  /** As it says: vxlan, host-gw, wireguard, ... */
  readonly backend: string;
  readonly sides: Readonly<Partial<Record<Family, PeerSide>>>;
  /** Largest packet its pods can take from the overlay, where it says so: only nodes of mote do. */
  readonly mtu: number | undefined;
}

const prefix = "flannel.alpha.coreos.com/";
/** Ours: flannel has nothing for it. */
const mtuAnnotation = "mote.local/overlay-mtu";
/** Below it IPv6 does not work, and nobody has a network so small. */
const leastMtu = 576;
const names = {
  backend: `${prefix}backend-type`,
  managed: `${prefix}kube-subnet-manager`,
  overwrite: { 4: `${prefix}public-ip-overwrite`, 6: `${prefix}public-ipv6-overwrite` },
  data: { 4: `${prefix}backend-data`, 6: `${prefix}backend-v6-data` },
  publicIp: { 4: `${prefix}public-ip`, 6: `${prefix}public-ipv6` },
} as const;
const vni = 1;

/** Pod ranges of a node by family; what is no range is left out. */
export function rangesOf(node: Node | undefined): Partial<Record<Family, string>> {
  const { podCIDR, podCIDRs } = node?.spec ?? {};
  return rangesByFamily(podCIDRs ?? (podCIDR ? [podCIDR] : []));
}

export function rangesByFamily(cidrs: readonly string[]): Partial<Record<Family, string>> {
  const out: Partial<Record<Family, string>> = {};
  for (const cidr of cidrs) {
    const family = cidrFamily(cidr);
    if (family !== 0) out[family] ??= `${canonical(baseOf(cidr))}${cidr.slice(cidr.indexOf("/"))}`;
  }
  return out;
}

export interface PeerOptions {
  readonly nodeName: string;
  /** Of its VXLAN devices. */
  readonly vtepMac: string;
  /** Of its WireGuard devices, where it has any. */
  readonly publicKey?: string | undefined;
  /** Pods of all nodes: nobody may claim anything outside of it, or the way to everything would be his. */
  readonly clusterCidrs: readonly string[];
}

/** All other nodes that say where their pods are, by name. */
export function peersOf(all: readonly Node[], options: PeerOptions): Peer[] {
  const isInCluster = addressSet(options.clusterCidrs);
  const self = all.find((node) => nameOf(node) === options.nodeName);
  const taken = new Set(Object.values(rangesOf(self)));
  // Whoever tells what is another's as his would be sent what is the other's.
  const takenMacs = new Set([options.vtepMac]);
  const takenKeys = new Set(options.publicKey === undefined ? [] : [options.publicKey]);
  const peers: Peer[] = [];
  for (const node of [...all].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))) {
    const annotations = node.metadata.annotations ?? {};
    if (nameOf(node) === options.nodeName || annotations[names.managed] !== "true") continue;
    const ranges = rangesOf(node);
    const sides: Partial<Record<Family, PeerSide>> = {};
    // One for both families, as mote has it, is his own.
    const ownMacs = new Set<string>();
    const ownKeys = new Set<string>();
    for (const family of families) {
      const subnet = ranges[family];
      const publicIp = annotations[names.publicIp[family]] ?? "";
      if (!subnet || addressFamily(publicIp) !== family) continue;
      // Of two nodes with one range the first by name has it; a range cannot be taken back from a node.
      if (taken.has(subnet) || !isInCluster(baseOf(subnet))) continue;
      taken.add(subnet);
      const data = dataOf(annotations[names.data[family]]);
      const vtepMac = unlessTaken(macOf(data), takenMacs);
      if (vtepMac !== undefined) ownMacs.add(vtepMac);
      const publicKey = unlessTaken(isWireguardKey(data.PublicKey) ? data.PublicKey : undefined, takenKeys);
      if (publicKey !== undefined) ownKeys.add(publicKey);
      sides[family] = {
        ...{ subnet, publicIp: canonical(publicIp), vtepMac },
        ...(publicKey === undefined ? {} : { publicKey }),
      };
    }
    if (Object.keys(sides).length === 0) continue;
    for (const mac of ownMacs) takenMacs.add(mac);
    for (const key of ownKeys) takenKeys.add(key);
    const mtu = Number(annotations[mtuAnnotation]);
    const isMtu = Number.isInteger(mtu) && mtu >= leastMtu && mtu <= 65_535;
    peers.push({
      name: nameOf(node),
      backend: annotations[names.backend] ?? "",
      sides,
      mtu: isMtu ? mtu : undefined,
    });
  }
  return peers;
}

export interface OwnFacts {
  readonly backend: Exclude<Backend, "none">;
  readonly publicIps: Partial<Record<Family, string>>;
  readonly vtepMac: string;
  /** With WireGuard. */
  readonly publicKey?: string | undefined;
  readonly mtu: number;
  /** Where others reach this node when not at its own address, as behind a translation. */
  readonly externalIps: Partial<Record<Family, string>>;
}

/** What has to be written on the own Node; undefined where it stands there already. */
export function ownAnnotations(node: Node, facts: OwnFacts): Record<string, string | null> | undefined {
  const now = node.metadata.annotations ?? {};
  const wanted: Record<string, string | null> = {
    [names.backend]: backendTypes[facts.backend],
    [names.managed]: "true",
    [mtuAnnotation]: String(facts.mtu),
  };
  const ranges = rangesOf(node);
  for (const family of families) {
    const own = facts.publicIps[family];
    const isPublic = ranges[family] !== undefined && own !== undefined;
    const external = facts.externalIps[family];
    if (external !== undefined) wanted[names.overwrite[family]] = external;
    const overwrite = external ?? now[names.overwrite[family]];
    const publicIp = overwrite && addressFamily(overwrite) === family ? overwrite : own;
    wanted[names.publicIp[family]] = isPublic ? publicIp! : null;
    wanted[names.data[family]] = isPublic ? ownData(facts) : null;
  }
  const isSame = Object.entries(wanted).every(([name, value]) => (now[name] ?? null) === value);
  return isSame ? undefined : wanted;
}

/** All of a node that matters here: heartbeats change everything else. */
export function overlayFacts(node: Node): string {
  const annotations = Object.entries(node.metadata.annotations ?? {}).filter(
    ([name]) => name.startsWith(prefix) || name === mtuAnnotation,
  );
  const external = node.status?.addresses?.filter(({ type }) => type === "ExternalIP") ?? [];
  return JSON.stringify([node.spec?.podCIDRs, node.spec?.podCIDR, annotations.sort(), external]);
}

/** What this node would write were its network of another kind; for when it leaves the overlay. */
export function noAnnotations(node: Node): Record<string, null> | undefined {
  const ours = [
    names.backend,
    names.managed,
    mtuAnnotation,
    ...Object.values(names.data),
    ...Object.values(names.publicIp),
  ];
  // Another flannel than ours writes no MTU.
  if (node.metadata.annotations?.[mtuAnnotation] === undefined) return undefined;
  return Object.fromEntries(ours.map((name) => [name, null]));
}

/** The first ExternalIP of each family that a node has. */
export function externalIpsOf(node: Node): Partial<Record<Family, string>> {
  const out: Partial<Record<Family, string>> = {};
  for (const { type, address } of node.status?.addresses ?? []) {
    const family = addressFamily(address);
    if (type === "ExternalIP" && family !== 0) out[family] ??= address;
  }
  return out;
}

/** 32 bytes in Base64, as `wg` writes them. */
export const isWireguardKey = (text: unknown): text is string =>
  typeof text === "string" && /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/.test(text);

/** The network's address: of 10.42.1.0/24 10.42.1.0, which is the address of the node's overlay device. */
export const baseOf = (cidr: string): string => cidr.slice(0, cidr.indexOf("/"));

/** As the kernel prints it: an IPv6 address has many spellings, and what is there is compared with what should be. */
function canonical(address: string): string {
  return address.includes(":") ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

function cidrFamily(cidr: string): 0 | Family {
  const [, address = "", bits = ""] = /^([^/]+)\/(\d{1,3})$/.exec(cidr) ?? [];
  const family = addressFamily(address);
  return family !== 0 && Number(bits) > 0 && Number(bits) <= (family === 4 ? 32 : 128) ? family : 0;
}

interface BackendData {
  readonly VNI?: unknown;
  readonly VtepMAC?: unknown;
  readonly PublicKey?: unknown;
}

const ownData = ({ backend, vtepMac, publicKey }: OwnFacts): string =>
  backend === "vxlan"
    ? JSON.stringify({ VNI: vni, VtepMAC: vtepMac })
    : backend === "wireguard-native"
      ? JSON.stringify({ PublicKey: publicKey })
      : "null";

function dataOf(text: string | undefined): BackendData {
  if (text === undefined || text.length > 1024) return {};
  try {
    return (JSON.parse(text) as BackendData | null) ?? {};
  } catch {
    // Another backend's, or somebody's mistake: either way there is no device to send to.
    return {};
  }
}

const unlessTaken = (one: string | undefined, taken: ReadonlySet<string>): string | undefined =>
  one !== undefined && taken.has(one) ? undefined : one;

function macOf({ VtepMAC: mac, VNI: number }: BackendData): string | undefined {
  const isMac = typeof mac === "string" && /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac);
  return isMac && (number === undefined || number === vni) ? mac.toLowerCase() : undefined;
}
