// The `mote` command: picks the subcommand, reads its flags, and turns failures into one sentence and an exit code. It imports
// nothing of what the subcommands do: each is loaded when it runs, so that a node carries no API server in its memory, and a
// command that ends soon does not read all of mote first.
import { moteCommit, moteVersion } from "#base/version.ts";
import { agentFlags } from "#cli/agent-flags.ts";
import { certificateFlags, certificateUsage } from "#cli/certificate-flags.ts";
import { type Flag, hanging, helpText, wrapped } from "#cli/flags.ts";
import { kineFlags, kineSummary } from "#cli/kine-flags.ts";
import { machineFlags } from "#cli/machine-flags.ts";
import { nearest } from "#cli/nearest.ts";
import { nodeFlags, nodeUsage } from "#cli/node-flags.ts";
import { secretsEncryptFlags, secretsEncryptUsage } from "#cli/secrets-encrypt-flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { snapshotFlags, snapshotUsage } from "#cli/snapshot-flags.ts";
import { tokenFlags, tokenUsage } from "#cli/token-flags.ts";
import { isRoot } from "#platform/host.ts";
import { passThrough } from "#platform/processes.ts";
import { refuseDebugger } from "#platform/signals.ts";
import { defaultPaths } from "./default-paths.ts";
import { exitCodeOf } from "./exit-code.ts";
import type { Invocation } from "./invocation.ts";

interface Command {
  readonly name: string;
  readonly summary: string;
  readonly flags: readonly Flag[];
  /** Resolves with the exit code. */
  run(given: Invocation): Promise<number>;
}

const flagsNamed = (...names: string[]): readonly Flag[] => serverFlags.filter((flag) => names.includes(flag.name));
const snapshotCommandFlags = [
  ...snapshotFlags,
  ...flagsNamed("config", "data-dir", "datastore-endpoint", "node-name", "with-node-id"),
];

const commands: readonly Command[] = [
  {
    name: "server",
    summary: "run the API server, scheduler, controllers, datastore and node agent",
    flags: serverFlags,
    run: async (given) => (await import("./server.ts")).serverCommand(given),
  },
  {
    name: "agent",
    summary: "run a node of a cluster whose server is elsewhere",
    flags: agentFlags,
    run: async (given) => (await import("./agent.ts")).agentCommand(given),
  },
  {
    name: "machine",
    summary: "run a device of its own: disk, network and clock, then the server (PID 1 of the appliance starts it)",
    flags: machineFlags,
    run: async ({ args }) => (await import("./machine.ts")).machine(args),
  },
  {
    name: "killall",
    summary:
      "stop every pod and containerd of this data folder and remove mote's networks (mote server or agent must have ended)",
    flags: flagsNamed("config", "data-dir", "run-dir", "debug", "kubelet-arg"),
    run: async (given) => (await import("./folder-commands.ts")).killAllCommand(given),
  },
  {
    name: "kine",
    summary: kineSummary,
    flags: kineFlags,
    run: async (given) => (await import("./folder-commands.ts")).kineCommand(given),
  },
  {
    name: "snapshot",
    summary: `copies of the datastore: ${snapshotUsage}`,
    flags: snapshotCommandFlags,
    run: async (given) => (await import("./folder-commands.ts")).snapshotCommand(given),
  },
  {
    name: "etcd-snapshot",
    summary: "the same under k3s's name; without a verb it saves",
    flags: snapshotCommandFlags,
    run: async (given) => (await import("./folder-commands.ts")).snapshotCommand(given, "save"),
  },
  {
    name: "secrets-encrypt",
    summary: `keys that Secrets are encrypted with in the datastore: ${secretsEncryptUsage}`,
    flags: [...secretsEncryptFlags, ...flagsNamed("config", "data-dir")],
    run: async (given) => (await import("./folder-commands.ts")).secretsEncryptCommand(given),
  },
  {
    name: "token",
    summary: `tokens that let nodes join for a while: ${tokenUsage}`,
    flags: tokenFlags,
    run: async (given) => (await import("./client-commands.ts")).tokenCommand(given),
  },
  {
    name: "certificate",
    summary: `how long certificates are good, new ones, and new authorities: ${certificateUsage}`,
    flags: [...certificateFlags, ...flagsNamed("config", "data-dir", "https-listen-port")],
    run: async (given) => (await import("./folder-commands.ts")).certificateCommand(given),
  },
  {
    name: "node",
    summary: `lets another device have the name of a node, once: ${nodeUsage}`,
    flags: nodeFlags,
    run: async (given) => (await import("./client-commands.ts")).nodeCommandOf(given),
  },
  {
    name: "kubectl",
    summary: "run kubectl against this server",
    flags: [],
    run: ({ args, env, runner }) => {
      const kubeconfig = env["KUBECONFIG"] ?? defaultPaths(runner).kubeconfig;
      return passThrough("kubectl", args, { KUBECONFIG: kubeconfig });
    },
  },
  {
    name: "ctr",
    summary: "run containerd's ctr against this node's containerd",
    flags: [],
    run: ({ args, env }) => {
      const runDir = env["MOTE_RUN_DIR"] ?? "/run/mote";
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

function usage(): string {
  const lines = commands.map((c) => hanging(`  mote ${c.name}`, c.summary, 24));
  return `mote ${moteVersion}: Kubernetes for devices that nobody visits\n\n${lines.join("\n")}\n\nmote COMMAND --help lists a command's flags.`;
}

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...args] = argv;
  if (name === "help" && commands.some((c) => c.name === args[0])) return main([args[0]!, "--help"]);
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    console.log(usage());
    return name === undefined ? 1 : 0;
  }
  if (name === "--version" || name === "-v") return main(["version"]);
  const command = commands.find((c) => c.name === name);
  if (!command) {
    const names = commands.map((c) => c.name);
    const near = nearest(name, names);
    const meant = near === undefined ? `; one of ${names.join(", ")}` : `; did you mean mote ${near}?`;
    console.error(wrapped(`error: unknown command "${name}"${meant}`).join("\n"));
    return 1;
  }
  if (command.flags.length > 0 && (args.includes("--help") || args.includes("-h"))) {
    const title = wrapped(`mote ${command.name}: ${command.summary}`).join("\n");
    console.log(`${title}\n\n${helpText(command.flags)}`);
    return 0;
  }
  const { env } = process;
  const runner = { isRoot: isRoot(), home: env["HOME"] };
  return exitCodeOf(() => command.run({ args, env, flags: command.flags, runner }));
}

refuseDebugger();
// Open handles of a stopped part must not keep the process: every service has ended by now.
process.exit(await main(process.argv.slice(2)));
