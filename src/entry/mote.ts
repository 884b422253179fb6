// The `mote` command: picks the subcommand, reads its flags, and turns failures into one sentence and an exit code.
import { moteCommit, moteVersion } from "#base/version.ts";
import { agentFlags } from "#cli/agent-flags.ts";
import { certificateFlags } from "#cli/certificate-flags.ts";
import { type Flag, hanging, helpText, parseFlags, usageError, wrapped } from "#cli/flags.ts";
import { kineFlags, kineSummary } from "#cli/kine-flags.ts";
import { machineFlags } from "#cli/machine-flags.ts";
import { nodeFlags } from "#cli/node-flags.ts";
import { secretsEncryptFlags } from "#cli/secrets-encrypt-flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { snapshotFlags } from "#cli/snapshot-flags.ts";
import { tokenFlags } from "#cli/token-flags.ts";
import { isRoot } from "#platform/host.ts";
import { passThrough } from "#platform/processes.ts";
import { refuseDebugger } from "#platform/signals.ts";
import { runAgent } from "./agent.ts";
import { certificate, certificateUsage } from "./certificate.ts";
import { agentConfig, defaultPaths, type Runner, readFlags, serverConfig } from "./config.ts";
import { exitCodeOf } from "./exit-code.ts";
import { killAll } from "./killall.ts";
import { runKine } from "./kine.ts";
import { machine } from "./machine.ts";
import { nodeCommand, nodeUsage } from "./node-command.ts";
import { secretsEncrypt, secretsEncryptUsage } from "./secrets-encrypt.ts";
import { runServer } from "./server.ts";
import { snapshot, snapshotUsage } from "./snapshot.ts";
import { token, tokenUsage } from "./token.ts";

interface Command {
  readonly name: string;
  readonly summary: string;
  readonly flags: readonly Flag[];
  /** Resolves with the exit code. */
  run(args: readonly string[]): Promise<number>;
}

const flagsNamed = (...names: string[]): readonly Flag[] => serverFlags.filter((flag) => names.includes(flag.name));

const snapshotCommandFlags = [...snapshotFlags, ...flagsNamed("config", "data-dir", "datastore-endpoint", "node-name")];
const secretsEncryptCommandFlags = [...secretsEncryptFlags, ...flagsNamed("config", "data-dir")];
const certificateCommandFlags = [...certificateFlags, ...flagsNamed("config", "data-dir", "https-listen-port")];
const defaultsOf = (flags: readonly Flag[]) => Object.fromEntries(flags.map((flag) => [flag.name, flag.default]));

const commands: readonly Command[] = [
  {
    name: "server",
    summary: "run the API server, scheduler, controllers, datastore and node agent",
    flags: serverFlags,
    run: async (args) => runServer(await configFor(serverFlags, args)),
  },
  {
    name: "agent",
    summary: "run a node of a cluster whose server is elsewhere",
    flags: agentFlags,
    async run(args) {
      const { values, positionals, warnings } = await readFlags(agentFlags, args, process.env);
      if (positionals.length > 0) throw usageError(`unexpected argument "${positionals[0]}"`);
      return runAgent(agentConfig(values, warnings, runner()));
    },
  },
  {
    name: "machine",
    summary: "run a device of its own: disk, network and clock, then the server (PID 1 of the appliance starts it)",
    flags: machineFlags,
    run: async (args) => machine(parseFlags(machineFlags, { args, env: {} })),
  },
  {
    name: "killall",
    summary:
      "stop every pod and containerd of this data folder and remove mote's networks (mote server or agent must have ended)",
    flags: flagsNamed("config", "data-dir", "run-dir", "debug", "kubelet-arg"),
    run: async (args) => killAll(await configFor(serverFlags, args)),
  },
  {
    name: "kine",
    summary: kineSummary,
    flags: kineFlags,
    run: (args) => runKine(args, process.env),
  },
  {
    name: "snapshot",
    summary: `copies of the datastore: ${snapshotUsage}`,
    flags: snapshotCommandFlags,
    run: (args) => snapshotCommand(args),
  },
  {
    name: "etcd-snapshot",
    summary: "the same under k3s's name; without a verb it saves",
    flags: snapshotCommandFlags,
    run: (args) => snapshotCommand(args, "save"),
  },
  {
    name: "secrets-encrypt",
    summary: `keys that Secrets are encrypted with in the datastore: ${secretsEncryptUsage}`,
    flags: secretsEncryptCommandFlags,
    run: async (args) => {
      const { values, positionals } = await readFlags(secretsEncryptCommandFlags, args, process.env);
      const config = serverConfig({ ...defaultsOf(serverFlags), ...values }, [], runner());
      return secretsEncrypt(positionals, values, config);
    },
  },
  {
    name: "token",
    summary: `tokens that let nodes join for a while: ${tokenUsage}`,
    flags: tokenFlags,
    async run(args) {
      const { values, positionals } = parseFlags(tokenFlags, { args, env: process.env });
      return token(positionals, values, String(values["kubeconfig"] ?? defaultPaths(runner()).kubeconfig));
    },
  },
  {
    name: "certificate",
    summary: `how long certificates are good, new ones, and new authorities: ${certificateUsage}`,
    flags: certificateCommandFlags,
    async run(args) {
      const { values, positionals } = await readFlags(certificateCommandFlags, args, process.env);
      const config = serverConfig({ ...defaultsOf(serverFlags), ...values }, [], runner());
      return certificate(positionals, values, config);
    },
  },
  {
    name: "node",
    summary: `lets another device have the name of a node, once: ${nodeUsage}`,
    flags: nodeFlags,
    async run(args) {
      const { values, positionals } = parseFlags(nodeFlags, { args, env: process.env });
      return nodeCommand(positionals, values, String(values["kubeconfig"] ?? defaultPaths(runner()).kubeconfig));
    },
  },
  {
    name: "kubectl",
    summary: "run kubectl against this server",
    flags: [],
    run: (args) => {
      const kubeconfig = process.env["KUBECONFIG"] ?? defaultPaths(runner()).kubeconfig;
      return passThrough("kubectl", args, { KUBECONFIG: kubeconfig });
    },
  },
  {
    name: "ctr",
    summary: "run containerd's ctr against this node's containerd",
    flags: [],
    run: (args) => {
      const runDir = process.env["MOTE_RUN_DIR"] ?? "/run/mote";
      return passThrough(
        "ctr",
        ["--address", `${runDir}/containerd/containerd.sock`, "--namespace", "k8s.io", ...args],
        {},
      );
    },
  },
  {
    name: "version",
    summary: "print the version",
    flags: [],
    run: async () => {
      console.log(`mote version ${moteVersion} (${moteCommit})\nnode version ${process.version}`);
      return 0;
    },
  },
];

async function snapshotCommand(args: readonly string[], defaultVerb?: string): Promise<number> {
  const { values, positionals } = await readFlags(snapshotCommandFlags, args, process.env);
  const words = positionals.length === 0 && defaultVerb !== undefined ? [defaultVerb] : positionals;
  return snapshot(words, values, serverConfig({ ...defaultsOf(serverFlags), ...values }, [], runner()));
}

async function configFor(flags: readonly Flag[], args: readonly string[]) {
  const { values, positionals, warnings } = await readFlags(flags, args, process.env);
  if (positionals.length > 0) throw usageError(`unexpected argument "${positionals[0]}"`);
  return serverConfig(values, warnings, runner());
}

const runner = (): Runner => ({ isRoot: isRoot(), home: process.env["HOME"] });

function usage(): string {
  const lines = commands.map((c) => hanging(`  mote ${c.name}`, c.summary, 24));
  return `mote ${moteVersion}: Kubernetes for devices that nobody visits\n\n${lines.join("\n")}\n\nmote COMMAND --help lists a command's flags.`;
}

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...args] = argv;
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    console.log(usage());
    return name === undefined ? 1 : 0;
  }
  if (name === "--version" || name === "-v") return main(["version"]);
  const command = commands.find((c) => c.name === name);
  if (!command) {
    console.error(`error: unknown command "${name}"; one of ${commands.map((c) => c.name).join(", ")}`);
    return 1;
  }
  if (command.flags.length > 0 && (args.includes("--help") || args.includes("-h"))) {
    const title = wrapped(`mote ${command.name}: ${command.summary}`).join("\n");
    console.log(`${title}\n\n${helpText(command.flags)}`);
    return 0;
  }
  return exitCodeOf(() => command.run(args));
}

refuseDebugger();
// Open handles of a stopped part must not keep the process: every service has ended by now.
process.exit(await main(process.argv.slice(2)));
