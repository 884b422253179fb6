// Servers that dial for each other: one step and never a circle, for servers alone, as much as they may, with errors that say who
// said it; and what becomes of streams when the server between dies.
import { afterEach, expect, test, vi } from "vitest";
import { AppError } from "#base/errors.ts";
import { dialBareWebSocket } from "#platform/raw-websocket.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { bridgeMs, connectPath } from "./client.ts";
import { formatHello, messageTypes, moteHeader } from "./messages.ts";
import { createRelay, type RelayOptions } from "./relay.ts";
import { type Host, reach, read, TunnelRig, testCodec, testDeps, testTls, until } from "./rig.fixture.ts";
import { peerHeaders, type TunnelServer } from "./server.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const rig = new TunnelRig();
afterEach(() => rig.close());
const peerToken = "secret";

/** `from` dials `to`, and dials for it. */
function relay(
  id: string,
  from: TunnelServer,
  to: { readonly port: number },
  more: Partial<Pick<RelayOptions, "ownNode">> = {},
): () => Promise<void> {
  return rig.run(
    createRelay(
      { id, peerToken, host: "127.0.0.1", port: to.port, tls: testTls, ...more },
      { ...testDeps, tunnels: from },
    ),
  );
}

const announcing = (tunnels: TunnelServer, ...names: readonly string[]): TunnelServer => ({
  ...tunnels,
  onNode(listener) {
    for (const name of names) listener(name, true);
    return () => {};
  },
});

async function mesh(...names: readonly string[]): Promise<readonly Host[]> {
  const hosts = await Promise.all(names.map(() => rig.host({ peerToken })));
  for (const [i, from] of hosts.entries()) {
    for (const to of hosts) if (to !== from) relay(names[i]!, from.tunnels, to.door);
  }
  return hosts;
}

test("in a mesh of three a node is one step away, and what is nowhere is nowhere at once", async () => {
  const [a, b, c] = (await mesh("a", "b", "c")) as [Host, Host, Host];
  const port = await rig.echo();
  rig.client(c.door.port, "n1");
  for (const { tunnels } of [a, b, c]) {
    const stream = await reach(() => tunnels.dial("n1", "tcp", `127.0.0.1:${port}`));
    stream.write("round");
    expect(await read(stream, 5)).toBe("round");
    expect(() => tunnels.dial("n2", "tcp", "127.0.0.1:1")).toThrow("failed to find Session for client n2");
  }
});

test("two that each believe that the other has a node do not send it round: the second says no, and who it is", async () => {
  const [a, b] = [await rig.host({ peerToken }), await rig.host({ peerToken })];
  relay("a", announcing(a.tunnels, "ghost"), b.door);
  relay("b", announcing(b.tunnels, "ghost"), a.door);
  for (const [host, other] of [
    [a, "b"],
    [b, "a"],
  ] as const) {
    const stream = await reach(() => host.tunnels.dial("ghost", "tcp", "127.0.0.1:10250"));
    await expect(read(stream, 1)).rejects.toThrow(
      `server ${other}: ghost::tcp/127.0.0.1:10250: failed to find Session for client ghost`,
    );
  }
});

test("a node that cannot dial says so by way of the server between, with both names", async () => {
  const [a, b] = [await rig.host({ peerToken }), await rig.host({ peerToken })];
  relay("b", b.tunnels, a.door);
  rig.client(b.door.port, "n1", { open: () => Promise.reject(new AppError("DIAL_FAILED", "dial tcp: refused")) });
  const stream = await reach(() => a.tunnels.dial("n1", "tcp", "127.0.0.1:1"));
  await expect(read(stream, 1)).rejects.toThrow(
    "server b: n1::tcp/127.0.0.1:1: n1: tcp/127.0.0.1:1: dial tcp: refused",
  );
});

test("names of all lengths that a node may have are reached", async () => {
  const name = `${"n".repeat(60)}.${"o".repeat(60)}.${"d".repeat(60)}.${"e".repeat(60)}.example`;
  const [a, b] = [await rig.host({ peerToken }), await rig.host({ peerToken })];
  relay("b", b.tunnels, a.door);
  const port = await rig.echo("long");
  rig.client(b.door.port, name);
  expect(await read(await reach(() => a.tunnels.dial(name, "tcp", `127.0.0.1:${port}`)), 4)).toBe("long");
});

async function asPeer(host: Host, headers: Readonly<Record<string, string>>) {
  const answer = await dialBareWebSocket(
    {
      ...{ host: "127.0.0.1", port: host.door.port, path: connectPath, tls: testTls() },
      headers: { ...headers, [moteHeader]: formatHello({ from: 0, pingMs: 60_000, deadMs: 60_000 }) },
      ...{ connectTimeoutMs: 60_000, timeoutMs: 60_000 },
    },
    AbortSignal.timeout(60_000),
  );
  answer.socket.on("error", () => {});
  answer.socket.resume();
  rig.later(() => answer.socket.destroy());
  return {
    send: (kind: number, text: string) =>
      void answer.socket.write(
        testCodec.encode([{ kind, connection: 0, payload: new TextEncoder().encode(text) }], true),
      ),
  };
}

test.each([
  ["no token", { [peerHeaders.id]: "x" }],
  ["another token", { [peerHeaders.id]: "x", [peerHeaders.token]: "Secret" }],
  ["a longer token", { [peerHeaders.id]: "x", [peerHeaders.token]: "secrets" }],
  ["no name", { [peerHeaders.token]: peerToken }],
  ["an empty name", { [peerHeaders.id]: "", [peerHeaders.token]: peerToken }],
  ["a name that is too long", { [peerHeaders.id]: "x".repeat(101), [peerHeaders.token]: peerToken }],
])("who comes with %s is no server", async (_, headers) => {
  const host = await rig.host({ peerToken });
  await expect(asPeer(host, headers as Readonly<Record<string, string>>)).rejects.toMatchObject({
    code: "WEBSOCKET_DIAL",
    details: { status: 401 },
  });
});

test("a server without a token takes nobody for a server", async () => {
  const host = await rig.host();
  const headers = { [peerHeaders.id]: "x", [peerHeaders.token]: "" };
  await expect(asPeer(host, headers)).rejects.toMatchObject({ details: { status: 401 } });
});

test("a node's word on whom it can reach counts for nothing; a server's does, up to a bound", async () => {
  const host = await rig.host({ peerToken });
  const node = await asPeer(host, { "x-test-node": "n1" });
  node.send(messageTypes.addClient, "victim/1");
  const peer = await asPeer(host, { [peerHeaders.id]: "x", [peerHeaders.token]: peerToken });
  for (let i = 0; i < 20_000; i++) peer.send(messageTypes.addClient, `node-${i}/1`);
  await reach(() => host.tunnels.dial("node-4999", "tcp", "127.0.0.1:1"));
  expect(() => host.tunnels.dial("node-5001", "tcp", "127.0.0.1:1")).toThrow("failed to find Session");
  expect(() => host.tunnels.dial("victim", "tcp", "127.0.0.1:1")).toThrow("failed to find Session");
  peer.send(messageTypes.removeClient, "node-0/1");
  await until(() => {
    try {
      host.tunnels.dial("node-0", "tcp", "127.0.0.1:1").destroy();
      return false;
    } catch {
      return true;
    }
  });
});

test("a server is no node: what is asked of it is for a node that it names, or nothing", async () => {
  const host = await rig.host({ peerToken });
  const [a, b] = [host, await rig.host({ peerToken })];
  relay("b", announcing(b.tunnels, "x"), a.door, {
    ownNode: {
      name: "own",
      mayDial: (_proto, address) => address === "127.0.0.1:10250",
      open: () => Promise.reject(new Error("somebody tried")),
    },
  });
  for (const [node, address, words] of [
    ["own", "127.0.0.1:10250", "somebody tried"],
    ["own", "127.0.0.1:6443", "connect not allowed"],
    ["x", "127.0.0.1:10250", "failed to find Session for client x"],
  ] as const) {
    const stream = await reach(() => a.tunnels.dial(node, "tcp", address));
    await expect(read(stream, 1)).rejects.toThrow(words);
  }
});

test("a server that dies while it relays: streams end when its time is up, with its name, and none hangs", async () => {
  const clock = new FakeClock();
  const [a, b] = [await rig.host({ peerToken, clock }), await rig.host({ peerToken })];
  const wire = await rig.wire(a.door.port);
  const port = await rig.echo();
  rig.client(b.door.port, "n1");
  relay("b", b.tunnels, wire);
  const stream = await reach(() => a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`));
  stream.write("x");
  expect(await read(stream, 1)).toBe("x");
  wire.refuse(true);
  wire.cut();
  await until(() => a.sockets() === 0);
  const late = a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  const ended = [stream, late].map((one) => expect(read(one, 1)).rejects.toThrow("server b: n1::tcp/127.0.0.1:"));
  await clock.advance(bridgeMs);
  await Promise.all(ended);
  expect(() => a.tunnels.dial("n1", "tcp", "127.0.0.1:1")).toThrow("failed to find Session for client n1");
});

test("a server that begins anew ends what it relayed before at once; one that says goodbye too", async () => {
  const [a, b] = [await rig.host({ peerToken }), await rig.host({ peerToken })];
  const wire = await rig.wire(a.door.port);
  const port = await rig.echo();
  rig.client(b.door.port, "n1");
  relay("b", b.tunnels, wire);
  const dial = () => a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  const first = await reach(dial);
  wire.refuse(true);
  wire.cut();
  // Another process of the same server.
  const again = relay("b", b.tunnels, a.door);
  await expect(read(first, 1)).rejects.toThrow("server b: n1::tcp/");
  const second = await reach(dial);
  second.write("x");
  expect(await read(second, 1)).toBe("x");
  await again();
  await expect(read(second, 1)).rejects.toThrow("the other end said goodbye");
});

test("a way that stands is taken before one that may come back", async () => {
  const [a, b] = [await rig.host({ peerToken }), await rig.host({ peerToken })];
  const wire = await rig.wire(a.door.port);
  const port = await rig.echo();
  rig.client(wire.port, "n1");
  rig.client(b.door.port, "n1");
  relay("b", b.tunnels, a.door);
  await until(() => a.sockets() === 2 && b.sockets() === 1);
  wire.refuse(true);
  wire.cut();
  await until(() => a.sockets() === 1);
  // The other server may still be telling of it.
  await until(() => {
    const stream = a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
    rig.later(() => stream.destroy());
    return "target" in stream && String(stream.target).startsWith("n1::");
  });
  const stream = a.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  stream.write("by way of b");
  expect(await read(stream, 11)).toBe("by way of b");
});
