// The overlay of one node as data: devices, addresses, neighbours, forwarding entries and routes that should be there for
// the peers that are. Nothing is learned from packets: who is where comes from the API alone. Pure.
// Upstream counterpart: flannel's pkg/backend/vxlan and hostgw, whose names, numbers and MTUs are kept, since other nodes
// may be flannel's. WireGuard is in wireguard.ts.
import type { Kernel } from "./kernel.ts";
import { type Backend, backendTypes, baseOf, type Family, families, type Peer } from "./peers.ts";
import { devicesOnLink, type Underlay } from "./underlay.ts";
import { type OwnKey, planWireguard, type WantedWireguard, wireguardOverhead } from "./wireguard.ts";

export const vxlanDevices: Readonly<Record<Family, string>> = { 4: "flannel.1", 6: "flannel-v6.1" };
/** Outer Ethernet, IP, UDP and VXLAN headers. */
const vxlanOverhead: Readonly<Record<Family, number>> = { 4: 50, 6: 70 };
const vxlanPort = 8472;
/** Of a machine without any network, until it has one. */
const ethernetMtu = 1500;

interface AnyDevice {
  readonly name: string;
  readonly family: Family;
  readonly mtu: number;
  /** 10.42.0.0/32 */
  readonly address: string;
}
export interface WantedVxlanDevice extends AnyDevice {
  readonly kind: "vxlan";
  readonly mac: string;
  readonly vxlan: {
    readonly id: number;
    readonly port: number;
    readonly local: string;
    readonly device: string | undefined;
  };
}
export interface WantedWireguardDevice extends AnyDevice {
  readonly kind: "wireguard";
  readonly wireguard: WantedWireguard;
}
export type WantedDevice = WantedVxlanDevice | WantedWireguardDevice;
export interface WantedRoute {
  readonly family: Family;
  readonly subnet: string;
  /** Undefined: the device itself knows where to. */
  readonly via: string | undefined;
  readonly device: string;
  /** The gateway is no address of a network that the device is part of. */
  readonly isOnLink: boolean;
  readonly mtu: number | undefined;
}
export interface WantedNeighbour {
  readonly device: string;
  readonly ip: string;
  readonly mac: string;
}
export interface WantedForward {
  readonly device: string;
  readonly mac: string;
  readonly to: string;
}
/** A peer whose pods cannot be reached, and why. */
export interface Problem {
  readonly node: string;
  readonly reason:
    | "OverlayBackendDiffers"
    | "OverlayPeerNotOnLink"
    | "OverlayPeerUnreachable"
    | "OverlayAddressMissing"
    | "OverlayWireguardMissing";
  readonly message: string;
}
export interface Wanted {
  readonly devices: readonly WantedDevice[];
  readonly routes: readonly WantedRoute[];
  readonly neighbours: readonly WantedNeighbour[];
  readonly forwards: readonly WantedForward[];
  readonly problems: readonly Problem[];
}

export interface PlanInput {
  readonly nodeName: string;
  readonly backend: Backend;
  /** Of this node's VXLAN devices. */
  readonly vtepMac: string;
  /** Of this node's WireGuard devices, where it is to have any. */
  readonly wireguardKey?: OwnKey | undefined;
  readonly ranges: Readonly<Partial<Record<Family, string>>>;
  readonly underlay: Underlay | undefined;
  /** `--flannel-iface`: packets leave by that device, whatever the routes say. */
  readonly isDeviceFixed: boolean;
  readonly peers: readonly Peer[];
  readonly kernel: Kernel;
}

export function planOverlay(input: PlanInput): Wanted {
  const plan = { devices: [], routes: [], neighbours: [], forwards: [], problems: [] };
  if (input.backend === "none" || !input.underlay) return plan;
  const sameBackend: Peer[] = [];
  const problems: Problem[] = lackedAddresses(input, input.underlay);
  for (const peer of input.peers) {
    if (peer.backend === backendTypes[input.backend]) sameBackend.push(peer);
    else {
      const message = `Pods of node ${peer.name} cannot be reached: its overlay is ${peer.backend || "unknown"}, this node's ${backendTypes[input.backend]}`;
      problems.push({ node: peer.name, reason: "OverlayBackendDiffers", message });
    }
  }
  if (input.backend === "wireguard-native") return planWireguard(input, input.underlay, sameBackend, problems);
  return input.backend === "vxlan"
    ? planVxlan(input, input.underlay, sameBackend, problems)
    : planHostGateway(input, sameBackend, problems);
}

/** Packets of a family travel in packets of the same. */
function lackedAddresses({ nodeName: node, peers, ranges }: PlanInput, { addresses }: Underlay): Problem[] {
  return families.flatMap((family): Problem[] => {
    if (!ranges[family] || addresses[family] || !peers.some(({ sides }) => sides[family])) return [];
    const message = `Pods of other nodes cannot be reached over IPv${family}: this node has no IPv${family} address on the network of its overlay`;
    return [{ node, reason: "OverlayAddressMissing", message }];
  });
}

function planVxlan(input: PlanInput, underlay: Underlay, peers: readonly Peer[], problems: Problem[]): Wanted {
  const devices: WantedDevice[] = [];
  const routes: WantedRoute[] = [];
  const neighbours: WantedNeighbour[] = [];
  const forwards: WantedForward[] = [];
  const mtu = podMtu("vxlan", underlay, input.ranges);
  for (const family of families) {
    const range = input.ranges[family];
    const local = underlay.addresses[family];
    if (!range || !local) continue;
    const device = vxlanDevices[family];
    devices.push({
      ...{ kind: "vxlan", name: device, family, mtu, mac: input.vtepMac },
      address: `${baseOf(range)}/${family === 4 ? 32 : 128}`,
      vxlan: { id: 1, port: vxlanPort, local, device: input.isDeviceFixed ? underlay.device : undefined },
    });
    for (const peer of peers) {
      const side = peer.sides[family];
      if (!side) continue;
      if (!side.vtepMac) {
        const message = `Pods of node ${peer.name} cannot be reached: it does not tell the address of its VXLAN device`;
        problems.push({ node: peer.name, reason: "OverlayPeerUnreachable", message });
        continue;
      }
      const gateway = baseOf(side.subnet);
      neighbours.push({ device, ip: gateway, mac: side.vtepMac });
      forwards.push({ device, mac: side.vtepMac, to: side.publicIp });
      routes.push({
        ...{ family, subnet: side.subnet, via: gateway, device, isOnLink: true },
        mtu: peer.mtu !== undefined && peer.mtu < mtu ? peer.mtu : undefined,
      });
    }
  }
  return { devices, routes, neighbours, forwards, problems };
}

function planHostGateway(input: PlanInput, peers: readonly Peer[], problems: Problem[]): Wanted {
  const routes: WantedRoute[] = [];
  const onLink = { 4: devicesOnLink(input.kernel, 4), 6: devicesOnLink(input.kernel, 6) };
  for (const peer of peers) {
    for (const family of families) {
      const side = peer.sides[family];
      if (!side || !input.ranges[family]) continue;
      const device = onLink[family].find(({ has }) => has(side.publicIp))?.device;
      if (device) {
        routes.push({ family, subnet: side.subnet, via: side.publicIp, device, isOnLink: false, mtu: undefined });
        continue;
      }
      const message = `Pods of node ${peer.name} cannot be reached: ${side.publicIp} is on no network of this node, and host-gw does not cross routers; use vxlan`;
      problems.push({ node: peer.name, reason: "OverlayPeerNotOnLink", message });
    }
  }
  return { devices: [], routes, neighbours: [], forwards: [], problems };
}

/** Largest packet of pods. One for both families, since one bridge carries both. */
export function podMtu(
  backend: Backend,
  underlay: Underlay | undefined,
  ranges: Readonly<Partial<Record<Family, string>>>,
): number {
  const mtu = underlay?.mtu ?? ethernetMtu;
  if (backend === "wireguard-native") return mtu - wireguardOverhead;
  if (backend !== "vxlan") return mtu;
  return mtu - vxlanOverhead[ranges[6] !== undefined ? 6 : 4];
}
