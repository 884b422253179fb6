// What the etcd tests talk to: Debian's etcd in a folder of its own, mote's own face over a store, and a raw client that
// sees every field of an answer.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "#base/log.ts";
import { etcdClientPins, etcdServerPins, type Pin } from "#build.config.ts";
import { createEtcdListener, type EtcdListenerOptions } from "#datastore/etcd-face.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock } from "#platform/clock.ts";
import { createGrpcClient, type GrpcClient } from "#platform/grpc-client.ts";
import { unpackDebianPackage } from "#scripts/debian.ts";
import { quickFolder } from "#test/harness/quick-folder.ts";
import { type EtcdMethods, etcdMethods, etcdTable } from "#wire/gen/etcd.ts";
import { isGrpcError } from "#wire/grpc.ts";
import { createWireCodec, type WireInput } from "#wire/protobuf.ts";

export const codec = createWireCodec(etcdTable);

async function unpack(pins: readonly Pin[]): Promise<string> {
  const pin = pins.find((p) => p.arch === { x64: "amd64", arm64: "arm64", arm: "armhf" }[process.arch as string]);
  if (!pin) throw new Error(`no etcd for ${process.arch}`);
  return unpackDebianPackage(pin);
}

/** The path of etcdctl, or undefined where packages cannot be fetched; with CI=true that is a failure. */
export async function etcdctlPath(): Promise<string | undefined> {
  return orSkip(async () => join(await unpack(etcdClientPins), "usr/bin/etcdctl"));
}

export async function etcdPath(): Promise<string | undefined> {
  return orSkip(async () => join(await unpack(etcdServerPins), "usr/bin/etcd"));
}

async function orSkip(find: () => Promise<string>): Promise<string | undefined> {
  try {
    return await find();
  } catch (error) {
    if (process.env["CI"] === "true") throw error;
    return undefined;
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

export interface Peer {
  readonly address: string;
  readonly client: EtcdClient;
  close(): Promise<void>;
}

export interface EtcdOptions {
  /** As in production; without it etcd is fast enough to be compared with in bulk. */
  readonly fsync?: boolean;
  /** Further flags of etcd. */
  readonly flags?: readonly string[];
}

export async function startEtcd(path: string, options: EtcdOptions = {}): Promise<Peer> {
  const folder = await mkdtemp(join(tmpdir(), "mote-etcd-"));
  const [clientPort, peerPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${clientPort}`;
  const child: ChildProcess = spawn(
    path,
    [
      ...["--data-dir", join(folder, "data"), "--listen-client-urls", url, "--advertise-client-urls", url],
      ...["--listen-peer-urls", `http://127.0.0.1:${peerPort}`, "--log-level", "error"],
      ...["--initial-advertise-peer-urls", `http://127.0.0.1:${peerPort}`],
      ...["--initial-cluster", `default=http://127.0.0.1:${peerPort}`],
      ...["--quota-backend-bytes", String(2 ** 31)],
      ...(options.fsync ? [] : ["--unsafe-no-fsync"]),
      ...(options.flags ?? []),
    ],
    { stdio: "ignore" },
  );
  const client = new EtcdClient(createGrpcClient({ target: { host: "127.0.0.1", port: clientPort } }));
  const close = async () => {
    client.close();
    const ended = new Promise((resolve) => child.once("exit", resolve));
    if (child.exitCode === null && child.kill("SIGKILL")) await ended;
    await rm(folder, { recursive: true, force: true });
  };
  for (let tries = 0; ; tries++) {
    const answer = await client.call("Maintenance/Status", {});
    if ("ok" in answer && Number((answer.ok as { leader: unknown }).leader) !== 0) break;
    if (tries > 200) {
      await close();
      throw new Error(`etcd does not answer: ${JSON.stringify(answer)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { address: url, client, close };
}

/** The face in this process, over a store on disk or in memory. */
export async function startMote(
  options: Partial<EtcdListenerOptions> = {},
  endpoint: "memory" | "sqlite" = "sqlite",
): Promise<Peer & { readonly folder: string }> {
  const folder = await quickFolder("mote-kine-");
  const backend = await openDatastore(
    { endpoint: endpoint === "memory" ? "memory://" : `sqlite://${folder}/state.db` },
    { clock: systemClock, log: silentLogger },
  );
  const stop = new AbortController();
  let address = "";
  let done: Promise<void> = Promise.resolve();
  await new Promise<void>((resolve, reject) => {
    const service = createEtcdListener(
      { listen: { host: "127.0.0.1", port: 0 }, ...options },
      { backend, clock: systemClock, log: silentLogger },
      (text) => {
        address = text;
      },
    );
    done = service.run(stop.signal, resolve);
    done.catch(reject);
  });
  const port = Number(address.split(":").at(-1));
  const target = address.startsWith("unix://") ? { socketPath: address.slice(7) } : { host: "127.0.0.1", port };
  const client = new EtcdClient(createGrpcClient({ target }));
  return {
    address: address.startsWith("unix://") ? address : `http://${address}`,
    client,
    folder,
    async close() {
      client.close();
      stop.abort();
      await done;
      await backend.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export type Answer<T = object> = { readonly ok: T } | { readonly code: string; readonly message: string };

export class EtcdClient {
  readonly grpc: GrpcClient;

  constructor(grpc: GrpcClient) {
    this.grpc = grpc;
  }

  async call<K extends keyof EtcdMethods>(
    method: K,
    request: WireInput<EtcdMethods[K]["request"]>,
  ): Promise<Answer<EtcdMethods[K]["response"]>> {
    const { path, request: type, response } = etcdMethods[method];
    try {
      const message = await this.grpc.unary(path, codec.encode(type, request as object), { timeoutMs: 10_000 });
      return { ok: codec.decode(response, message) };
    } catch (error) {
      if (isGrpcError(error)) return { code: error.code, message: error.message };
      throw error;
    }
  }

  close(): void {
    this.grpc.close();
  }
}
