// Debian's etcd as processes that can be killed, stopped and started again on their data: one member or several.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./peers.ts";

export interface EtcdFiles {
  readonly certificate: string;
  readonly key: string;
  readonly authority: string;
}

export class EtcdMember {
  readonly url: string;
  readonly #path: string;
  readonly #args: readonly string[];
  readonly #dataDir: string;
  #child: ChildProcess | undefined;

  constructor(path: string, url: string, dataDir: string, args: readonly string[]) {
    this.#path = path;
    this.url = url;
    this.#dataDir = dataDir;
    this.#args = args;
  }

  /** While it does not run. */
  wipe(): void {
    rmSync(this.#dataDir, { recursive: true, force: true });
  }

  start(): void {
    this.#child = spawn(this.#path, this.#args, { stdio: "ignore" });
  }

  /** SIGKILL by default; resolves when it is gone. SIGSTOP and SIGCONT do not end it. */
  async signal(name: "SIGKILL" | "SIGTERM" | "SIGSTOP" | "SIGCONT" = "SIGKILL"): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(name);
    if (name === "SIGKILL" || name === "SIGTERM") await ended;
  }
}

export interface EtcdCluster {
  readonly members: readonly EtcdMember[];
  /** For --datastore-endpoint. */
  readonly endpoint: string;
  close(): Promise<void>;
}

export interface EtcdClusterOptions {
  readonly tls?: EtcdFiles;
  readonly flags?: readonly string[];
  /** The command that etcd is an argument of: `nsenter --net=…`. */
  readonly within?: readonly string[];
  /** Where clients reach it; default 127.0.0.1. */
  readonly host?: string;
}

/** Not started yet. Data are flushed, as in production. */
export async function createEtcdCluster(
  path: string,
  size: number,
  options: EtcdClusterOptions = {},
): Promise<EtcdCluster> {
  const folder = mkdtempSync(join(tmpdir(), "mote-etcd-"));
  const scheme = options.tls ? "https" : "http";
  const ports: { client: number; peer: number }[] = [];
  for (let i = 0; i < size; i++) ports.push({ client: await freePort(), peer: await freePort() });
  const peerUrl = (i: number) => `http://127.0.0.1:${ports[i]!.peer}`;
  const initial = ports.map((_, i) => `m${i}=${peerUrl(i)}`).join(",");
  const tls = options.tls
    ? [
        ...["--cert-file", options.tls.certificate, "--key-file", options.tls.key],
        ...["--trusted-ca-file", options.tls.authority, "--client-cert-auth"],
      ]
    : [];
  const members = ports.map(({ client }, i) => {
    const url = `${scheme}://${options.host ?? "127.0.0.1"}:${client}`;
    const [program, ...before] = [...(options.within ?? []), path];
    return new EtcdMember(program!, url, join(folder, String(i)), [
      ...before,
      ...["--name", `m${i}`, "--data-dir", join(folder, String(i)), "--log-level", "error"],
      ...["--listen-client-urls", url, "--advertise-client-urls", url],
      ...["--listen-peer-urls", peerUrl(i), "--initial-advertise-peer-urls", peerUrl(i)],
      ...["--initial-cluster", initial, "--initial-cluster-state", "new"],
      ...tls,
      ...(options.flags ?? []),
    ]);
  });
  return {
    members,
    endpoint: members.map(({ url }) => url).join(","),
    async close() {
      for (const member of members) await member.signal("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
