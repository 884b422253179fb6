// `mote server` without a node, as a process, and its API with the admin's certificate.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parse } from "yaml";
import { moteProgram } from "./mote-program.ts";
import { freePort } from "./peers.ts";

export interface ApiAnswer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

export class MoteServer {
  readonly folder = mkdtempSync(join(tmpdir(), "mote-server-"));
  readonly #port: number;
  readonly #flags: readonly string[];
  #child: ChildProcess | undefined;
  log = "";

  readonly #program: string;

  static async create(flags: readonly string[]): Promise<MoteServer> {
    return new MoteServer(await moteProgram(), await freePort(), flags);
  }

  private constructor(program: string, port: number, flags: readonly string[]) {
    this.#program = program;
    this.#port = port;
    this.#flags = flags;
    writeFileSync(`${this.folder}/none.yaml`, "");
  }

  start(): void {
    this.#child = spawn(
      process.execPath,
      [
        ...[this.#program, "server", "--config", `${this.folder}/none.yaml`],
        ...["--data-dir", `${this.folder}/data`, "--run-dir", `${this.folder}/run`, "--node-ip", "192.0.2.1"],
        ...["--disable-agent", "--bind-address", "127.0.0.1", "--https-listen-port", String(this.#port)],
        ...["--write-kubeconfig", `${this.folder}/kubeconfig`, ...this.#flags],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    this.#child.stderr!.on("data", (chunk: Buffer) => {
      this.log += chunk.toString();
    });
  }

  async said(text: string, timeoutMs = 40_000): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    while (!this.log.includes(text)) {
      if (performance.now() > endMs || this.#child?.exitCode != null)
        throw new Error(`never said "${text}":\n${this.log}`);
      await sleep(20);
    }
  }

  async end(): Promise<number | null> {
    const child = this.#child;
    if (!child || child.exitCode !== null) return child?.exitCode ?? null;
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    return ended;
  }

  async close(): Promise<void> {
    await this.end();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async api(method: string, path: string, body?: object): Promise<ApiAnswer> {
    const answer = await this.open(method, path, body);
    let text = "";
    for await (const chunk of answer) text += String(chunk);
    return { status: answer.statusCode ?? 0, body: JSON.parse(text) as ApiAnswer["body"] };
  }

  open(method: string, path: string, body?: object): Promise<IncomingMessage> {
    const config = parse(readFileSync(`${this.folder}/kubeconfig`, "utf8")) as Kubeconfig;
    const { user } = config.users[0]!;
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          ...{ host: "127.0.0.1", port: this.#port, agent: false, method, path },
          headers: { "content-type": "application/json" },
          ca: Buffer.from(config.clusters[0]!.cluster["certificate-authority-data"], "base64"),
          cert: Buffer.from(user["client-certificate-data"], "base64"),
          key: Buffer.from(user["client-key-data"], "base64"),
        },
        resolve,
      );
      sent.on("error", reject);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}

interface Kubeconfig {
  readonly clusters: readonly { readonly cluster: { readonly "certificate-authority-data": string } }[];
  readonly users: readonly {
    readonly user: { readonly "client-certificate-data": string; readonly "client-key-data": string };
  }[];
}
