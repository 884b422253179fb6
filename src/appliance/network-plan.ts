// From the `machine:` block and the links that exist to the commands that configure them. Pure; network.ts carries it out.
// Without an `interfaces:` entry the first wired link with a cable asks for an address; without any cable all do, since
// nobody can know where one will be plugged in. Made anew whenever links change: what is in use stays in use.
import type { InterfaceConfig, MachineConfig, WifiConfig } from "./machine-config.ts";

export interface Link {
  readonly name: string;
  /** Another one for an adapter that was pulled out and plugged in again. */
  readonly index: number;
  readonly mac: string;
  /** Hardware, not a bridge or a pod's end. */
  readonly isPhysical: boolean;
  readonly isWireless: boolean;
  readonly hasCarrier: boolean;
}

export interface NetworkPlan {
  /** Arguments of `ip` and the hardware they are about; each may be repeated by a later start. */
  readonly commands: readonly { readonly link: string; readonly args: readonly string[] }[];
  /** Links that ask for an address, the preferred first, and the hardware below them. */
  readonly dhcp: readonly { readonly link: string; readonly name: string }[];
  readonly wifi?: { readonly link: string; readonly config: string };
  /** Hardware that was chosen; the next plan is told, so that it stays with it. */
  readonly uses: ReadonlySet<string>;
  readonly problems: readonly string[];
  /** Something named is not there (yet): drivers may still be loading. */
  readonly isComplete: boolean;
}

const maxNameLength = 15;

/** `inUse`: what the plan before this one chose, as far as it is still the same hardware. */
export function planNetwork(
  machine: MachineConfig,
  links: readonly Link[],
  inUse: ReadonlySet<string> = new Set(),
): NetworkPlan {
  const commands: { link: string; args: string[] }[] = [];
  const dhcp: { link: string; name: string }[] = [];
  const uses = new Set<string>();
  const problems: string[] = [];
  const wired = links.filter((link) => link.isPhysical && !link.isWireless).sort(byName);
  const wireless = links.filter((link) => link.isWireless).sort(byName);
  const radio = machine.wifi.length > 0 ? (wireless.find((link) => inUse.has(link.name)) ?? wireless[0]) : undefined;
  let isComplete = true;
  const missing = (sentence: string) => {
    problems.push(sentence);
    isComplete = false;
  };
  const ask = (link: string, name = link) => {
    uses.add(link);
    dhcp.push({ link, name });
  };
  const look = { links, wired, inUse };

  for (const [i, wanted] of machine.interfaces.entries()) {
    const link = find(wanted, look);
    if (!link) {
      missing(`machine.interfaces[${i}]: there is no ${describe(wanted)}; found ${nameList(links)}`);
      continue;
    }
    uses.add(link.name);
    commands.push(...configure(wanted, link.name).map((args) => ({ link: link.name, args })));
    if (wanted.dhcp) ask(link.name, nameOf(wanted, link.name));
  }
  const isFixed = machine.interfaces.some((wanted) => wanted.gateways.length > 0);
  if (isFixed && dhcp.length === 0 && isComplete && machine.wifi.length === 0 && machine.dns.servers.length === 0) {
    problems.push("machine.dns: no name server is given, and no interface asks for one; images cannot be fetched");
  }
  if (machine.interfaces.length === 0) {
    for (const link of wired) commands.push({ link: link.name, args: ["link", "set", "dev", link.name, "up"] });
    for (const link of asking(wired, inUse)) ask(link.name);
    if (wired.length === 0 && machine.wifi.length === 0) missing(`there is no wired network; found ${nameList(links)}`);
  }
  if (machine.wifi.length > 0 && !radio)
    missing(`machine.wifi: there is no Wi-Fi hardware that this image knows; found ${nameList(links)}`);
  if (radio) {
    uses.add(radio.name);
    commands.push({ link: radio.name, args: ["link", "set", "dev", radio.name, "up"] });
    const isConfigured = machine.interfaces.some((wanted) => find(wanted, look) === radio);
    if (!isConfigured) ask(radio.name);
  }
  return {
    ...{ commands, dhcp, uses, problems, isComplete },
    ...(radio ? { wifi: { link: radio.name, config: wifiConfig(machine.wifi, machine.wifiCountry) } } : {}),
  };
}

/** Those that ask already, and another one when none of them has a cable. */
function asking(wired: readonly Link[], inUse: ReadonlySet<string>): Link[] {
  const kept = wired.filter((link) => inUse.has(link.name));
  if (kept.some((link) => link.hasCarrier)) return kept;
  const cabled = wired.find((link) => link.hasCarrier);
  return cabled ? [cabled, ...kept] : [...wired];
}

interface Look {
  readonly links: readonly Link[];
  readonly wired: readonly Link[];
  readonly inUse: ReadonlySet<string>;
}

function find(wanted: InterfaceConfig, { links, wired, inUse }: Look): Link | undefined {
  if (wanted.name !== undefined) return links.find((link) => link.name === wanted.name);
  // A VLAN or bridge has the address of the hardware below it.
  if (wanted.mac !== undefined) return links.find((link) => link.mac === wanted.mac && link.isPhysical);
  const cabled = wired.find((link) => link.hasCarrier);
  const chosen = wired.find((link) => inUse.has(link.name) && link.hasCarrier) ?? wired.find((l) => inUse.has(l.name));
  // A fixed address stays where it is, for two links cannot have the same one.
  const stays = chosen && (chosen.hasCarrier || !cabled || wanted.addresses.length > 0);
  return stays ? chosen : (cabled ?? wired[0]);
}

function configure(wanted: InterfaceConfig, link: string): string[][] {
  const name = nameOf(wanted, link);
  const commands = [["link", "set", "dev", link, "up"]];
  if (wanted.vlan !== undefined) {
    commands.push(["link", "add", "link", link, "name", name, "type", "vlan", "id", String(wanted.vlan)]);
    commands.push(["link", "set", "dev", name, "up"]);
  }
  if (wanted.mtu !== undefined) commands.push(["link", "set", "dev", name, "mtu", String(wanted.mtu)]);
  for (const address of wanted.addresses) commands.push(["address", "replace", address, "dev", name]);
  // On-link, because the gateway of a /32 lies in no range of the interface.
  for (const gateway of wanted.gateways) {
    commands.push(["route", "replace", "default", "via", gateway, "dev", name, "onlink"]);
  }
  return commands;
}

function nameOf(wanted: InterfaceConfig, link: string): string {
  if (wanted.vlan === undefined) return link;
  const name = `${link}.${wanted.vlan}`;
  return name.length <= maxNameLength ? name : `vlan${wanted.vlan}`;
}

function describe(wanted: InterfaceConfig): string {
  if (wanted.name !== undefined) return `interface ${wanted.name}`;
  return wanted.mac === undefined ? "wired interface" : `interface with address ${wanted.mac}`;
}

const nameList = (links: readonly Link[]): string => {
  const physical = links.filter((link) => link.isPhysical).map((link) => `${link.name} (${link.mac})`);
  return physical.length > 0 ? physical.sort().join(", ") : "none";
};

/** eth2 before eth10. */
function byName(a: Link, b: Link): number {
  return a.name.localeCompare(b.name, "en", { numeric: true });
}

/** wpa_supplicant's configuration. Names are written as hexadecimal digits, so that none needs escaping. */
export function wifiConfig(networks: readonly WifiConfig[], country: string | undefined): string {
  const lines = country === undefined ? [] : [`country=${country}`];
  for (const [i, network] of networks.entries()) {
    lines.push(
      "network={",
      `  ssid=${[...new TextEncoder().encode(network.ssid)].map((b) => b.toString(16).padStart(2, "0")).join("")}`,
    );
    if (network.password === undefined) lines.push("  key_mgmt=NONE");
    else if (/^[0-9a-f]{64}$/.test(network.password)) lines.push(`  psk=${network.password}`);
    // WPA3 as well, where the radio can; protected management frames, which it demands, where the network has them.
    else lines.push(`  psk="${network.password}"`, "  key_mgmt=WPA-PSK WPA-PSK-SHA256 SAE", "  ieee80211w=1");
    if (network.hidden) lines.push("  scan_ssid=1");
    // The first of the list is preferred.
    lines.push(`  priority=${networks.length - i}`, "}");
  }
  return `${lines.join("\n")}\n`;
}

export interface DhcpScriptOptions {
  /** Where leases are kept for the next start of mote. */
  readonly folder: string;
  readonly resolvConf: string;
  /** Name servers were configured: the lease's are not used. */
  readonly hasFixedDns: boolean;
}

/** What udhcpc calls when a lease begins, changes or ends. Without mote's help, so that leases survive its restarts. */
export function dhcpScript(options: DhcpScriptOptions): string {
  const resolve = options.hasFixedDns
    ? ""
    : `  {
    [ -n "$search$domain" ] && echo "search \${search:-$domain}"
    for server in $dns; do echo "nameserver $server"; done
  } > "$folder/$interface.dns"
  cat "$folder"/*.dns > "${options.resolvConf}.new" && mv "${options.resolvConf}.new" "${options.resolvConf}"
`;
  return `#!/bin/sh
# Written by mote at every start; changes are lost.
folder=${options.folder}
# The leased address alone: those of mote.yaml stay.
forget() {
  [ -s "$folder/$interface.address" ] || return 0
  ip -4 address del "$(cat "$folder/$interface.address")" dev "$interface"
  rm -f "$folder/$interface.address"
}
case "$1" in
deconfig)
  rm -f "$folder/$interface.dns" "$folder/$interface.ntp"
  forget
  ip link set dev "$interface" up
  ;;
bound|renew)
  [ -n "$mtu" ] && ip link set dev "$interface" mtu "$mtu"
  address=$ip/\${mask:-24}
  [ "$(cat "$folder/$interface.address" 2>/dev/null)" = "$address" ] || forget
  ip -4 address replace "$address" dev "$interface"
  echo "$address" > "$folder/$interface.address"
  for gateway in $router; do
    ip -4 route replace default via "$gateway" dev "$interface" onlink
    break
  done
  echo "$ntpsrv" > "$folder/$interface.ntp"
${resolve}  ;;
esac
`;
}
