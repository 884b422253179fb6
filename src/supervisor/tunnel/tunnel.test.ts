// A server and its clients over real TLS: handshake, dialing, refusals, cuts, relays, and the pauses between attempts.

import * as net from "node:net";
import type { Duplex } from "node:stream";
import { afterEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { systemClock } from "#platform/clock.ts";
import { openTcp } from "#platform/dial.ts";
import { type HttpsServer, openHttpsServer } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createTunnelClient, type DialPolicy, pauseBefore } from "./client.ts";
import { loadCodec } from "./codec.ts";
import { createRelay } from "./relay.ts";
import { createTunnelServer, type TunnelServer } from "./server.ts";

const codec = loadCodec((size) => systemRandom.bytes(size));
const deps = { clock: systemClock, random: systemRandom, log: silentLogger, codec };
const ends: (() => void | Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface Host {
  readonly tunnels: TunnelServer;
  readonly door: HttpsServer;
}

/** A server whose door believes everybody the name in a header. */
async function host(peerToken?: string): Promise<Host> {
  const tunnels = createTunnelServer(peerToken === undefined ? {} : { peerToken }, {
    ...deps,
    metrics: new Metrics(),
    codec: () => codec,
  });
  const door = await openHttpsServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, log: silentLogger },
    {
      async request(_request, response) {
        response.head(404, {});
        response.end();
      },
      async upgrade(upgrade) {
        if (tunnels.acceptPeer(upgrade)) return;
        const node = upgrade.request.headers["x-test-node"];
        if (typeof node === "string") tunnels.accept(upgrade, node);
        else upgrade.socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
      },
    },
  );
  ends.push(() => door.close(0));
  ends.push(() => tunnels.close());
  return { tunnels, door };
}

/** Between a client and a server; what runs through it can be cut. */
async function wire(port: number): Promise<{ port: number; cut(): void; refuse(isRefusing: boolean): void }> {
  const sockets = new Set<net.Socket>();
  let isRefusing = false;
  const server = net.createServer((socket) => {
    if (isRefusing) {
      socket.destroy();
      return;
    }
    const to = net.connect(port, "127.0.0.1");
    for (const one of [socket, to]) {
      sockets.add(one);
      one.on("error", () => {});
      one.on("close", () => {
        sockets.delete(one);
        socket.destroy();
        to.destroy();
      });
    }
    socket.pipe(to).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => void server.close());
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  ends.push(cut);
  return {
    port: (server.address() as net.AddressInfo).port,
    cut,
    refuse(is) {
      isRefusing = is;
    },
  };
}

function client(port: number, node: string, mayDial: DialPolicy = () => true): { stop(): Promise<void> } {
  const stop = new AbortController();
  const service = createTunnelClient(
    { host: "127.0.0.1", port, tls: () => ({ ca: localhostTls.certificatePem }), headers: { "x-test-node": node } },
    {
      ...deps,
      mayDial,
      open(_proto, address, signal) {
        const [name = "", to] = address.split(":");
        return openTcp({ host: name, port: Number(to), timeoutMs: 1000 }, signal);
      },
    },
  );
  const running = service.run(stop.signal, () => {});
  const end = async () => {
    stop.abort(new Error("stopped"));
    await running;
  };
  ends.push(end);
  return { stop: end };
}

/** Answers each connection with `hello` and then with what comes. */
async function echo(hello = ""): Promise<number> {
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    if (hello !== "") socket.write(hello);
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => void server.close());
  return (server.address() as net.AddressInfo).port;
}

async function until(what: () => boolean, timeoutMs = 10_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!what()) {
    if (performance.now() > endMs) throw new Error("it did not come to pass");
    await systemClock.sleep(5);
  }
}

async function read(stream: Duplex, size: number): Promise<string> {
  let text = "";
  for (;;) {
    const part = stream.read() as Buffer | null;
    if (part) text += part.toString("latin1");
    if (text.length >= size) return text;
    if (stream.destroyed) throw stream.errored ?? new Error("ended");
    await systemClock.sleep(2);
  }
}

test("a node is dialed through its tunnel; who is not there, is not", async () => {
  const { tunnels, door } = await host();
  const port = await echo("hello ");
  expect(() => tunnels.dial("n1", "tcp", "127.0.0.1:1")).toThrow("failed to find Session for client n1");
  const one = client(door.port, "n1");
  await until(() => tunnels.has("n1"));
  const stream = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  stream.write("world");
  expect(await read(stream, 11)).toBe("hello world");
  const closed = tunnels.dial("n1", "tcp", "127.0.0.1:1");
  await expect(read(closed, 1)).rejects.toThrow("connect ECONNREFUSED");
  await one.stop();
  await until(() => !tunnels.has("n1"));
  expect(stream.destroyed).toBe(true);
});

test("a node refuses what it does not let anybody dial, and keeps its tunnel", async () => {
  const { tunnels, door } = await host();
  const port = await echo("x");
  client(door.port, "n1", (_proto, address) => address === `127.0.0.1:${port}`);
  await until(() => tunnels.has("n1"));
  await expect(read(tunnels.dial("n1", "tcp", "10.0.0.1:22"), 1)).rejects.toThrow("connect not allowed");
  expect(await read(tunnels.dial("n1", "tcp", `127.0.0.1:${port}`), 1)).toBe("x");
});

test("a stream goes on after its connection was cut, with every byte once", async () => {
  const { tunnels, door } = await host();
  const port = await echo();
  const between = await wire(door.port);
  client(between.port, "n1");
  await until(() => tunnels.has("n1"));
  const stream = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  const sent = Buffer.from(seededRandom(1).bytes(3_000_000));
  const parts: Buffer[] = [];
  let have = 0;
  stream.on("data", (part: Buffer) => {
    parts.push(part);
    have += part.length;
  });
  stream.write(sent);
  for (let i = 1; i <= 4; i++) {
    await until(() => have > (i * sent.length) / 6);
    between.refuse(true);
    between.cut();
    await systemClock.sleep(120);
    between.refuse(false);
  }
  await until(() => have >= sent.length, 15_000);
  expect(Buffer.concat(parts).equals(sent)).toBe(true);
});

test("another node cannot take a session over, whatever it says it is called", async () => {
  const { tunnels, door } = await host();
  const names = new Set<string>();
  tunnels.onNode((node, isThere) => void (isThere ? names.add(node) : names.delete(node)));
  client(door.port, "n1");
  client(door.port, "n2");
  await until(() => names.size === 2);
  expect([...names].sort()).toEqual(["n1", "n2"]);
});

test("a node that begins anew is reached at once, and nothing hangs in what it has forgotten", async () => {
  const { tunnels, door } = await host();
  const port = await echo();
  const way = await wire(door.port);
  client(way.port, "n1");
  await until(() => tunnels.has("n1"));
  // The process is gone without a word: its tunnel waits for it.
  way.refuse(true);
  way.cut();
  const hanging = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  const ended = expect(read(hanging, 1)).rejects.toThrow("the other end began anew");
  client(door.port, "n1");
  await ended;
  const stream = tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  stream.write("here");
  expect(await read(stream, 4)).toBe("here");
});

test("servers relay: a node is reached through the server that holds its tunnel", async () => {
  const [a, b] = [await host("secret"), await host("secret")];
  const port = await echo("hi");
  const stop = new AbortController();
  const relay = (to: Host, from: Host, token: string) => {
    const options = {
      id: "b",
      peerToken: token,
      host: "127.0.0.1",
      port: to.door.port,
      tls: () => ({ ca: localhostTls.certificatePem }),
    };
    const running = createRelay(options, { ...deps, tunnels: from.tunnels }).run(stop.signal, () => {});
    ends.push(() => running);
    ends.push(() => stop.abort(new Error("stopped")));
  };
  client(b.door.port, "n1");
  await until(() => b.tunnels.has("n1"));
  relay(a, b, "wrong");
  await systemClock.sleep(100);
  expect(() => a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`)).toThrow("failed to find Session");
  relay(a, b, "secret");
  let stream: Duplex | undefined;
  await until(() => {
    try {
      stream = a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
      return true;
    } catch {
      return false;
    }
  });
  expect(await read(stream!, 2)).toBe("hi");
  // Not by way of a third.
  expect(() => a.tunnels.dialLocal("n1", "tcp", "127.0.0.1:1")).toThrow("failed to find Session");
  // A node that comes later is told of.
  client(b.door.port, "n2");
  await until(() => {
    try {
      a.tunnels.dial("n2", "tcp", "127.0.0.1:1").destroy();
      return true;
    } catch {
      return false;
    }
  });
});

test("pauses grow, are never none, and no two nodes keep step", () => {
  const random = seededRandom(5);
  for (const [why, least, most] of [
    ["waiting", 50, 500],
    ["absent", 125, 1000],
    ["refused", 250, 15_000],
  ] as const) {
    const list = Array.from({ length: 12 }, (_, attempt) => pauseBefore(attempt, why, random));
    expect(Math.min(...list)).toBeGreaterThanOrEqual(least);
    expect(Math.max(...list)).toBeLessThanOrEqual(most);
    expect(list[11]).toBeGreaterThanOrEqual(most / 2);
  }
  const spread = Array.from({ length: 200 }, () => pauseBefore(8, "refused", random));
  expect(Math.max(...spread) - Math.min(...spread)).toBeGreaterThan(6000);
});
