// Programs that outlive this process: started in a session of their own, found again by process id. An id counts as
// "the same program" only if its command line starts with the same file, since ids are reused.
import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { AppError } from "#base/errors.ts";
import { spawnDetached } from "./processes.ts";

/** Starts `program` with output appended to `logPath`; its process id. */
export function startDaemon(program: string, args: readonly string[], logPath: string): Promise<number> {
  const logFd = openSync(logPath, "a", 0o640);
  return new Promise((resolve, reject) => {
    const child = spawnDetached(program, args, { logFd });
    closeSync(logFd);
    child.once("error", (cause) => {
      reject(new AppError("COMMAND_START", `cannot start ${program}: ${cause.message}`, { program }, { cause }));
    });
    // Reaps it, so that a dead daemon does not look alive as a zombie.
    child.once("exit", () => {});
    child.once("spawn", () => resolve(child.pid!));
  });
}

/** Whether `pid` lives, is no zombie and runs `program`. */
export async function isRunning(pid: number, program: string): Promise<boolean> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    if (stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z")) return false;
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8");
    return basename(line.split("\0")[0] ?? "") === basename(program);
  } catch {
    // No such process, or it went away between the two reads.
    return false;
  }
}

/** False when there was nothing to signal. */
export function signalProcess(pid: number, signal: "SIGTERM" | "SIGKILL"): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    // ESRCH: it has ended already, which is what was wanted.
    return false;
  }
}
