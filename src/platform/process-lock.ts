// One process per data folder. Node has no flock, so the lock is an abstract unix socket, which goes with its process
// however that ends, plus a pid file for the case of two network namespaces that share the disk.
import { createHash } from "node:crypto";
import { readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { basename, dirname, join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { AppError, hasCode } from "#base/errors.ts";

export interface ProcessLock {
  release(): Promise<void>;
}

/** A killed holder may need this long to be gone: its memory is taken apart first. */
const patienceMs = 2000;
const retryMs = 50;

/** Takes the lock for `path` (whose folder exists). Rejects with PROCESS_LOCKED when another process, or this one, keeps it. */
export async function acquireProcessLock(path: string): Promise<ProcessLock> {
  for (let waitedMs = 0; ; waitedMs += retryMs) {
    try {
      return await tryLock(path);
    } catch (error) {
      if (!hasCode(error, "PROCESS_LOCKED") || waitedMs >= patienceMs) throw error;
      await setTimeout(retryMs);
    }
  }
}

async function tryLock(path: string): Promise<ProcessLock> {
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
  try {
    writeFileSync(pidFile, `${process.pid} ${startOf(process.pid) ?? ""}\n`, { mode: 0o600 });
  } catch (error) {
    // A full disk must not keep the store from opening: the socket alone is lock enough for one network namespace.
    if (!hasCode(error, "ENOSPC")) {
      await close(server);
      throw error;
    }
  }
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
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A zombie holds nothing any more; its parent is only slow to notice.
    if (fields[0] === "Z" || fields[0] === "X") return undefined;
    const ticks = fields[19];
    return `${ticks}@${readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()}`;
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ESRCH")) return undefined;
    throw error;
  }
}
