// `npm run down`: stops pods and process and removes the networks; with --purge the data too.
import { existsSync, rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "#scripts/run-command.ts";
import { main, runStages, seconds, UserError } from "#scripts/stages.ts";
import { clusterFromArgs, runningPid } from "./cluster.ts";
import { requireRoot } from "./host.ts";

const stopTimeoutMs = 30_000;

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
        rmSync(cluster.dataDir, { recursive: true, force: true });
        rmSync(cluster.runDir, { recursive: true, force: true });
        rmSync(cluster.kubeconfig, { force: true });
        return `removed ${cluster.dataDir}`;
      },
    },
  ]);
  console.log(`mote is down (${seconds(totalMs)})`);
});
