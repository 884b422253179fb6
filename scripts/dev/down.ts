// `npm run down`: stops pods and process and removes the networks; with --purge the data too.
import { existsSync, readdirSync, rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "#scripts/run-command.ts";
import { main, runStages, seconds, UserError } from "#scripts/stages.ts";
import { type Cluster, clusterFromArgs, runningPid } from "./cluster.ts";
import { requireRoot } from "./host.ts";

const stopTimeoutMs = 30_000;
const podLogs = "/var/log/pods";

await main(async () => {
  const cluster = clusterFromArgs("down", process.argv.slice(2));
  requireRoot();
  const totalMs = await runStages([
    {
      name: "server",
      run: async () => {
        const pid = runningPid(cluster);
        if (pid === undefined) return "was not running";
        process.kill(pid, "SIGTERM");
        for (const startedMs = performance.now(); runningPid(cluster) !== undefined; await sleep(50)) {
          if (performance.now() - startedMs > stopTimeoutMs)
            throw new UserError(`mote (pid ${pid}) did not end within 30 s`);
        }
        rmSync(cluster.pidFile, { force: true });
        return undefined;
      },
    },
    {
      name: "pods and networks",
      run: async () => {
        if (!existsSync("build/dist/mote")) return "nothing built, nothing to stop";
        const args = ["killall", "--data-dir", cluster.dataDir, "--run-dir", cluster.runDir];
        return (await run("build/dist/mote", args)).output.trim();
      },
    },
    {
      name: "data",
      run: async () => {
        if (!cluster.purge) return `kept in ${cluster.dataDir}`;
        removePodLogs(cluster);
        rmSync(cluster.dataDir, { recursive: true, force: true });
        rmSync(cluster.runDir, { recursive: true, force: true });
        rmSync(cluster.kubeconfig, { force: true });
        return `removed ${cluster.dataDir}`;
      },
    },
  ]);
  console.log(`mote is down (${seconds(totalMs)})`);
});

/** Pod logs are where every node keeps them, named after the pod's uid: only those of this cluster's pods go. */
function removePodLogs(cluster: Cluster): void {
  const uids = foldersIn(`${cluster.dataDir}/agent/pods`);
  for (const folder of foldersIn(podLogs)) {
    if (uids.some((uid) => folder.endsWith(`_${uid}`)))
      rmSync(`${podLogs}/${folder}`, { recursive: true, force: true });
  }
}

function foldersIn(path: string): string[] {
  return existsSync(path) ? readdirSync(path) : [];
}
