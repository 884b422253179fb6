// The network that carries the overlay: which device and address of this machine the other nodes are to send to. The
// configured address as long as the machine has it; after a change (another lease, another network) that of the default
// route. Pure.

import { addressSet } from "#platform/addresses.ts";
import type { Kernel, KernelLink } from "./kernel.ts";
import type { Family } from "./peers.ts";

export interface Underlay {
  readonly device: string;
  readonly mtu: number;
  readonly addresses: Readonly<Partial<Record<Family, string>>>;
}

export interface UnderlayOptions {
  /** One of each family. */
  readonly nodeIps: readonly string[];
  /** `--flannel-iface`. */
  readonly device: string | undefined;
}

/** Containers' and tunnels' own: never what carries them. */
const ownDevices = /^(lo|mote|cni|veth|docker|flannel|br-|kube)/;

export function underlayOf(kernel: Kernel, options: UnderlayOptions): Underlay | undefined {
  const byName = (name: string | undefined) => kernel.links.find(({ ifname }) => ifname === name);
  const usable = kernel.links.filter(({ ifname }) => !ownDevices.test(ifname));
  const [withIp] = options.nodeIps.flatMap(
    (ip) => usable.find((link) => link.addr_info.some(({ local }) => local === ip)) ?? [],
  );
  const outward = (family: Family) =>
    kernel.routes[family].filter(({ dst }) => dst === "default").sort((a, b) => (a.metric ?? 0) - (b.metric ?? 0))[0];
  const link = options.device ? byName(options.device) : (withIp ?? byName(outward(4)?.dev) ?? byName(outward(6)?.dev));
  if (!link) return undefined;
  const ipv4 = addressOf(link, 4, options.nodeIps);
  const ipv6 = addressOf(link, 6, options.nodeIps);
  if (!ipv4 && !ipv6) return undefined;
  return {
    device: link.ifname,
    mtu: link.mtu,
    addresses: { ...(ipv4 ? { 4: ipv4 } : {}), ...(ipv6 ? { 6: ipv6 } : {}) },
  };
}

function addressOf(link: KernelLink, family: Family, preferred: readonly string[]): string | undefined {
  const all = link.addr_info.filter(
    (info) =>
      info.family === (family === 4 ? "inet" : "inet6") && info.scope === "0" && !info.temporary && !info.deprecated,
  );
  return (all.find(({ local }) => preferred.includes(local ?? "")) ?? all[0])?.local;
}

/** Devices of the machine's own networks. */
export const outerDevices = (kernel: Kernel): string[] =>
  kernel.links.flatMap(({ ifname }) => (ownDevices.test(ifname) ? [] : ifname));

/** Devices with what is on their own networks, which can be reached without a router. */
export function devicesOnLink(kernel: Kernel, family: Family): { device: string; has: (address: string) => boolean }[] {
  const kind = family === 4 ? "inet" : "inet6";
  return kernel.links.flatMap(({ ifname, addr_info }) => {
    const own = addr_info.filter((info) => info.family === kind && info.scope === "0" && info.local !== undefined);
    if (own.length === 0 || ownDevices.test(ifname)) return [];
    return [{ device: ifname, has: addressSet(own.map(({ local, prefixlen }) => `${local}/${prefixlen}`)) }];
  });
}
