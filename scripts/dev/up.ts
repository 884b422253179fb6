// `npm run up`: builds, installs what is missing, starts a one-node cluster in the background, waits until it is Ready.
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { buildStages } from "#scripts/build/build.ts";
import { run } from "#scripts/run-command.ts";
import { main, runStages, type Stage, seconds, UserError } from "#scripts/stages.ts";
import { type Cluster, clusterFromArgs, runningPid } from "./cluster.ts";
import { installHostPackages, requireArchitecture, requirePort, requireRoot, requireSpace } from "./host.ts";
import { ensureKubectl } from "./kubectl.ts";

const readyTimeoutMs = 120_000;

await main(async () => {
  const cluster = clusterFromArgs("up", process.argv.slice(2));
  requireRoot();
  requireArchitecture();
  const pid = runningPid(cluster);
  let sinceMs = 0;
  let kubectl = "kubectl";
  const stages: Stage[] = [
    {
      name: "host",
      run: async () => {
        requireSpace(cluster.dataDir);
        if (pid !== undefined) return `already running, pid ${pid}`;
        await requirePort(cluster.port);
        await requirePort(10250);
        return undefined;
      },
    },
    { name: "Debian packages", run: () => installHostPackages() },
    {
      name: "kubectl",
      run: async () => {
        kubectl = await ensureKubectl();
        return kubectl;
      },
    },
    ...(pid === undefined ? buildStages : []),
    {
      name: "server",
      run: async () => {
        if (pid !== undefined) return `pid ${pid}`;
        sinceMs = Date.now();
        return start(cluster);
      },
    },
    { name: "node Ready", run: () => waitReady(cluster, kubectl, sinceMs) },
  ];
  const totalMs = await runStages(stages);
  const prefix = kubectl === "kubectl" ? "kubectl" : kubectl;
  console.log(`
mote is up (${seconds(totalMs)}). Log: ${cluster.logFile}

  export KUBECONFIG=${cluster.kubeconfig}
  ${prefix} get nodes,pods -A -o wide
  ${prefix} apply -f examples/web.yaml
  ${prefix} logs -f deploy/web

Stop it with: npm run down   (and forget its data: npm run down -- --purge)`);
});

async function start(cluster: Cluster): Promise<string> {
  mkdirSync(cluster.runDir, { recursive: true, mode: 0o755 });
  mkdirSync(cluster.dataDir, { recursive: true, mode: 0o755 });
  const log = openSync(cluster.logFile, "a", 0o640);
  const child = spawn("build/dist/mote", ["server", ...cluster.serverArgs], {
    detached: true,
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  const failure = new Promise<never>((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new UserError(`mote ended with exit ${code}:\n${tail(cluster.logFile)}`)));
  });
  writeFileSync(cluster.pidFile, `${child.pid}\n`);
  const startedMs = performance.now();
  const isUp = async () => {
    while (!existsSync(cluster.kubeconfig) || !(await answersReadyz(cluster))) {
      if (child.exitCode !== null) return;
      if (performance.now() - startedMs > readyTimeoutMs) {
        throw new UserError(`/readyz did not answer within ${readyTimeoutMs / 1000} s:\n${tail(cluster.logFile)}`);
      }
      await sleep(50);
    }
  };
  try {
    await Promise.race([isUp(), failure]);
  } catch (error) {
    // Nothing half-started stays behind.
    child.kill("SIGTERM");
    rmSync(cluster.pidFile, { force: true });
    throw error;
  } finally {
    child.removeAllListeners();
    failure.catch(() => {});
  }
  child.unref();
  return `pid ${child.pid}, /readyz after ${seconds(performance.now() - startedMs)}`;
}

function answersReadyz(cluster: Cluster): Promise<boolean> {
  return new Promise((resolve) => {
    // The certificate is not checked: this only asks whether somebody answers yet.
    const request = get(
      `https://127.0.0.1:${cluster.port}/readyz`,
      { rejectUnauthorized: false, timeout: 2000 },
      (answer) => {
        answer.resume();
        resolve(answer.statusCode === 200);
      },
    );
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(false));
  });
}

/**
 * Waits for a Ready that the node said after `sinceMs`: the datastore also holds the one of the run before, and a node
 * that says so has its pods under control again.
 */
async function waitReady(cluster: Cluster, kubectl: string, sinceMs: number): Promise<string | undefined> {
  const startedMs = performance.now();
  const args = [
    "--kubeconfig",
    cluster.kubeconfig,
    "get",
    "nodes",
    "-o",
    "jsonpath={range .items[*].status.conditions[?(@.type=='Ready')]}{.status} {.lastHeartbeatTime}{'\\n'}{end}",
  ];
  for (;;) {
    const result = await run(kubectl, args, { ok: [0, 1] });
    const isReady = result.output.split("\n").some((line) => {
      const [status, saidAt] = line.split(" ");
      // Heartbeats are told in whole seconds.
      return status === "True" && Date.parse(saidAt ?? "") >= Math.floor(sinceMs / 1000) * 1000;
    });
    if (result.code === 0 && isReady) return undefined;
    if (runningPid(cluster) === undefined) throw new UserError(`mote ended:\n${tail(cluster.logFile)}`);
    if (performance.now() - startedMs > readyTimeoutMs) {
      throw new UserError(`the node did not become Ready within ${readyTimeoutMs / 1000} s:\n${tail(cluster.logFile)}`);
    }
    await sleep(100);
  }
}

function tail(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n").slice(-15).join("\n") : "(no log)";
}
