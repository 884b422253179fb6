// A host of its own for a test: a network namespace with an address and a default route, folders of its own, and the
// README's commands run inside it. What runs here does not meet a cluster that the developer has up.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
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

export class Host {
  readonly name: string;
  readonly folder: string;
  readonly address: string;
  readonly kubeconfig: string;
  readonly dataDir: string;
  readonly runDir: string;
  #kubectl = "";

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

  async close(): Promise<void> {
    await this.npmScript("scripts/dev/down.ts", ["--purge"]);
    await must("ip", ["netns", "del", this.name]);
    rmSync(this.folder, { recursive: true, force: true });
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

/** Waits until `check` answers something true; rejects with the last answer or error after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  timeoutMs: number,
  check: () => Promise<T | undefined | false>,
): Promise<T> {
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
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 90_000);
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
