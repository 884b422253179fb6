// `mote machine`: hands the appliance the server to run. Composition only; what a device does is in src/appliance.
import { type DeviceServer, type MachineOptions, runMachine } from "#appliance/machine.ts";
import { say } from "#appliance/machine-log.ts";
import { moteVersion } from "#base/version.ts";
import { agentFlags } from "#cli/agent-flags.ts";
import { parseFlags } from "#cli/flags.ts";
import { machineFlags } from "#cli/machine-flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { assetFolder } from "#platform/assets.ts";
import { systemClock } from "#platform/clock.ts";
import { exists, readFileIfExists } from "#platform/files.ts";
import { defaultAddress, hasDefaultRoute } from "#platform/host.ts";
import { fileFacts } from "#platform/open-file.ts";
import { systemCommands } from "#platform/processes.ts";
import { systemRandom } from "#platform/random.ts";
import { stopSignal } from "#platform/signals.ts";
import { writeOutput } from "#platform/standard-streams.ts";
import { systemSysctl } from "#platform/sysctl.ts";
import { serverConfig } from "./config.ts";
import { removeNode } from "./node.ts";
import { agentConfig } from "./node-config.ts";
import { withNodeId } from "./node-id.ts";
import { readFlags } from "./read-flags.ts";
import { withTokenFiles } from "./token-file.ts";

const fwCfgDir = "/sys/firmware/qemu_fw_cfg/by_name/opt/mote";
/** What `serverConfig` needs to know of whoever runs it. */
const runner = { isRoot: true, home: undefined };

export async function machine(args: readonly string[]): Promise<number> {
  const { values } = parseFlags(machineFlags, { args, env: {} });
  const folder = (name: string) => String(values[name]);
  const made = await fileFacts(`${assetFolder()}/mote.mjs`);
  const options: MachineOptions = {
    version: moteVersion,
    ...(made ? { madeMs: made.modifiedMs } : {}),
    bootDir: folder("boot"),
    dataDir: folder("data"),
    etcDir: folder("etc"),
    runDir: folder("run-dir"),
    hasOwnDisk: values["no-disk"] !== true,
    hasOwnNetwork: values["no-network"] !== true,
    hasOwnClock: values["no-clock"] !== true,
    hasWatchdog: values["no-watchdog"] !== true,
    fwCfgDir,
    commandLine: (await readFileIfExists("/proc/cmdline"))?.toString("utf8").trim() ?? "",
    debug: values["debug"] === true,
  };
  return runMachine(
    options,
    { clock: systemClock, random: systemRandom, commands: systemCommands, sysctl: systemSysctl, server: deviceServer },
    stopSignal(),
  );
}

const deviceServer: DeviceServer = {
  keys: {
    names: serverFlags.map((flag) => flag.name),
    check(key, value) {
      const files = [{ path: "mote.yaml", values: { [key]: value } }];
      const { values } = parseFlags(serverFlags, { args: [], env: {}, files });
      serverConfig(values, [], runner);
    },
  },
  apiPort: Number(serverFlags.find((flag) => flag.name === "https-listen-port")?.default),
  address() {
    const address = defaultAddress();
    return address === "127.0.0.1" ? undefined : address;
  },
  hasDefaultRoute,
  async run(args) {
    // containerd inherits it, and with it every pull.
    Object.assign(process.env, args.environment);
    const { log, signal, onNode, onApiReady } = args;
    const nodeIp = args.nodeIp === undefined ? [] : ["--node-ip", args.nodeIp];
    if (args.joins !== undefined) {
      const flags = ["--config", args.configPath, "--server", args.joins, ...nodeIp];
      const { values, warnings } = await readFlags(agentFlags, flags, {});
      const agent = agentConfig(values, warnings, runner);
      const named = await withNodeId(agent.node, values, systemRandom);
      const node = { ...named, containerdLogDir: named.runDir };
      // A device is one or the other, and does not carry both in its memory.
      const { runAgent } = await import("./agent.ts");
      await runAgent({ ...agent, node }, { log, signal, onNode, onApiReady, onProblem: args.onProblem });
      return;
    }
    const config = await configAt(args.configPath, nodeIp);
    const { runServer } = await import("./server.ts");
    await runServer(config, {
      ...{ log, signal, onNode },
      onApiReady() {
        onApiReady();
        // Awaited by nobody: it only prints.
        void showKubeconfig(config.kubeconfigPath).catch((error: unknown) => say(`error kubeconfig: ${String(error)}`));
      },
    });
  },
  async stopPods(configPath, log) {
    await removeNode(await configAt(configPath), { clock: systemClock, log });
  },
};

async function configAt(path: string, args: readonly string[] = []) {
  const { values, warnings } = await readFlags(serverFlags, ["--config", path, ...args], {});
  const named = await withNodeId(serverConfig(values, warnings, runner), values, systemRandom);
  const config = await withTokenFiles(named, values);
  // Logs do not go to flash.
  return { ...config, containerdLogDir: config.runDir };
}

/** For whoever started this virtual machine and asked for it: the console is theirs. Real hardware has no such file. */
async function showKubeconfig(path: string): Promise<void> {
  if (!(await exists(`${fwCfgDir}/console-kubeconfig`))) return;
  const bytes = await readFileIfExists(path);
  if (!bytes) return;
  say("kubeconfig begin");
  for (const line of bytes.toString("base64").match(/.{1,76}/g) ?? []) writeOutput(`${line}\n`);
  say("kubeconfig end");
}
