// `mote killall`: everything that outlives the server is taken down. Counterpart: k3s-killall.sh.
// A running server would only put half of it up again, so its lock must be free; it is held until all is down.
import { AppError, hasCode } from "#base/errors.ts";
import { systemClock } from "#platform/clock.ts";
import { exists } from "#platform/files.ts";
import { isRoot } from "#platform/host.ts";
import { acquireProcessLock, type ProcessLock } from "#platform/process-lock.ts";
import type { ServerConfig } from "./config.ts";
import { createProcessLog } from "./log.ts";
import { removeNode } from "./node.ts";

export async function killAll(config: ServerConfig): Promise<number> {
  if (!isRoot()) throw new AppError("STARTUP", "killall needs root to stop containers and remove networks");
  const locks: ProcessLock[] = [];
  try {
    for (const [folder, name, command] of [
      [`${config.serverDir}/db`, "state.db", "mote server"],
      [config.agentDir, "agent", "mote agent"],
    ] as const) {
      if (await exists(folder)) locks.push(await lockOf(`${folder}/${name}`, command, config.dataDir));
    }
    await removeNode(config, { clock: systemClock, log: createProcessLog(systemClock, config.debug) });
  } finally {
    for (const lock of locks) await lock.release();
  }
  console.log("pods, containerd and networks are down");
  return 0;
}

/** What a running server or agent holds. */
async function lockOf(path: string, command: string, dataDir: string): Promise<ProcessLock> {
  try {
    return await acquireProcessLock(path);
  } catch (error) {
    if (!hasCode(error, "PROCESS_LOCKED")) throw error;
    throw new AppError("STARTUP", `${command} runs on ${dataDir}; stop it first`, {}, { cause: error });
  }
}
