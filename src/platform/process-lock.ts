// One process per data folder. Node has no flock, so the lock is an abstract unix socket, which goes with its process
// however that ends, plus a pid file for the case of two network namespaces that share the disk.
import { createHash } from "node:crypto";
import { readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { basename, dirname, join } from "node:path";
import { AppError, hasCode } from "#base/errors.ts";

export interface ProcessLock {
  release(): Promise<void>;
}

/** Takes the lock for `path` (whose folder exists). Rejects with PROCESS_LOCKED when another process, or this one, has it. */
export async function acquireProcessLock(path: string): Promise<ProcessLock> {
  const real = join(realpathSync(dirname(path)), basename(path));
  const name = `\0mote-lock-${createHash("sha256").update(real).digest("hex").slice(0, 32)}`;
  const server = createServer((socket) => socket.destroy());
  try {
    await listen(server, name);
  } catch (error) {
    if (!hasCode(error, "EADDRINUSE")) throw error;
    throw new AppError("PROCESS_LOCKED", `${real} is in use by another process`, { path: real });
  }
  const pidFile = `${real}.pid`;
  const holder = livingHolder(pidFile);
  if (holder !== undefined) {
    await close(server);
    throw new AppError("PROCESS_LOCKED", `${real} is in use by process ${holder}`, { path: real, pid: holder });
  }
  writeFileSync(pidFile, `${process.pid} ${startOf(process.pid) ?? ""}\n`, { mode: 0o600 });
  server.unref();
  return {
    async release() {
      rmSync(pidFile, { force: true });
      await close(server);
    },
  };
}

function listen(server: Server, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(name, () => resolve());
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

/** The pid in the file if that very process still runs; a reused pid has another start time. */
function livingHolder(pidFile: string): number | undefined {
  let text: string;
  try {
    text = readFileSync(pidFile, "latin1");
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
  const [pidText, start] = text.trim().split(" ");
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 0 || pid === process.pid || !start) return undefined;
  return startOf(pid) === start ? pid : undefined;
}

/** Start time of a process in clock ticks since boot with the boot's id, or undefined when it is gone. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is the program's name in brackets, which may hold spaces; start time is the 22nd.
    const ticks = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return `${ticks}@${readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()}`;
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ESRCH")) return undefined;
    throw error;
  }
}
