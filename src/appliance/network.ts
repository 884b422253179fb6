// Carries out network-plan.ts: addresses, DHCP clients, Wi-Fi. What is not there at the start is configured when it appears:
// links are looked at every two seconds, and a change makes the plan anew; what is configured and unchanged is left alone.
// Upstream counterparts: systemd-networkd, ifplugd.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { exists, listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import { writePlainFile } from "#platform/folders.ts";
import { type LinkFacts, listLinkNames, listLinks, readLink } from "#platform/links.ts";
import type { Commands } from "#platform/processes.ts";
import { resolvConf } from "./etc-files.ts";
import type { MachineConfig } from "./machine-config.ts";
import type { Client, NetworkClients } from "./network-clients.ts";
import { dhcpScript, type NetworkPlan, planNetwork } from "./network-plan.ts";

export interface NetworkOptions {
  readonly machine: MachineConfig;
  readonly hostname: string;
  /** State of the clients: /run/mote/network. */
  readonly folder: string;
  readonly etcDir: string;
  /** /sys. */
  readonly sysfs?: string;
}

export interface NetworkDeps {
  readonly commands: Commands;
  readonly clients: NetworkClients;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Network {
  /** What could not be done, in sentences. */
  readonly problems: readonly string[];
  /** Configures what appears later; tells the new list of problems when it is another. */
  follow(onProblems: (problems: readonly string[]) => void): Service;
}

/** USB adapters and Wi-Fi firmware may take this long to appear before the start goes on without them. */
const linkTimeoutMs = 10_000;
/** A cable's carrier is known about three seconds after the link went up. */
const carrierTimeoutMs = 4_000;
const pollMs = 250;
const lookMs = 2_000;
/** A change counts when it is still there after this: the kernel says "wireless" a moment after the name. */
const settleMs = 500;
/** Every so many looks, clients that ended are started again. */
const looksPerCheck = 15;
const busybox = "/usr/bin/busybox";
const supplicant = "/usr/sbin/wpa_supplicant";

/** Brings the network up as far as it can be. Does not wait for leases. */
export async function startNetwork(options: NetworkOptions, deps: NetworkDeps): Promise<Network> {
  const { machine, folder, etcDir, sysfs } = options;
  const { clock, log } = deps;
  await makeFolder(folder, 0o755);
  const resolvPath = `${etcDir}/resolv.conf`;
  const hasFixedDns = machine.dns.servers.length > 0;
  // One of an earlier start of this program holds leases; it is kept.
  if (hasFixedDns) await writePlainFile(resolvPath, resolvConf(machine.dns), 0o644);
  else if (!(await exists(resolvPath))) await writePlainFile(resolvPath, "", 0o644);
  const script = `${folder}/dhcp.sh`;
  await writePlainFile(script, dhcpScript({ folder, resolvConf: resolvPath, hasFixedDns }), 0o755);

  const links = new Links(sysfs);
  const configured = new ConfiguredLinks(options, deps, script);
  const first = await settledLinks(machine, sysfs, (link) => configured.bringUp(link), clock);
  let problems = await configured.apply(first);
  return {
    problems,
    follow: (onProblems) => ({
      name: "network",
      async run(signal, ready) {
        ready();
        const look = async (isCheck: boolean): Promise<void> => {
          let hasChanged = await links.hasChanged(machine);
          if (!hasChanged && !isCheck) return;
          while (hasChanged && !signal.aborted) {
            await pause(clock, settleMs, signal);
            hasChanged = await links.hasChanged(machine);
          }
          if (signal.aborted) return;
          const now = await listLinks(sysfs);
          for (const link of now) await configured.bringUp(link);
          const next = await configured.apply(now);
          if (next.join("\n") === problems.join("\n")) return;
          log.info("the network has changed", { links: now.filter((l) => l.isPhysical).map((l) => l.name) });
          problems = next;
          onProblems(next);
        };
        let hasFailed = false;
        for (let looks = 1; !signal.aborted; looks++) {
          await pause(clock, lookMs, signal);
          if (signal.aborted) return;
          try {
            // After a failure all is looked at: what had changed may have been noticed, and not carried out.
            await look(hasFailed || looks % looksPerCheck === 0);
            hasFailed = false;
          } catch (error) {
            // What is configured stays until the links can be read again.
            if (!hasFailed) log.warn("cannot look at the network's links, retrying", { error: messageOf(error) });
            hasFailed = true;
          }
        }
      },
    }),
  };
}

/** Sees changes of hardware and of links that the configuration names; pods' links, which come and go, are read once. */
class Links {
  readonly #sysfs: string | undefined;
  readonly #others = new Set<string>();
  #last = "";

  constructor(sysfs: string | undefined) {
    this.#sysfs = sysfs;
  }

  async hasChanged(machine: MachineConfig): Promise<boolean> {
    const names = (await listLinkNames(this.#sysfs)).sort();
    for (const name of this.#others) if (!names.includes(name)) this.#others.delete(name);
    const seen: string[] = [];
    for (const name of names) {
      if (this.#others.has(name)) continue;
      const link = await readLink(name, this.#sysfs);
      const isNamed = machine.interfaces.some((wanted) => wanted.name === name);
      if (link && (link.isPhysical || isNamed))
        seen.push(`${name} ${link.index} ${link.hasCarrier} ${link.isWireless}`);
      else this.#others.add(name);
    }
    const text = seen.join("\n");
    const hasChanged = text !== this.#last;
    this.#last = text;
    return hasChanged;
  }
}

/** What has been done to which link, so that each plan is carried out where it is new only. */
class ConfiguredLinks {
  readonly #options: NetworkOptions;
  readonly #deps: NetworkDeps;
  readonly #script: string;
  readonly #isUp = new Map<string, number>();
  /** By name: the number it was configured with, and what went wrong. */
  readonly #done = new Map<string, { readonly index: number; readonly problems: string[] }>();
  #inUse: ReadonlySet<string> = new Set();
  /** Clients by the hardware they serve. */
  readonly #clients = new Map<string, Client[]>();

  constructor(options: NetworkOptions, deps: NetworkDeps, script: string) {
    this.#options = options;
    this.#deps = deps;
    this.#script = script;
  }

  /** A link tells whether it has a cable only while it is up. */
  async bringUp({ name, index, isPhysical, isWireless }: LinkFacts): Promise<void> {
    if (!isPhysical || isWireless || this.#isUp.get(name) === index) return;
    const result = await this.#deps.commands.run("ip", ["link", "set", "dev", name, "up"]);
    // One that cannot be brought up now is tried again at the next look.
    if (result.code === 0) this.#isUp.set(name, index);
  }

  /** The problems there are now. */
  async apply(links: readonly LinkFacts[]): Promise<string[]> {
    const { machine } = this.#options;
    const indexOf = new Map(links.map((link) => [link.name, link.index]));
    await this.#forgetGone(indexOf);
    const inUse = new Set([...this.#inUse].filter((name) => this.#done.get(name)?.index === indexOf.get(name)));
    const plan = planNetwork(machine, links, inUse);
    const isNew = new Set(
      plan.commands.map((one) => one.link).filter((name) => this.#done.get(name)?.index !== indexOf.get(name)),
    );
    for (const name of isNew) this.#done.set(name, { index: indexOf.get(name)!, problems: [] });
    for (const { link, args } of plan.commands) if (isNew.has(link)) await this.#ip(link, args);
    const clientProblems = await this.#keepClients(plan, indexOf);
    this.#inUse = plan.uses;
    return [...plan.problems, ...[...this.#done.values()].flatMap((one) => one.problems), ...clientProblems];
  }

  /** A link that is no more leaves its clients behind, and the name servers it was told. */
  async #forgetGone(indexOf: ReadonlyMap<string, number>): Promise<void> {
    for (const [name, { index }] of this.#done) {
      if (indexOf.get(name) === index) continue;
      this.#done.delete(name);
      this.#deps.log.warn("a network link has gone", { link: name });
      for (const client of this.#clients.get(name) ?? []) {
        await this.#deps.clients.end(client.name, client.program);
        const served = /^dhcp-(.*)$/.exec(client.name)?.[1];
        if (served) await this.#deps.commands.run(this.#script, ["deconfig"], { env: { interface: served } });
      }
      this.#clients.delete(name);
    }
  }

  async #ip(link: string, args: readonly string[]): Promise<void> {
    const result = await this.#deps.commands.run("ip", args);
    if (result.code === 0 || /File exists/.test(result.stderr)) return;
    const error = result.stderr.trim();
    this.#deps.log.error("cannot configure the network", { command: `ip ${args.join(" ")}`, error });
    this.#done.get(link)?.problems.push(`network: "ip ${args.join(" ")}" failed: ${error}`);
  }

  async #keepClients(plan: NetworkPlan, indexOf: ReadonlyMap<string, number>): Promise<string[]> {
    const { folder, hostname } = this.#options;
    const { clients, log } = this.#deps;
    const problems: string[] = [];
    this.#clients.clear();
    for (const { link, ...client } of clientsOf(plan, { folder, hostname }, this.#script)) {
      const wanted = { ...client, index: indexOf.get(link)! };
      this.#clients.set(link, [...(this.#clients.get(link) ?? []), wanted]);
      try {
        if (client.name === "wifi") await writePlainFile(`${folder}/wifi.conf`, plan.wifi!.config, 0o600);
        await clients.keep(wanted);
      } catch (error) {
        log.error("cannot start a network program", { program: client.program, error: messageOf(error) });
        problems.push(`network: ${messageOf(error)}`);
      }
    }
    return problems;
  }
}

type PlannedClient = Omit<Client, "index"> & { readonly link: string };

function clientsOf(
  plan: NetworkPlan,
  { folder, hostname }: { readonly folder: string; readonly hostname: string },
  script: string,
): PlannedClient[] {
  const radio = plan.wifi?.link;
  const wifi: PlannedClient[] = radio
    ? [
        {
          ...{ name: "wifi", program: supplicant, link: radio },
          args: ["-i", radio, "-D", "nl80211,wext", "-c", `${folder}/wifi.conf`],
        },
      ]
    : [];
  // Asks for ever: three tries two seconds apart, then a pause of five seconds.
  const asking = ["-t", "3", "-T", "2", "-A", "5", "-S", "-O", "ntpsrv", "-O", "search"];
  const dhcp = plan.dhcp.map(
    ({ link, name }): PlannedClient => ({
      ...{ name: `dhcp-${name}`, program: busybox, link },
      args: ["udhcpc", "-f", "-i", name, "-s", script, "-x", `hostname:${hostname}`, ...asking],
    }),
  );
  return [...wifi, ...dhcp];
}

/** Waits for named links to appear, and for a cable where one has to be chosen. */
async function settledLinks(
  machine: MachineConfig,
  sysfs: string | undefined,
  bringUp: (link: LinkFacts) => Promise<void>,
  clock: Clock,
): Promise<LinkFacts[]> {
  const startMs = clock.monotonicMs();
  const choosesByCable = !machine.interfaces.some((one) => one.name !== undefined || one.mac !== undefined);
  for (;;) {
    const links = await listLinks(sysfs);
    const waitedMs = clock.monotonicMs() - startMs;
    for (const link of links) await bringUp(link);
    const { isComplete } = planNetwork(machine, links);
    const hasCable = !choosesByCable || links.some((link) => link.hasCarrier && link.isPhysical);
    if (isComplete && (hasCable || waitedMs > carrierTimeoutMs)) return links;
    if (waitedMs > linkTimeoutMs) return links;
    await clock.sleep(pollMs);
  }
}

/** Time servers that leases named. */
export async function leasedTimeServers(folder: string): Promise<string[]> {
  const servers: string[] = [];
  for (const entry of await listFolder(folder)) {
    if (!entry.name.endsWith(".ntp")) continue;
    servers.push(...((await readFileIfExists(`${folder}/${entry.name}`))?.toString("utf8").split(/\s+/) ?? []));
  }
  return [...new Set(servers.filter((server) => server !== ""))].slice(0, 4);
}
