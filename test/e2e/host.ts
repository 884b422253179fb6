// A host of its own for a test: a network namespace with an address and a default route, folders of its own, and the
// README's commands, or a `mote server` or `agent`, run inside it; and wires between hosts. What runs here does not meet a
// cluster that the developer has up. Whatever becomes of a test, `closeHosts` leaves nothing of it.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pinnedKubectl } from "#scripts/dev/kubectl.ts";

export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ExecOptions {
  readonly input?: string | Buffer;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

/** A mote gives its parts 10 seconds to end. */
const stopTimeoutMs = 120_000;

export class Host {
  readonly name: string;
  readonly folder: string;
  readonly address: string;
  readonly kubeconfig: string;
  readonly dataDir: string;
  readonly runDir: string;
  #kubectl = "";
  #program: ChildProcess | undefined;

  constructor(name: string, address = "192.168.77.2") {
    this.address = address;
    this.name = `mote-${name}-${process.pid}`;
    this.folder = mkdtempSync(join(tmpdir(), `${this.name}-`));
    this.kubeconfig = join(this.folder, "kubeconfig.yaml");
    this.dataDir = join(this.folder, "data");
    this.runDir = join(this.folder, "run");
  }

  async open(): Promise<void> {
    this.#kubectl = await pinnedKubectl();
    await must("ip", ["netns", "add", this.name]);
    for (const args of [
      "link set lo up",
      // No dummy devices everywhere: a bridge without ports holds an address as well.
      "link add eth0 type bridge",
      `addr add ${this.address}/24 dev eth0`,
      "link set eth0 up",
      "route add default via 192.168.77.1 dev eth0",
    ]) {
      await must("ip", ["-n", this.name, ...args.split(" ")]);
    }
  }

  /** Ends and removes all there is, pods and networks of `dataDir` too. */
  async close(): Promise<void> {
    try {
      await this.stop();
    } finally {
      const said = this.programLog();
      if (process.env["MOTE_E2E_LOG"] && said !== "") console.log(`${this.name}:\n${said.slice(-20_000)}`);
      const down = await this.npmScript("scripts/dev/down.ts", ["--purge"]);
      if (down.code !== 0) console.error(`${this.name} is not taken down in order:\n${down.stdout}${down.stderr}`);
      try {
        await must("ip", ["netns", "del", this.name]);
      } finally {
        rmSync(this.folder, { recursive: true, force: true });
      }
    }
  }

  /** Flags of every mote that runs here and has no other folders. */
  get folderFlags(): readonly string[] {
    return ["--data-dir", this.dataDir, "--run-dir", this.runDir];
  }

  /** A mote until `stop`, one at a time. */
  start(args: readonly string[], folders = this.folderFlags): void {
    const log = openSync(this.#programLogFile, "a");
    const all = [`--net=/run/netns/${this.name}`, "build/dist/mote", ...args, ...folders];
    this.#program = spawn("nsenter", all, { stdio: ["ignore", log, log] });
    closeSync(log);
  }

  /** Its exit code; null where a signal has ended it, now or before. One that does not end is killed, and that is a failure. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    const child = this.#program;
    this.#program = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return child?.exitCode ?? null;
    let isLate = false;
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    child.kill(signal);
    const timer = setTimeout(() => {
      isLate = true;
      child.kill("SIGKILL");
    }, stopTimeoutMs);
    const code = await ended;
    clearTimeout(timer);
    if (isLate) throw new Error(`mote in ${this.name} did not end within ${stopTimeoutMs} ms of ${signal}`);
    return code;
  }

  /** What `start` began hears of it and is still what `stop` ends. */
  signal(name: NodeJS.Signals): void {
    this.#program?.kill(name);
  }

  /** Of what `start` began last; 0: nothing was. */
  get programPid(): number {
    return this.#program?.pid ?? 0;
  }

  /** All that motes begun with `start` have said. */
  programLog(): string {
    return existsSync(this.#programLogFile) ? readFileSync(this.#programLogFile, "utf8") : "";
  }

  get #programLogFile(): string {
    return join(this.folder, "program.log");
  }

  /** Runs a program in this host's network. `ip netns exec` would hide the cgroup mounts. */
  exec(program: string, args: readonly string[], options: ExecOptions = {}): Promise<Output> {
    return capture("nsenter", [`--net=/run/netns/${this.name}`, program, ...args], options);
  }

  /** `npm run up` and `down` without npm's banner. */
  npmScript(file: string, args: readonly string[]): Promise<Output> {
    const flags = ["--data-dir", this.dataDir, "--run-dir", this.runDir, "--kubeconfig", this.kubeconfig];
    return this.exec("node", ["scripts/run.mjs", file, ...flags, ...args], { timeoutMs: 280_000 });
  }

  async up(): Promise<Output> {
    const output = await this.npmScript("scripts/dev/up.ts", []);
    if (output.code !== 0) throw new Error(`up failed:\n${output.stdout}\n${output.stderr}`);
    return output;
  }

  kubectlRaw(args: readonly string[], options: ExecOptions = {}): Promise<Output> {
    return this.exec(this.#kubectl, ["--kubeconfig", this.kubeconfig, ...args], options);
  }

  /** kubectl that must succeed: its stdout. */
  async kubectl(args: string | readonly string[], options: ExecOptions = {}): Promise<string> {
    const list = typeof args === "string" ? args.split(" ") : args;
    const output = await this.kubectlRaw(list, options);
    if (output.code !== 0)
      throw new Error(`kubectl ${list.join(" ")}: exit ${output.code}\n${output.stdout}${output.stderr}`);
    return output.stdout;
  }

  serverPid(): number {
    return Number(readFileSync(join(this.runDir, "mote.pid"), "utf8"));
  }

  log(): string {
    const path = join(this.dataDir, "mote.log");
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }
}

/** A wire from `from` to `to`, which both have as a port of their bridge: under `name` and as `wire`. */
export async function connectHosts(from: Host, to: Host, name = "wire"): Promise<void> {
  const line = ["link", "add", name, "type", "veth", "peer", "name", "wire", "netns", to.name];
  await must("ip", ["-n", from.name, ...line]);
  await must("ip", ["-n", from.name, "link", "set", name, "master", "eth0", "up"]);
  await must("ip", ["-n", to.name, "link", "set", "wire", "master", "eth0", "up"]);
}

/**
 * In the order in which they stop: who asks another goes first, as it has nobody to wait for. Each, whatever befalls others; one
 * after the other, because /var/lib/kubelet is the same for all and unmounted by each.
 */
export async function closeHosts(...hosts: readonly Host[]): Promise<void> {
  const results: PromiseSettledResult<unknown>[] = [];
  for (const host of hosts) results.push(...(await Promise.allSettled([host.stop()])));
  for (const host of hosts) results.push(...(await Promise.allSettled([host.close()])));
  const failures = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
  if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join("\n"));
}

/** Waits are for a machine that does little else; it may be much slower when others keep it busy. */
const patience = 3;

/** Waits until `check` answers something true; rejects with the last answer or error when `usualMs` have passed thrice. */
export async function eventually<T>(
  what: string,
  usualMs: number,
  check: () => Promise<T | undefined | false>,
): Promise<T> {
  const timeoutMs = usualMs * patience;
  const startedMs = performance.now();
  let last: unknown;
  for (;;) {
    try {
      const found = await check();
      if (found !== undefined && found !== false) return found;
      last = found;
    } catch (error) {
      last = error;
    }
    if (performance.now() - startedMs > timeoutMs)
      throw new Error(`${what}: not within ${timeoutMs} ms; last: ${String(last)}`);
    await sleep(200);
  }
}

async function must(program: string, args: readonly string[]): Promise<void> {
  const output = await capture(program, args, {});
  if (output.code !== 0) throw new Error(`${program} ${args.join(" ")}: ${output.stderr}`);
}

function capture(program: string, args: readonly string[], options: ExecOptions): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: { ...process.env, ...options.env } });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 240_000);
    child.stdout.on("data", (c: Buffer) => out.push(c));
    child.stderr.on("data", (c: Buffer) => err.push(c));
    child.stdin.on("error", () => {});
    child.stdin.end(options.input);
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? 137, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
    });
  });
}
