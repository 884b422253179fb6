// The pod network of one node: a CNI configuration for Debian's bridge, host-local and portmap plugins. containerd picks
// the file up when it appears. Masquerade is the service proxy's, addresses live in /run: they mean nothing after a boot,
// and flash is spared. Upstream counterpart: flannel's CNI configuration in k3s.
import { AppError } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { exists, makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { type Commands, runChecked } from "#platform/processes.ts";

export interface PodNetworkOptions {
  /** This node's pods, e.g. 10.42.0.0/24; one of each family. */
  readonly podCidrs: readonly string[];
  readonly mtu: number;
  /** Where containerd looks for configurations. */
  readonly cniConfDir: string;
  /** Default "mote0". */
  readonly bridge?: string;
  /** Default /run/mote/cni. */
  readonly ipamDir?: string;
}

export interface PodNetworkDeps {
  readonly commands: Commands;
  readonly log: Logger;
}

const networkName = "mote";
const fileName = "10-mote.conflist";
const defaultBridge = "mote0";
const defaultIpamDir = "/run/mote/cni";

/** Writes the configuration where it differs. It stays there: pods keep running when mote ends. */
export async function configurePodNetwork(options: PodNetworkOptions, deps: PodNetworkDeps): Promise<void> {
  const path = `${options.cniConfDir}/${fileName}`;
  const text = `${JSON.stringify(cniConfig(options), undefined, 2)}\n`;
  await makeFolder(options.cniConfDir);
  const old = await readFileIfExists(path);
  if (old?.toString("utf8") === text) return;
  await writeFileDurable(path, text);
  deps.log.info("pod network configured", { podCidrs: options.podCidrs.join(","), mtu: options.mtu, file: path });
}

/** What goes into the file. */
function cniConfig(options: PodNetworkOptions): Readonly<Record<string, unknown>> {
  return {
    cniVersion: "1.0.0",
    name: networkName,
    plugins: [
      {
        type: "bridge",
        bridge: options.bridge ?? defaultBridge,
        isGateway: true,
        isDefaultGateway: true,
        forceAddress: true,
        ipMasq: false,
        // A pod that reaches itself through a service gets its packet back over the port it came from.
        hairpinMode: true,
        mtu: options.mtu,
        ipam: {
          type: "host-local",
          ranges: options.podCidrs.map((subnet) => [{ subnet }]),
          dataDir: options.ipamDir ?? defaultIpamDir,
        },
      },
      { type: "portmap", capabilities: { portMappings: true }, snat: true },
    ],
  };
}

/** Takes down bridge, pod namespaces still attached to it, leases and configuration. For when no pod runs any more. */
export async function removePodNetwork(
  options: Omit<PodNetworkOptions, "podCidrs" | "mtu">,
  deps: PodNetworkDeps,
): Promise<void> {
  const { commands } = deps;
  const bridge = options.bridge ?? defaultBridge;
  const shown = await commands.run("ip", ["-j", "link", "show", "master", bridge]);
  const ports = shown.code === 0 && shown.stdout.trim() !== "" ? (JSON.parse(shown.stdout) as Port[]) : [];
  const ids = new Set(ports.map((port) => port.link_netnsid));
  for (const { name, id } of await namespaces(commands)) {
    if (id === undefined || !ids.has(id)) continue;
    const isThere = async () => (await namespaces(commands)).some((one) => one.name === name);
    await remove(commands, ["netns", "delete", name], isThere);
  }
  for (const { ifname } of ports) await commands.run("ip", ["link", "delete", ifname ?? ""]);
  const hasBridge = async () => (await commands.run("ip", ["link", "show", bridge])).code === 0;
  if (await hasBridge()) await remove(commands, ["link", "delete", bridge], hasBridge);
  await runChecked(commands, "rm", ["-rf", `${options.ipamDir ?? defaultIpamDir}/${networkName}`]);
  const path = `${options.cniConfDir}/${fileName}`;
  if (await exists(path)) await runChecked(commands, "rm", ["-f", path]);
}

/** Fails where it is still there: somebody else may have taken it away this moment. */
async function remove(commands: Commands, args: readonly string[], isThere: () => Promise<boolean>): Promise<void> {
  const { code, stderr } = await commands.run("ip", args);
  if (code !== 0 && (await isThere())) throw new AppError("NETWORK_REMOVAL", `ip ${args.join(" ")}: ${stderr.trim()}`);
}

interface Port {
  readonly ifname?: string;
  readonly link_netnsid?: number;
}

async function namespaces(commands: Commands): Promise<{ name: string; id?: number }[]> {
  const shown = await commands.run("ip", ["-j", "netns", "list"]);
  return shown.code === 0 && shown.stdout.trim() !== ""
    ? (JSON.parse(shown.stdout) as { name: string; id?: number }[])
    : [];
}
