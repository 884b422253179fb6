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
  const lock = await lockOf(config);
  try {
    await removeNode(config, { clock: systemClock, log: createProcessLog(systemClock, config.debug) });
  } finally {
    await lock?.release();
  }
  console.log("pods, containerd and networks are down");
  return 0;
}

/** The datastore's lock, which a running server holds; undefined where no server ever ran. */
async function lockOf(config: ServerConfig): Promise<ProcessLock | undefined> {
  const folder = `${config.serverDir}/db`;
  if (!(await exists(folder))) return undefined;
  try {
    return await acquireProcessLock(`${folder}/state.db`);
  } catch (error) {
    if (!hasCode(error, "PROCESS_LOCKED")) throw error;
    throw new AppError("STARTUP", `mote server runs on ${config.dataDir}; stop it first`, {}, { cause: error });
  }
}
