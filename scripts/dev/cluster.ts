// Where `npm run up` keeps a development cluster, and how to find a running one.
import { existsSync, readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { UserError } from "#scripts/stages.ts";

export interface Cluster {
  readonly dataDir: string;
  readonly runDir: string;
  readonly port: number;
  readonly kubeconfig: string;
  readonly pidFile: string;
  readonly logFile: string;
  readonly purge: boolean;
  /** Arguments for `mote server`. */
  readonly serverArgs: readonly string[];
}

const stringFlags = ["data-dir", "run-dir", "port", "kubeconfig"] as const;

/** Reads the flags of `npm run COMMAND`; for up, anything after a second `--` goes to `mote server`. */
export function clusterFromArgs(command: "up" | "down", args: readonly string[]): Cluster {
  const { values, positionals } = parse(command, args);
  const dataDir = values["data-dir"] ?? "/var/lib/mote";
  const runDir = values["run-dir"] ?? "/run/mote";
  const port = Number(values.port ?? 6443);
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new UserError(`--port: "${values.port}" is not allowed; use a whole number from 1 to 65535`);
  }
  const kubeconfig = values.kubeconfig ?? "/etc/mote/kubeconfig.yaml";
  const serverArgs = [
    ...[
      "--data-dir",
      dataDir,
      "--run-dir",
      runDir,
      "--https-listen-port",
      String(port),
      "--write-kubeconfig",
      kubeconfig,
    ],
    ...positionals,
  ];
  return {
    ...{ dataDir, runDir, port, kubeconfig, serverArgs, purge: values.purge === true },
    pidFile: `${runDir}/mote.pid`,
    logFile: `${dataDir}/mote.log`,
  };
}

interface Parsed {
  readonly values: Partial<Record<(typeof stringFlags)[number], string>> & { readonly purge?: boolean };
  readonly positionals: readonly string[];
}

function parse(command: "up" | "down", args: readonly string[]): Parsed {
  const options = {
    ...Object.fromEntries(stringFlags.map((name) => [name, { type: "string" as const }])),
    ...(command === "down" ? { purge: { type: "boolean" as const } } : {}),
  };
  const ends = args.includes("--") ? args.indexOf("--") : args.length;
  const { tokens } = parseArgs({ args: args.slice(0, ends), options, strict: false, tokens: true });
  const values: Record<string, string | boolean> = {};
  for (const token of tokens) {
    const known = Object.keys(options).map((name) => `--${name}`);
    if (token.kind === "positional") throw new UserError(`unexpected argument "${token.value}"`);
    if (token.kind !== "option") continue;
    const isText = (stringFlags as readonly string[]).includes(token.name);
    if (!known.includes(`--${token.name}`)) {
      const serverHint = command === "up" ? ` (flags of mote server go after another --)` : "";
      throw new UserError(`unknown flag ${token.rawName}; use ${known.join(", ")}${serverHint}`);
    }
    if (isText && !token.value) throw new UserError(`${token.rawName} needs a value`);
    values[token.name] = isText ? token.value! : true;
  }
  const positionals = args.slice(ends + 1);
  if (command === "down" && positionals.length > 0) throw new UserError(`unexpected argument "${positionals[0]}"`);
  return { values, positionals };
}

/** The pid of the running server, or undefined; a stale pid file (another program has the number) does not count. */
export function runningPid(cluster: Cluster): number | undefined {
  if (!existsSync(cluster.pidFile)) return undefined;
  const pid = Number(readFileSync(cluster.pidFile, "utf8").trim());
  if (!Number.isInteger(pid) || pid <= 1) return undefined;
  try {
    const commandLine = readFileSync(`/proc/${pid}/cmdline`, "utf8");
    return commandLine.includes("mote.mjs") ? pid : undefined;
  } catch {
    return undefined; // no such process
  }
}
