// What joining nodes and servers say to each other: paths, headers and the settings of the cluster, in k3s's words, so that
// either end may be a k3s. Settings carry Go's field names and Go's form of an address range.
// Upstream counterpart: k3s pkg/server/handlers and pkg/daemons/config.Control.
import { AppError } from "#base/errors.ts";
import { canonicalIp } from "#base/ip-range.ts";
import { isIp } from "#model/validation/names.ts";
import { type EgressMode, egressModes } from "../tunnel/egress.ts";

export const prefix = "/v1-k3s/";
/** Lower case, as they arrive. */
export const headers = {
  nodeName: "k3s-node-name",
  nodePassword: "k3s-node-password",
  nodeIp: "k3s-node-ip",
  /** Of the sender; both ways. k3s does not know it. */
  version: "mote-version",
  /** Base64 of the public half of the device's own key, beside name and password. */
  deviceKey: "mote-device-key",
} as const;

/** What a node takes from its server. */
export interface ClusterSettings {
  /** The range, or both with a comma between. */
  readonly clusterCidr: string;
  readonly serviceCidr: string;
  /** One of each family that services have. */
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  readonly egressMode: EgressMode;
  /** As flags have it; whether this node has it is not said here. */
  readonly flannelBackend: string;
  readonly flannelExternalIp: boolean;
  /** Pods reach what is outside of the cluster under their node's IPv6 address. */
  readonly flannelIpv6Masq: boolean;
  /** Nodes translate service addresses themselves. */
  readonly hasServiceProxy: boolean;
  /** Else of k3s, which lets no identity of a node read all that a node of mote reads as one. */
  readonly isMote: boolean;
}

export interface ServerSettings extends Omit<ClusterSettings, "isMote"> {
  readonly nodePorts: { readonly first: number; readonly last: number };
  readonly port: number;
}

export function formatSettings(settings: ServerSettings): Record<string, unknown> {
  const { clusterDns, nodePorts, port } = settings;
  const cluster = settings.clusterCidr.split(",").map(goNetwork);
  const services = settings.serviceCidr.split(",").map(goNetwork);
  return {
    ClusterIPRange: cluster[0],
    ClusterIPRanges: cluster,
    ServiceIPRange: services[0],
    ServiceIPRanges: services,
    ServiceNodePortRange: { Base: nodePorts.first, Size: nodePorts.last - nodePorts.first + 1 },
    ClusterDNS: clusterDns[0],
    ClusterDNSs: clusterDns,
    ClusterDomain: settings.clusterDomain,
    FlannelBackend: settings.flannelBackend,
    FlannelIPv6Masq: settings.flannelIpv6Masq,
    FlannelExternalIP: settings.flannelExternalIp,
    EgressSelectorMode: settings.egressMode,
    EmbeddedRegistry: false,
    DisableKubeProxy: !settings.hasServiceProxy,
    // Nobody would take the taint away that nodes of a cloud wait for.
    DisableCCM: true,
    DisableNPC: false,
    DisableServiceLB: true,
    HTTPSPort: port,
    SupervisorPort: port,
    APIServerPort: port,
    SupervisorMetrics: false,
    Rootless: false,
    // k3s leaves alone what it does not know.
    Mote: true,
  };
}

/** Throws JOIN_ANSWER naming the field. */
export function parseSettings(text: string): ClusterSettings {
  const fields = objectOf(text);
  const string = (name: string): string => {
    const value = fields[name];
    if (typeof value !== "string" || value === "") throw wrong(name);
    return value;
  };
  /** The list, or the one that stands beside it for those who know no list. */
  const list = <T>(name: string, one: string, read: (value: unknown) => T | undefined): T[] => {
    const given = fields[name];
    const all = Array.isArray(given) && given.length > 0 ? given : [fields[one]];
    const found = all.flatMap((value) => read(value) ?? []);
    if (found.length !== all.length || found.length > 2) throw wrong(one);
    return found;
  };
  const egressMode = egressModes.find((mode) => mode === fields["EgressSelectorMode"]) ?? "agent";
  return {
    clusterCidr: list("ClusterIPRanges", "ClusterIPRange", plainNetwork).join(","),
    serviceCidr: list("ServiceIPRanges", "ServiceIPRange", plainNetwork).join(","),
    clusterDns: list("ClusterDNSs", "ClusterDNS", plainAddress),
    clusterDomain: string("ClusterDomain"),
    egressMode,
    flannelBackend: string("FlannelBackend"),
    flannelExternalIp: fields["FlannelExternalIP"] === true,
    flannelIpv6Masq: fields["FlannelIPv6Masq"] === true,
    hasServiceProxy: fields["DisableKubeProxy"] !== true,
    isMote: fields["Mote"] === true,
  };
}

/** Of the list of HOST:PORT; what is none says nothing. */
export function parseServers(text: string): readonly string[] {
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) ? list.filter((one): one is string => typeof one === "string") : [];
  } catch {
    return [];
  }
}

function objectOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said below: it is no object either.
  }
  throw new AppError("JOIN_ANSWER", "the server's settings are no JSON object");
}

const wrong = (field: string): AppError =>
  new AppError("JOIN_ANSWER", `the server's settings have no usable ${field}: is it a server of another kind?`);

/** Go's net.IPNet as JSON. */
function goNetwork(cidr: string): { IP: string; Mask: string } {
  const [address = "", bits = "32"] = cidr.split("/");
  const mask = Buffer.alloc(address.includes(":") ? 16 : 4);
  for (let bit = 0; bit < Number(bits); bit++) mask[bit >> 3]! |= 0x80 >> (bit & 7);
  return { IP: address, Mask: mask.toString("base64") };
}

function plainNetwork(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { IP: address, Mask: mask } = value as Readonly<Record<string, unknown>>;
  if (typeof address !== "string" || typeof mask !== "string" || !isIp(address)) return undefined;
  const bytes = Buffer.from(mask, "base64");
  if (bytes.length !== (address.includes(":") ? 16 : 4)) return undefined;
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return /^1+0*$/.test(bits) ? `${canonicalIp(address)}/${bits.lastIndexOf("1") + 1}` : undefined;
}

const plainAddress = (value: unknown): string | undefined =>
  typeof value === "string" && isIp(value) ? canonicalIp(value) : undefined;
