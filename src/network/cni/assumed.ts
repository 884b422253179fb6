// What the kernel holds after a change of ours, without asking it: among a thousand nodes one that comes or goes costs its own
// lines, and no list of all that is there. It holds as long as nobody else touches what is ours, so the kernel itself is asked
// again every minute, after a failure, when the machine's addresses change, and whenever a device was made or changed. Pure.
import { deviceAlias, routeProtocol, type Scripts } from "./difference.ts";
import type { Kernel, KernelRoute } from "./kernel.ts";
import type { Wanted } from "./plan.ts";
import { keepaliveSeconds, type WireguardState } from "./wireguard.ts";

/** Undefined: what devices have become only the kernel can tell. */
export function kernelAfter(kernel: Kernel, wanted: Wanted, scripts: Scripts): Kernel | undefined {
  if (scripts.devices.some((line) => /^(link|addr) /.test(line))) return undefined;
  const ours = new Set(kernel.links.filter(({ ifalias }) => ifalias === deviceAlias).map(({ ifname }) => ifname));
  const routes: Record<4 | 6, KernelRoute[]> = { 4: [], 6: [] };
  for (const family of [4, 6] as const) {
    const written = wanted.routes.filter((route) => route.family === family);
    const subnets = new Set(written.map(({ subnet }) => subnet));
    for (const route of kernel.routes[family]) {
      const isOurs = route.protocol === routeProtocol || (route.protocol !== "2" && ours.has(route.dev ?? ""));
      if (!isOurs && !subnets.has(route.dst)) routes[family].push(route);
    }
    for (const { subnet: dst, via, device: dev, mtu } of written) {
      routes[family].push({
        ...{ dst, dev, protocol: routeProtocol },
        ...(via === undefined ? {} : { gateway: via }),
        ...(mtu === undefined ? {} : { metrics: [{ mtu }] }),
      });
    }
  }
  return {
    links: kernel.links,
    routes,
    neighbours: wanted.neighbours.map(({ device, ip, mac }) => {
      return { dst: ip, dev: device, lladdr: mac, state: ["PERMANENT"] };
    }),
    forwards: wanted.forwards.map(({ device, mac, to }) => ({ mac, ifname: device, dst: to })),
  };
}

/** Peers are taken to be where they say: one that answers from elsewhere is left there until it says something new. */
export const statesAfter = (wanted: Wanted): WireguardState[] =>
  wanted.devices.flatMap((device) => {
    if (device.kind !== "wireguard") return [];
    const { key, port, peers } = device.wireguard;
    return {
      ...{ device: device.name, publicKey: key.publicKey, port },
      peers: peers.map(({ publicKey, endpoint, subnet }) => {
        return { publicKey, endpoint, subnets: [subnet], handshakeSeconds: 0, keepaliveSeconds };
      }),
    };
  });
