// From what the kernel has to what should be there, as lines for `ip -batch` and `bridge -batch`. Nothing that is right is
// touched, so a restart disturbs no packet; new ways are written after what they lead to, old ones go first. Pure.
import type { Kernel, KernelLink } from "./kernel.ts";
import type { Wanted, WantedDevice, WantedRoute, WantedVxlanDevice } from "./plan.ts";

/** In the order in which they have to run. */
export interface Scripts {
  readonly devices: readonly string[];
  readonly forwards: readonly string[];
  /** Arguments of `wg`, a call each. */
  readonly wireguard?: readonly (readonly string[])[];
  readonly routes: readonly string[];
}

/** On each device that is ours, so that another network plugin's device of the same name is left alone. */
export const deviceAlias = "mote";
/** Every device that any of our backends makes. */
export const overlayDevices = ["flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6"] as const;
/** In the kernel's routing tables: which routes are ours, whatever device they use. */
export const routeProtocol = "109";

export function difference(wanted: Wanted, kernel: Kernel): Scripts {
  const devices: string[] = [];
  const forwards: string[] = [];
  const routes: string[] = [];
  const kept = new Set<string>();

  devices.push(...goneRoutes(wanted, kernel));
  for (const link of kernel.links) {
    const isKnown = (overlayDevices as readonly string[]).includes(link.ifname);
    if (!isKnown || wanted.devices.some(({ name }) => name === link.ifname)) continue;
    if (link.ifalias === deviceAlias) devices.push(`link delete dev ${link.ifname}`);
  }
  for (const device of wanted.devices) {
    const link = kernel.links.find(({ ifname }) => ifname === device.name);
    const isKept = link !== undefined && isSameDevice(link, device);
    if (isKept) kept.add(device.name);
    devices.push(...deviceLines(device, link, isKept));
  }

  const neighbours = kernel.neighbours.filter(({ dev, state }) => kept.has(dev) && state?.includes("PERMANENT"));
  const wantedIps = new Set(wanted.neighbours.map(({ device, ip }) => `${device} ${ip}`));
  const knownMacs = new Map(neighbours.map(({ dev, dst, lladdr }) => [`${dev} ${dst}`, lladdr]));
  for (const { dst, dev } of neighbours) {
    if (!wantedIps.has(`${dev} ${dst}`)) devices.push(`neigh delete ${dst} dev ${dev}`);
  }
  for (const { device, ip, mac } of wanted.neighbours) {
    if (knownMacs.get(`${device} ${ip}`) !== mac)
      devices.push(`neigh replace ${ip} lladdr ${mac} dev ${device} nud permanent`);
  }

  const entries = kernel.forwards.filter(({ ifname, dst }) => kept.has(ifname) && dst !== undefined);
  const wantedMacs = new Set(wanted.forwards.map(({ device, mac }) => `${device} ${mac}`));
  const knownTargets = new Map(entries.map(({ ifname, mac, dst }) => [`${ifname} ${mac}`, dst]));
  for (const { mac, ifname, dst } of entries) {
    if (!wantedMacs.has(`${ifname} ${mac}`)) forwards.push(`fdb delete ${mac} dev ${ifname} dst ${dst} self`);
  }
  for (const { device, mac, to } of wanted.forwards) {
    if (knownTargets.get(`${device} ${mac}`) !== to)
      forwards.push(`fdb replace ${mac} dev ${device} dst ${to} self permanent`);
  }

  const known = {
    4: new Map(kernel.routes[4].map((route) => [route.dst, route])),
    6: new Map(kernel.routes[6].map((route) => [route.dst, route])),
  };
  for (const route of wanted.routes) {
    const usesNewDevice = wanted.devices.some(({ name }) => name === route.device) && !kept.has(route.device);
    if (usesNewDevice || !isSameRoute(known[route.family].get(route.subnet), route)) routes.push(routeLine(route));
  }
  return { devices, forwards, routes };
}

/** Our routes to where no peer's pods are any more. */
function goneRoutes(wanted: Wanted, kernel: Kernel): string[] {
  const ours = new Set(kernel.links.filter(({ ifalias }) => ifalias === deviceAlias).map(({ ifname }) => ifname));
  const wantedSubnets = new Set(wanted.routes.map(({ subnet }) => subnet));
  const lines: string[] = [];
  for (const family of [4, 6] as const) {
    for (const { dst, dev, protocol } of kernel.routes[family]) {
      // 2 are the kernel's own, which go with their address.
      const isOurs = protocol === routeProtocol || (protocol !== "2" && ours.has(dev ?? ""));
      if (!isOurs || wantedSubnets.has(dst)) continue;
      lines.push(`route delete ${dst}${dev ? ` dev ${dev}` : ""} proto ${protocol}`);
    }
  }
  return lines;
}

function deviceLines(device: WantedDevice, link: KernelLink | undefined, isKept: boolean): string[] {
  const { name, mtu, address } = device;
  const lines: string[] = [];
  if (!isKept && link) lines.push(`link delete dev ${name}`);
  if (device.kind === "vxlan") lines.push(...vxlanLines(device, isKept ? link : undefined));
  else if (!isKept) lines.push(`link add ${name} mtu ${mtu} type wireguard`);
  if (isKept && link!.mtu !== mtu) lines.push(`link set dev ${name} mtu ${mtu}`);
  if (!isKept || link!.ifalias !== deviceAlias) lines.push(`link set dev ${name} alias ${deviceAlias}`);
  const kind = device.family === 4 ? "inet" : "inet6";
  const addresses = (isKept ? link!.addr_info : []).filter(({ family, scope }) => family === kind && scope === "0");
  const textOf = (one: (typeof addresses)[number]) => `${one.local}/${one.prefixlen}`;
  for (const one of addresses) if (textOf(one) !== address) lines.push(`addr delete ${textOf(one)} dev ${name}`);
  if (!addresses.some((one) => textOf(one) === address)) lines.push(`addr replace ${address} dev ${name}`);
  if (!isKept || !link!.flags.includes("UP")) lines.push(`link set dev ${name} up`);
  return lines;
}

function vxlanLines({ name, mac, mtu, vxlan }: WantedVxlanDevice, kept: KernelLink | undefined): string[] {
  const local = `type vxlan id ${vxlan.id} local ${vxlan.local}`;
  const by = vxlan.device === undefined ? "" : ` dev ${vxlan.device}`;
  if (!kept) return [`link add ${name} address ${mac} mtu ${mtu} ${local}${by} dstport ${vxlan.port} nolearning`];
  return [
    ...(localOf(kept) === vxlan.local ? [] : [`link change ${name} ${local}`]),
    ...(kept.address === mac ? [] : [`link set dev ${name} address ${mac}`]),
  ];
}

/** Whether it can become what is wanted without being made anew. */
function isSameDevice(link: KernelLink, device: WantedDevice): boolean {
  if (device.kind === "wireguard") return link.linkinfo?.info_kind === "wireguard";
  const { family, vxlan } = device;
  const data = link.linkinfo?.info_data ?? {};
  return (
    link.linkinfo?.info_kind === "vxlan" &&
    data["id"] === vxlan.id &&
    data["port"] === vxlan.port &&
    data["learning"] === false &&
    (data["link"] as string | undefined) === vxlan.device &&
    // The family of a device's own address cannot change.
    data[family === 4 ? "local" : "local6"] !== undefined
  );
}

const localOf = (link: KernelLink): unknown =>
  link.linkinfo?.info_data?.["local"] ?? link.linkinfo?.info_data?.["local6"];

const isSameRoute = (one: Kernel["routes"][4][number] | undefined, route: WantedRoute): boolean =>
  one !== undefined &&
  one.gateway === route.via &&
  one.dev === route.device &&
  one.protocol === routeProtocol &&
  one.metrics?.find(({ mtu }) => mtu !== undefined)?.mtu === route.mtu;

const routeLine = ({ subnet, via, device, isOnLink, mtu }: WantedRoute): string =>
  `route replace ${subnet}${via === undefined ? "" : ` via ${via}`} dev ${device}${isOnLink ? " onlink" : ""} proto ${routeProtocol}${mtu === undefined ? "" : ` mtu ${mtu}`}`;
