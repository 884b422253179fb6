// `mote killall`: everything that outlives the server is taken down. Counterpart: k3s-killall.sh.
import { AppError } from "#base/errors.ts";
import { systemClock } from "#platform/clock.ts";
import { isRoot } from "#platform/host.ts";
import type { ServerConfig } from "./config.ts";
import { createProcessLog } from "./log.ts";
import { removeNode } from "./node.ts";

export async function killAll(config: ServerConfig): Promise<number> {
  if (!isRoot()) throw new AppError("STARTUP", "killall needs root to stop containers and remove networks");
  await removeNode(config, { clock: systemClock, log: createProcessLog(systemClock, config.debug) });
  console.log("pods, containerd and networks are down");
  return 0;
}
