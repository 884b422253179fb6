// What tests of tunnels stand on: the door of a server, over TLS as the shipped one has it, that believes everybody the name in
// a header; a wire before it that can be cut, refused and frozen; nodes behind it; and what nodes dial. One `close` ends all.
import * as net from "node:net";
import type { Duplex } from "node:stream";
import type { Clock, Random } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { systemClock } from "#platform/clock.ts";
import { openTcp } from "#platform/dial.ts";
import { type HttpsServer, openHttpsServer, type ServerUpgrade } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { createTunnelClient, type TunnelClient, type TunnelClientDeps, type TunnelClientOptions } from "./client.ts";
import { loadCodec } from "./codec.ts";
import { createTunnelServer, type TunnelServer } from "./server.ts";

export const nodeHeader = "x-test-node";
export const testCodec = loadCodec((size) => systemRandom.bytes(size));
export const testDeps = { clock: systemClock, random: systemRandom, log: silentLogger, codec: testCodec } as const;
export const testTls = () => ({ ca: localhostTls.certificatePem });

/** Whoever takes what comes in; may be another one later: a server that has started again. */
export interface Doorkeeper {
  acceptPeer(upgrade: ServerUpgrade): boolean;
  acceptNode(upgrade: ServerUpgrade, node: string): void;
}

export interface Host {
  readonly tunnels: TunnelServer;
  readonly door: HttpsServer;
  /** Connections of tunnels that the server has and has not lost. */
  sockets(): number;
  /** All that there were. */
  connections(): number;
  /** The process ends without a word, and another begins that knows nothing; the wire is to be cut by whoever plays this. */
  restart(): TunnelServer;
}

/** Between a client and a server. */
export interface Wire {
  readonly port: number;
  /** Bytes that came from the client, and for it. */
  readonly counts: { up: number; down: number };
  /** `near`: the server does not notice; `far`: the client does not. What is under way is lost. */
  cut(where?: "both" | "near" | "far"): void;
  /** New connections end at once. */
  refuse(isRefusing: boolean): void;
  /** Nothing comes through, and nobody is told; it comes later. */
  freeze(isFrozen: boolean): void;
}

export interface ClientSettings
  extends Partial<Pick<TunnelClientDeps, "mayDial" | "open" | "dial" | "clock" | "random">> {
  readonly options?: Partial<TunnelClientOptions>;
}

export class TunnelRig {
  readonly #ends: (() => unknown)[] = [];

  /** In the opposite order of what was opened. */
  async close(): Promise<void> {
    for (const end of this.#ends.splice(0).reverse()) await end();
  }

  later(end: () => unknown): void {
    this.#ends.push(end);
  }

  /** `unnamed`: who says no name is taken for this one. */
  async door(keeper: Doorkeeper, unnamed?: string): Promise<HttpsServer> {
    const door = await openHttpsServer(
      { host: "127.0.0.1", port: 0, tls: localhostTls, log: silentLogger },
      {
        async request(_request, response) {
          response.head(404, {});
          response.end();
        },
        async upgrade(upgrade) {
          if (keeper.acceptPeer(upgrade)) return;
          const node = upgrade.request.headers[nodeHeader] ?? unnamed;
          if (typeof node === "string") keeper.acceptNode(upgrade, node);
          else upgrade.socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        },
      },
    );
    this.later(() => door.close(0));
    return door;
  }

  async host(options: { readonly peerToken?: string; readonly clock?: Clock } = {}): Promise<Host> {
    const { peerToken, clock = systemClock } = options;
    const begin = (): TunnelServer => {
      const one = createTunnelServer(peerToken === undefined ? {} : { peerToken }, {
        ...{ ...testDeps, clock, metrics: new Metrics(), codec: () => testCodec },
      });
      this.later(() => one.close());
      return one;
    };
    let tunnels = begin();
    let sockets = 0;
    let connections = 0;
    const counted = ({ socket }: ServerUpgrade): true => {
      sockets++;
      connections++;
      socket.once("close", () => sockets--);
      return true;
    };
    const door = await this.door({
      acceptPeer: (upgrade) => tunnels.acceptPeer(upgrade) && counted(upgrade),
      acceptNode(upgrade, node) {
        tunnels.accept(upgrade, node);
        counted(upgrade);
      },
    });
    return {
      tunnels,
      door,
      sockets: () => sockets,
      connections: () => connections,
      restart() {
        tunnels = begin();
        return tunnels;
      },
    };
  }

  async wire(port: number, random?: Random): Promise<Wire> {
    const links = new Set<readonly [net.Socket, net.Socket]>();
    const counts = { up: 0, down: 0 };
    let isRefusing = false;
    let isFrozen = false;
    const server = net.createServer((near) => {
      near.on("error", () => {});
      if (isRefusing) {
        near.destroy();
        return;
      }
      const far = net.connect({ port, host: "127.0.0.1", noDelay: true });
      const link = [near, far] as const;
      links.add(link);
      near.setNoDelay(true);
      const join = (from: net.Socket, to: net.Socket, count: "up" | "down") => {
        from.on("error", () => {});
        from.on("data", (chunk: Buffer) => {
          counts[count] += chunk.length;
          let isFull = false;
          for (const part of pieces(chunk, random)) isFull = !to.write(part);
          if (isFull) from.pause();
        });
        to.on("drain", () => {
          if (!isFrozen) from.resume();
        });
        from.on("close", () => {
          // Deaf, it stays as it is until somebody closes it.
          if (links.has(link)) to.destroy();
          links.delete(link);
        });
      };
      join(near, far, "up");
      join(far, near, "down");
      this.later(() => {
        near.destroy();
        far.destroy();
      });
      if (isFrozen) for (const socket of link) socket.pause();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.later(() => void server.close());
    return {
      port: (server.address() as net.AddressInfo).port,
      counts,
      cut(where = "both") {
        for (const link of links) {
          const [near, far] = link;
          links.delete(link);
          for (const socket of link) socket.pause().removeAllListeners("data");
          if (where !== "far") near.destroy();
          if (where !== "near") far.destroy();
        }
      },
      refuse(is) {
        isRefusing = is;
      },
      freeze(is) {
        isFrozen = is;
        for (const link of links) for (const socket of link) is ? socket.pause() : socket.resume();
      },
    };
  }

  /** Runs until the rig is closed, or until the returned function is called. */
  run(service: Service): () => Promise<void> {
    const stop = new AbortController();
    const running = service.run(stop.signal, () => {});
    const end = async () => {
      stop.abort(new Error("stopped"));
      await running;
    };
    this.later(end);
    return end;
  }

  client(port: number, node: string, settings: ClientSettings = {}): TunnelClient & { stop(): Promise<void> } {
    const { options, ...deps } = settings;
    const client = createTunnelClient(
      { host: "127.0.0.1", port, tls: testTls, headers: { [nodeHeader]: node }, ...options },
      {
        ...testDeps,
        mayDial: () => true,
        open(_proto, address, signal) {
          const [host = "", to] = address.split(":");
          return openTcp({ host, port: Number(to), timeoutMs: 30_000 }, signal);
        },
        ...deps,
      },
    );
    return Object.assign(Object.create(client) as TunnelClient, { stop: this.run(client) });
  }

  /** Something that a node dials. */
  async listen(serve: (socket: net.Socket) => void, host = "127.0.0.1"): Promise<number> {
    const server = net.createServer((socket) => {
      socket.on("error", () => {});
      this.later(() => socket.destroy());
      serve(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, host, resolve));
    this.later(() => void server.close());
    return (server.address() as net.AddressInfo).port;
  }

  /** Answers each connection with `hello` and then with what comes. */
  echo(hello = ""): Promise<number> {
    return this.listen((socket) => {
      if (hello !== "") socket.write(hello);
      socket.pipe(socket);
    });
  }
}

function* pieces(chunk: Buffer, random: Random | undefined): Generator<Buffer> {
  if (!random) {
    yield chunk;
    return;
  }
  for (let at = 0; at < chunk.length; ) {
    const size = 1 + Math.floor(random.float() ** 2 * chunk.length);
    yield chunk.subarray(at, at + size);
    at += size;
  }
}

export async function until(what: () => boolean, timeoutMs = 60_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!what()) {
    if (performance.now() > endMs) throw new Error("it did not come to pass");
    await systemClock.sleep(5);
  }
}

/** At least so many bytes, as text. */
export async function read(stream: Duplex, size: number): Promise<string> {
  let text = "";
  for (;;) {
    const part = stream.read() as Buffer | null;
    if (part) text += part.toString("latin1");
    if (text.length >= size) return text;
    if (stream.destroyed) throw stream.errored ?? new Error("ended");
    await systemClock.sleep(2);
  }
}

/** As soon as there is a way. */
export async function reach(dial: () => Duplex | undefined): Promise<Duplex> {
  let found: Duplex | undefined;
  await until(() => {
    try {
      found = dial();
    } catch {
      return false;
    }
    return found !== undefined;
  });
  return found!;
}
