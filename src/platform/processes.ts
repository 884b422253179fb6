// Child processes: short commands with a bounded answer, and long-running ones.
import { type ChildProcess, spawn } from "node:child_process";
import { AppError } from "#base/errors.ts";

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Default 30 s. After it the child is killed and the call rejects with COMMAND_TIMEOUT. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Output kept per stream; default 8 MiB. More rejects with COMMAND_OUTPUT. */
  readonly maxOutputBytes?: number;
}

/** What parts need of the machine to run short commands; tests hand in their own. */
export interface Commands {
  /** Resolves with any exit code; rejects when the program cannot be started (COMMAND_START) or overruns its bounds. */
  run(program: string, args: readonly string[], options?: CommandOptions): Promise<CommandResult>;
}

export const systemCommands: Commands = {
  run(program, args, options = {}) {
    return new Promise((resolve, reject) => {
      const max = options.maxOutputBytes ?? 8 * 1024 * 1024;
      const child = spawn(program, args, {
        stdio: "pipe",
        ...(options.env ? { env: { ...process.env, ...options.env } } : {}),
        ...(options.cwd ? { cwd: options.cwd } : {}),
      });
      const out: Buffer[] = [];
      const err: Buffer[] = [];
      let size = 0;
      let failure: Error | undefined;
      const kill = (error: Error) => {
        failure ??= error;
        child.kill("SIGKILL");
      };
      const timer = setTimeout(
        () => kill(new AppError("COMMAND_TIMEOUT", `${program} ${args.join(" ")} took too long`)),
        options.timeoutMs ?? 30_000,
      );
      const onAbort = () => kill(options.signal?.reason as Error);
      options.signal?.addEventListener("abort", onAbort, { once: true });
      const collect = (into: Buffer[]) => (chunk: Buffer) => {
        size += chunk.length;
        if (size > max) kill(new AppError("COMMAND_OUTPUT", `${program} printed more than ${max} bytes`));
        else into.push(chunk);
      };
      const end = () => {
        clearTimeout(timer);
        options.signal?.removeEventListener("abort", onAbort);
      };
      child.stdout.on("data", collect(out));
      child.stderr.on("data", collect(err));
      child.on("error", (cause) => {
        end();
        reject(new AppError("COMMAND_START", `cannot start ${program}: ${cause.message}`, { program }, { cause }));
      });
      child.on("close", (code, killedBy) => {
        end();
        if (failure) reject(failure);
        else {
          resolve({
            code: code ?? (killedBy ? 128 : 1),
            stdout: Buffer.concat(out).toString("utf8"),
            stderr: Buffer.concat(err).toString("utf8"),
          });
        }
      });
      // A child that ends without reading its input makes the pipe fail; its exit code tells the story.
      child.stdin.on("error", () => {});
      child.stdin.end(options.input);
    });
  },
};

/** Runs a command that must succeed: its stdout, or COMMAND_FAILED with what it said. */
export async function runChecked(
  commands: Commands,
  program: string,
  args: readonly string[],
  options?: CommandOptions,
): Promise<string> {
  const result = await commands.run(program, args, options);
  if (result.code !== 0) {
    const said = (result.stderr || result.stdout).trim().slice(0, 2000);
    throw new AppError("COMMAND_FAILED", `${program} ${args.join(" ")}: exit ${result.code}: ${said}`, {
      program,
      code: result.code,
    });
  }
  return result.stdout;
}

/** What a child has beside the environment of this process. */
export interface ChildEnvironment {
  /** What counts where this process was given no other. */
  readonly defaults?: Readonly<Record<string, string>>;
  /** Variables that begin with it are the child's alone, without it, and count most. */
  readonly ownPrefix?: string;
}

/** A child that outlives its parent: own session, output appended to `logFd`. */
export function spawnDetached(
  program: string,
  args: readonly string[],
  options: { readonly logFd: number } & ChildEnvironment,
): ChildProcess {
  const { logFd, defaults, ownPrefix } = options;
  const own = Object.entries(process.env).flatMap(([name, value]) =>
    ownPrefix !== undefined && name.startsWith(ownPrefix) ? [[name.slice(ownPrefix.length), value] as const] : [],
  );
  const child = spawn(program, args, {
    detached: true,
    stdio: ["ignore", logFd, logFd],
    env: { ...defaults, ...process.env, ...Object.fromEntries(own) },
  });
  child.unref();
  return child;
}

/** Runs a program in the foreground with this process's terminal; its exit code. */
export function passThrough(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: "inherit", env: { ...process.env, ...env } });
    child.on("error", (cause) => {
      reject(new AppError("COMMAND_START", `cannot start ${program}: ${cause.message}`, { program }, { cause }));
    });
    child.on("close", (code) => resolve(code ?? 1));
  });
}
