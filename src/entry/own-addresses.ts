// The addresses that this machine's node, and its server, are known by, while they run: one that is there stays; one that has
// gone, by a new lease or another network, is replaced by what the machine has now. A server without any network gets a
// stand-in that its own pods can reach, because the API must have an address; it is left for the first real one.
// Upstream counterpart: none; k3s ends without a default route, and the kubelet keeps the address of its start.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { familyOfIp, type IpFamily } from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { systemClock } from "#platform/clock.ts";
import { addressFingerprint, defaultIpv6Address, machineAddresses } from "#platform/host.ts";
import { type Commands, runChecked, systemCommands } from "#platform/processes.ts";
import { defaultIpOf, familiesOf } from "./cluster-addresses.ts";
import type { ServerConfig } from "./config.ts";

export type NodeIps = readonly [string, ...string[]];

export interface OwnAddresses {
  readonly current: NodeIps;
  /** Called with every change until the returned function is. */
  onChange(listener: () => void): () => void;
  readonly service: Service;
}

export interface OwnAddressesOptions {
  readonly clusterCidr: string;
  /** Those of the flag: they stay. */
  readonly given: readonly string[] | undefined;
  /** What was found at the start. */
  readonly nodeIps: NodeIps;
}

export interface OwnAddressesDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

/** Of the range for documentation: no network has it. The same that the appliance takes. */
const standIn = "192.0.2.1";
/** What network plugins and DNS call their own addresses there, so that all are removed together. */
const standInLabel = "lo:mote";
/** As the overlay looks. */
const checkMs = 3_000;

/** Nobody else reaches the machine by it. */
const isMakeshift = (address: string): boolean =>
  address === standIn || address === "::1" || address.startsWith("127.");

/** Pure. `present`: all that the machine has; `preferred`: what it would be known by if it started now. */
export function nextNodeIps(
  now: NodeIps,
  machine: { readonly present: readonly string[]; readonly preferred: readonly string[] },
  families: readonly IpFamily[],
): NodeIps {
  const next = families.flatMap((family) => {
    const old = now.find((address) => familyOfIp(address) === family);
    if (old !== undefined && !isMakeshift(old) && machine.present.includes(old)) return [old];
    const fresh = machine.preferred.find((address) => familyOfIp(address) === family && !isMakeshift(address));
    // A cable that is out takes the address away for a while: it is kept until there is another.
    return fresh ?? old ?? [];
  });
  const [first = now[0], ...others] = next;
  return [first, ...others];
}

/** What a server starts with: where the machine has no address, one is made, if that is allowed. */
export async function startAddresses(
  nodeIps: NodeIps,
  { commands, log }: { readonly commands: Commands; readonly log: Logger },
): Promise<NodeIps> {
  if (nodeIps[0] !== "127.0.0.1") return nodeIps;
  log.warn("this machine has no address: nobody else reaches it until it has", { address: standIn });
  try {
    const address = [`${standIn}/32`, "dev", "lo", "label", standInLabel, "scope", "host"];
    await runChecked(commands, "ip", ["address", "replace", ...address]);
    return [standIn, ...nodeIps.slice(1)];
  } catch (error) {
    // Not root, most likely: then there are no pods here that would need it.
    log.debug("cannot make an address", { error: messageOf(error) });
    return nodeIps;
  }
}

export function followOwnAddresses(options: OwnAddressesOptions, { clock, log }: OwnAddressesDeps): OwnAddresses {
  const families = familiesOf(options.clusterCidr);
  const listeners = new Set<() => void>();
  let current = options.nodeIps;
  const look = () => {
    const preferred = families.flatMap((family) => defaultIpOf(family) ?? []);
    const next = nextNodeIps(current, { present: machineAddresses(), preferred }, families);
    if (next.join() === current.join()) return;
    log.info("this machine's address has changed", { before: current.join(), now: next.join() });
    current = next;
    for (const listener of listeners) listener();
  };
  return {
    get current() {
      return current;
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    service: {
      name: "own-addresses",
      async run(signal, ready) {
        ready();
        let seen = "";
        while (!signal.aborted) {
          // An IPv6 address counts once the kernel knows that nobody else has it, a moment after it has appeared.
          const ipv6 = families.includes("IPv6") ? defaultIpv6Address() : undefined;
          const now = `${addressFingerprint()} ${ipv6 ?? ""}`;
          if (now !== seen && options.given === undefined) look();
          seen = now;
          await pause(clock, checkMs, signal);
        }
      },
    },
  };
}

/** Of a server: the first thing that needs one asks for it. */
export async function openOwnAddresses(config: ServerConfig, log: Logger): Promise<OwnAddresses> {
  const { clusterCidr, givenNodeIps: given } = config;
  const nodeIps = given ? config.nodeIps : await startAddresses(config.nodeIps, { commands: systemCommands, log });
  return followOwnAddresses({ clusterCidr, given, nodeIps }, { clock: systemClock, log });
}

/** Where no address to advertise was given, it is the node's. */
export function followingConfig(config: ServerConfig, own: OwnAddresses): ServerConfig {
  const { advertiseAddress, nodeIps } = config;
  return {
    ...config,
    get nodeIps() {
      return own.current;
    },
    get advertiseAddress() {
      return advertiseAddress === nodeIps[0] ? own.current[0] : advertiseAddress;
    },
  };
}
