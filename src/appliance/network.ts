// Carries out network-plan.ts: addresses, DHCP clients, Wi-Fi. The clients are programs of their own, in sessions of their
// own, and outlive this process, so that a restarted mote finds the network as it was.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { isRunning, startDaemon } from "#platform/daemons.ts";
import { exists, listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import { writePlainFile } from "#platform/folders.ts";
import { type LinkFacts, listLinks } from "#platform/links.ts";
import type { Commands } from "#platform/processes.ts";
import { resolvConf } from "./etc-files.ts";
import type { MachineConfig } from "./machine-config.ts";
import { dhcpScript, type NetworkPlan, planNetwork } from "./network-plan.ts";

export interface NetworkOptions {
  readonly machine: MachineConfig;
  readonly hostname: string;
  /** State of the clients: /run/mote/network. */
  readonly folder: string;
  readonly etcDir: string;
}

export interface NetworkDeps {
  readonly commands: Commands;
  readonly clock: Clock;
  readonly log: Logger;
}

/** USB adapters and Wi-Fi firmware may take this long to appear. */
const linkTimeoutMs = 10_000;
/** A cable's carrier is known about three seconds after the link went up. */
const carrierTimeoutMs = 4_000;
const pollMs = 250;
const busybox = "/usr/bin/busybox";

/** Brings the network up as far as it can be; the sentences say what could not. Does not wait for leases. */
export async function startNetwork(options: NetworkOptions, deps: NetworkDeps): Promise<readonly string[]> {
  const { machine, folder, etcDir } = options;
  const { commands, log } = deps;
  await makeFolder(folder, 0o755);
  const plan = planNetwork(machine, await settledLinks(machine, deps));
  const problems = [...plan.problems];
  const resolvPath = `${etcDir}/resolv.conf`;
  const hasFixedDns = machine.dns.servers.length > 0;
  // One of an earlier start of this program holds leases; it is kept.
  if (hasFixedDns) await writePlainFile(resolvPath, resolvConf(machine.dns), 0o644);
  else if (!(await exists(resolvPath))) await writePlainFile(resolvPath, "", 0o644);
  for (const args of plan.commands) {
    const result = await commands.run("ip", args);
    if (result.code === 0 || /File exists/.test(result.stderr)) continue;
    log.error("cannot configure the network", { command: `ip ${args.join(" ")}`, error: result.stderr.trim() });
    problems.push(`network: "ip ${args.join(" ")}" failed: ${result.stderr.trim()}`);
  }
  const script = `${folder}/dhcp.sh`;
  await writePlainFile(script, dhcpScript({ folder, resolvConf: resolvPath, hasFixedDns }), 0o755);
  for (const [name, program, args] of clientsOf(plan, options, script)) {
    if (name === "wifi") await writePlainFile(`${folder}/wifi.conf`, plan.wifi!.config, 0o600);
    try {
      await keepClient(`${folder}/${name}.pid`, program, args);
    } catch (error) {
      log.error("cannot start a network program", { program, error: messageOf(error) });
      problems.push(`network: ${messageOf(error)}`);
    }
  }
  return problems;
}

type Client = readonly [name: string, program: string, args: readonly string[]];

function clientsOf(plan: NetworkPlan, options: NetworkOptions, script: string): Client[] {
  const wifi: Client[] = plan.wifi
    ? [
        [
          "wifi",
          "/usr/sbin/wpa_supplicant",
          ["-i", plan.wifi.link, "-D", "nl80211,wext", "-c", `${options.folder}/wifi.conf`],
        ],
      ]
    : [];
  // Asks for ever: three tries two seconds apart, then a pause of five seconds.
  const asking = ["-t", "3", "-T", "2", "-A", "5", "-S", "-O", "ntpsrv", "-O", "search"];
  const dhcp = plan.dhcp.map((link): Client => {
    const args = ["udhcpc", "-f", "-i", link, "-s", script, "-x", `hostname:${options.hostname}`, ...asking];
    return [`dhcp-${link}`, busybox, args];
  });
  return [...wifi, ...dhcp];
}

async function keepClient(pidPath: string, program: string, args: readonly string[]): Promise<void> {
  const pid = Number((await readFileIfExists(pidPath))?.toString("utf8") ?? "0");
  if (pid > 0 && (await isRunning(pid, program))) return;
  // What they say on every renewal is nobody's concern; a file would only grow.
  await writePlainFile(pidPath, String(await startDaemon(program, args, "/dev/null")), 0o644);
}

/** Waits for named links to appear, and for a cable where one has to be chosen. */
async function settledLinks(machine: MachineConfig, deps: NetworkDeps): Promise<LinkFacts[]> {
  const { clock, commands } = deps;
  const startMs = clock.monotonicMs();
  const isUp = new Set<string>();
  const choosesByCable = !machine.interfaces.some((one) => one.name !== undefined || one.mac !== undefined);
  for (;;) {
    const links = await listLinks();
    const waitedMs = clock.monotonicMs() - startMs;
    for (const link of links) {
      // A link tells whether it has a cable only while it is up.
      if (!link.isPhysical || link.isWireless || isUp.has(link.name)) continue;
      await commands.run("ip", ["link", "set", "dev", link.name, "up"]);
      isUp.add(link.name);
    }
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
