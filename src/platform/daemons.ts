// Programs that outlive this process: started in a session of their own, found again by process id. An id counts as
// "the same program" only if its command line starts with the same file, since ids are reused.
import { closeSync, openSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { AppError } from "#base/errors.ts";
import { type ChildEnvironment, spawnDetached } from "./processes.ts";

/** Starts `program` with output appended to `logPath`; its process id. */
export function startDaemon(
  program: string,
  args: readonly string[],
  logPath: string,
  environment: ChildEnvironment = {},
): Promise<number> {
  const logFd = openSync(logPath, "a", 0o640);
  return new Promise((resolve, reject) => {
    const child = spawnDetached(program, args, { logFd, ...environment });
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

/** A living process: who started it and its command line. */
export interface ProcessFacts {
  readonly pid: number;
  readonly parentPid: number;
  readonly args: readonly string[];
}

/** Living processes whose command line `matches`, oldest id first. A record on disk can be lost, the process table not. */
export async function findProcesses(matches: (facts: ProcessFacts) => boolean): Promise<ProcessFacts[]> {
  const found: ProcessFacts[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const facts = await factsOf(Number(name));
    if (facts && matches(facts)) found.push(facts);
  }
  return found.sort((a, b) => a.pid - b.pid);
}

async function factsOf(pid: number): Promise<ProcessFacts | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const [state, parentPid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (state === "Z") return undefined;
    const args = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").slice(0, -1);
    return { pid, parentPid: Number(parentPid), args };
  } catch {
    // It ended while it was looked at.
    return undefined;
  }
}

/** Kills a process and everything below it, parents first so that nothing is started anew. */
export async function killTree(pid: number): Promise<void> {
  const all = await findProcesses(() => true);
  const pids = [pid];
  for (let i = 0; i < pids.length; i++) {
    for (const facts of all) if (facts.parentPid === pids[i]) pids.push(facts.pid);
  }
  for (const member of pids) signalProcess(member, "SIGKILL");
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
