// The overlay over WireGuard: one device for each family, a peer on it for each node, whose pods are the addresses that it may
// send from and is sent to. From what `wg` tells of the devices to the calls that bring them in step. A peer whose packets
// come from elsewhere than it says, as behind a translation, is left there for as long as it answers. Pure.
// Upstream counterpart: flannel's pkg/backend/wireguard in its mode "separate", whose names, ports and MTU are kept.
import { baseOf, type Family, families, type Peer } from "./peers.ts";
import type { PlanInput, Problem, Wanted, WantedRoute } from "./plan.ts";
import type { Underlay } from "./underlay.ts";

export const wireguardDevices: Readonly<Record<Family, string>> = { 4: "flannel-wg", 6: "flannel-wg-v6" };
const ports: Readonly<Record<Family, number>> = { 4: 51_820, 6: 51_821 };
/** Outer IPv6, UDP and WireGuard headers and the tag; one for both families, as flannel has it. */
export const wireguardOverhead = 80;
/** As k3s sets it: translations on the way forget a peer that is silent for half a minute. */
export const keepaliveSeconds = 25;
/** A session is given up after this, so an older handshake says nothing about where a peer is. */
const sessionSeconds = 180;
/** In one call of `wg`: far below the kernel's bound for a command line. */
const peersPerCall = 200;

/** This node's key: one for both families, so that others need to be told one. */
export interface OwnKey {
  readonly publicKey: string;
  /** Of the private one, which only `wg` reads. */
  readonly file: string;
}

export interface WantedWireguardPeer {
  readonly publicKey: string;
  /** 192.0.2.2:51820 or [2001:db8::2]:51821, as `wg` prints it. */
  readonly endpoint: string;
  /** 10.42.1.0/24 */
  readonly subnet: string;
}

export interface WantedWireguard {
  readonly key: OwnKey;
  readonly port: number;
  readonly peers: readonly WantedWireguardPeer[];
}

/** A device as `wg` tells it. */
export interface WireguardState {
  readonly device: string;
  readonly publicKey: string;
  readonly port: number;
  readonly peers: readonly {
    readonly publicKey: string;
    readonly endpoint: string | undefined;
    readonly subnets: readonly string[];
    /** 0: never. */
    readonly handshakeSeconds: number;
    readonly keepaliveSeconds: number;
  }[];
}

export function planWireguard(
  { ranges, wireguardKey }: PlanInput,
  underlay: Underlay,
  peers: readonly Peer[],
  problems: Problem[],
): Wanted {
  const devices: Wanted["devices"][number][] = [];
  const routes: WantedRoute[] = [];
  const mtu = underlay.mtu - wireguardOverhead;
  for (const family of families) {
    const range = ranges[family];
    if (!range || !underlay.addresses[family] || !wireguardKey) continue;
    const device = wireguardDevices[family];
    const wanted: WantedWireguardPeer[] = [];
    for (const peer of peers) {
      const side = peer.sides[family];
      if (!side) continue;
      if (!side.publicKey) {
        const message = `Pods of node ${peer.name} cannot be reached: it does not tell its WireGuard key, or tells another's`;
        problems.push({ node: peer.name, reason: "OverlayPeerUnreachable", message });
        continue;
      }
      const host = family === 4 ? side.publicIp : `[${side.publicIp}]`;
      wanted.push({ publicKey: side.publicKey, endpoint: `${host}:${ports[family]}`, subnet: side.subnet });
      routes.push({
        ...{ family, subnet: side.subnet, via: undefined, device, isOnLink: false },
        mtu: peer.mtu !== undefined && peer.mtu < mtu ? peer.mtu : undefined,
      });
    }
    devices.push({
      ...{ kind: "wireguard", name: device, family, mtu },
      address: `${baseOf(range)}/${family === 4 ? 32 : 128}`,
      wireguard: { key: wireguardKey, port: ports[family], peers: wanted },
    });
  }
  return { devices, routes, neighbours: [], forwards: [], problems };
}

export interface CallsInput {
  /** Devices that are there and stay; others are new, with nothing set. */
  readonly states: readonly WireguardState[];
  /** `endpointsOf` of the last look. */
  readonly endpoints: ReadonlyMap<string, string>;
  readonly nowSeconds: number;
}

/** Arguments of `wg`, a call each. */
export function wireguardCalls(wanted: Wanted, { states, endpoints, nowSeconds }: CallsInput): string[][] {
  const calls: string[][] = [];
  for (const device of wanted.devices) {
    if (device.kind !== "wireguard") continue;
    const { key, port, peers } = device.wireguard;
    const state = states.find((one) => one.device === device.name);
    const own: string[] = [];
    if (state?.port !== port) own.push("listen-port", String(port));
    if (state?.publicKey !== key.publicKey) own.push("private-key", key.file);
    const known = new Map(state?.peers.map((peer) => [peer.publicKey, peer]));
    const keys = new Set(peers.map(({ publicKey }) => publicKey));
    // Those that go first: their addresses may be another's now.
    const changes = [...known.keys()].filter((one) => !keys.has(one)).map((one) => ["peer", one, "remove"]);
    for (const peer of peers) {
      const { publicKey, endpoint, subnet } = peer;
      const now = known.get(publicKey);
      const ageSeconds = nowSeconds - (now?.handshakeSeconds ?? 0);
      // The clock may have been set meanwhile.
      const hasAnswered = ageSeconds >= 0 && ageSeconds < sessionSeconds;
      const before = endpoints.get(`${device.name} ${publicKey}`);
      const hasMoved = before !== undefined && before !== endpoint;
      const settings: string[] = [];
      if (now?.endpoint !== endpoint && (!hasAnswered || hasMoved)) settings.push("endpoint", endpoint);
      if (now?.keepaliveSeconds !== keepaliveSeconds) settings.push("persistent-keepalive", String(keepaliveSeconds));
      if (now?.subnets.join() !== subnet) settings.push("allowed-ips", subnet);
      if (settings.length > 0) changes.push(["peer", publicKey, ...settings]);
    }
    for (let i = 0; i < changes.length || (i === 0 && own.length > 0); i += peersPerCall) {
      calls.push(["set", device.name, ...(i === 0 ? own : []), ...changes.slice(i, i + peersPerCall).flat()]);
    }
  }
  return calls;
}

/** Where each peer says that it is, by device and key; for the next look. */
export const endpointsOf = (wanted: Wanted): Map<string, string> =>
  new Map(
    wanted.devices.flatMap((device) =>
      device.kind === "wireguard"
        ? device.wireguard.peers.map((peer) => [`${device.name} ${peer.publicKey}`, peer.endpoint] as const)
        : [],
    ),
  );

/** Of `wg show DEVICE dump`: a line for the device and one for each peer, in columns. */
export function parseWireguard(device: string, dump: string): WireguardState {
  const [own = [], ...peers] = dump
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split("\t"));
  return {
    device,
    // The first is the private key, which is nobody's business.
    publicKey: own[1] ?? "",
    port: Number(own[2]),
    peers: peers.map(([publicKey = "", , endpoint, subnets = "", handshake, , , keepalive]) => ({
      publicKey,
      endpoint: endpoint === "(none)" ? undefined : endpoint,
      subnets: subnets === "(none)" ? [] : subnets.split(","),
      handshakeSeconds: Number(handshake),
      keepaliveSeconds: keepalive === "off" ? 0 : Number(keepalive),
    })),
  };
}
