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

/** Reads the flags of up and down; anything after `--` goes to `mote server`. */
export function clusterFromArgs(args: readonly string[]): Cluster {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(args);
  } catch (error) {
    throw new UserError((error as Error).message);
  }
  const { values, positionals } = parsed;
  const dataDir = values["data-dir"] ?? "/var/lib/mote";
  const runDir = values["run-dir"] ?? "/run/mote";
  const port = Number(values.port ?? 6443);
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

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      "data-dir": { type: "string" },
      "run-dir": { type: "string" },
      port: { type: "string" },
      kubeconfig: { type: "string" },
      purge: { type: "boolean" },
    },
  });
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
