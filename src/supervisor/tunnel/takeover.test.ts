// Whoever says which session is meant, and from which byte on: sessions that are stolen, forgotten, replayed, asked for with wrong
// numbers or too late, and servers that have started again meanwhile. A stream is either carried on in full or ends with a
// reason; none hangs, and none goes to somebody else.
import { afterEach, expect, test, vi } from "vitest";
import { systemClock } from "#platform/clock.ts";
import { type BareWebSocketAnswer, dialBareWebSocket } from "#platform/raw-websocket.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { bridgeMs, connectPath } from "./client.ts";
import type { Piece } from "./codec.ts";
import { encodeNumber, formatHello, messageTypes, moteHeader, parseHello } from "./messages.ts";
import { type Host, nodeHeader, read, TunnelRig, testCodec, until } from "./rig.fixture.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const rig = new TunnelRig();
afterEach(() => rig.close());

/** A node that says what it likes. */
class Impostor {
  readonly pieces: Piece[] = [];
  readonly answer: BareWebSocketAnswer;
  readonly #decoder = testCodec.decoder(false);

  constructor(answer: BareWebSocketAnswer) {
    this.answer = answer;
    answer.socket.on("error", () => {});
    answer.socket.on("data", (chunk: Buffer) => this.pieces.push(...this.#decoder.push(chunk)));
    if (answer.head.length > 0) this.pieces.push(...this.#decoder.push(answer.head));
    rig.later(() => answer.socket.destroy());
  }

  get hello() {
    return parseHello(this.answer.headers[moteHeader])!;
  }
  get token(): string {
    return this.hello.session!;
  }
  get gotBytes(): number {
    return this.#decoder.total;
  }
  get text(): string {
    return this.pieces
      .filter(({ kind }) => kind === messageTypes.data)
      .map(({ bytes }) => Buffer.from(bytes).toString())
      .join("");
  }
  send(kind: number, connection: number, payload: Uint8Array): void {
    this.answer.socket.write(testCodec.encode([{ kind, connection, payload }], true));
  }
}

async function dial(
  host: Host,
  node: string,
  asked: { session?: string; from?: number; of?: string } = {},
): Promise<Impostor> {
  const hello = formatHello({ from: 0, pingMs: 60_000, deadMs: 60_000, ...asked });
  const answer = await dialBareWebSocket(
    {
      ...{ host: "127.0.0.1", port: host.door.port, path: connectPath, tls: { ca: localhostTls.certificatePem } },
      headers: { [nodeHeader]: node, [moteHeader]: hello },
      ...{ connectTimeoutMs: 60_000, timeoutMs: 60_000 },
    },
    AbortSignal.timeout(60_000),
  );
  return new Impostor(answer);
}

const bytes = (text: string) => new TextEncoder().encode(text);

test("a session is its node's: another one that knows its name begins its own, and disturbs nobody", async () => {
  const host = await rig.host();
  const owner = await dial(host, "n1");
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write("secret");
  await until(() => owner.text === "secret");
  const thief = await dial(host, "n2", { session: owner.token });
  expect(thief.token).not.toBe(owner.token);
  owner.send(messageTypes.data, 2, bytes("mine"));
  expect(await read(stream, 4)).toBe("mine");
  expect([owner.answer.socket.destroyed, thief.text]).toEqual([false, ""]);
});

test("a session that nobody knows is a new one, and what the old one carried ends with a reason", async () => {
  const host = await rig.host();
  const one = await dial(host, "n1");
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write("x");
  await until(() => one.text === "x");
  one.answer.socket.destroy();
  const other = await dial(host, "n1", { session: "0123456789abcdef0123456789abcdef" });
  expect(other.token).not.toBe(one.token);
  await expect(read(stream, 1)).rejects.toThrow("n1: tcp/127.0.0.1:1: tunnel disconnect: the other end began anew");
});

test.each([
  ["bytes that were never sent", (sent: number) => sent + 1],
  ["bytes that it has confirmed and that are gone", () => 0],
])("resuming from %s is refused: a new session, and an error for the old streams", async (_, from) => {
  const host = await rig.host();
  const one = await dial(host, "n1");
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write(Buffer.alloc(4000, "a"));
  stream.write(Buffer.alloc(4000, "b"));
  await until(() => one.text.length === 8000);
  const sent = one.gotBytes;
  one.send(messageTypes.ack, 0, encodeNumber(sent));
  one.send(messageTypes.data, 2, bytes("read"));
  // The confirmation came before it.
  expect(await read(stream, 4)).toBe("read");
  one.answer.socket.destroy();
  const other = await dial(host, "n1", { session: one.token, from: from(sent) });
  expect(other.token).not.toBe(one.token);
  await expect(read(stream, 1)).rejects.toThrow("the other end began anew");
});

test("resuming from the right byte brings the rest, and nothing twice", async () => {
  const host = await rig.host();
  const one = await dial(host, "n1");
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write("before ");
  await until(() => one.text === "before ");
  const from = one.gotBytes;
  one.answer.socket.destroy();
  stream.write("after");
  const again = await dial(host, "n1", { session: one.token, from });
  expect(again.token).toBe(one.token);
  await until(() => again.text === "after");
  // The server wants what it has not got: nothing came from the node yet.
  expect(again.hello.from).toBe(0);
});

test("another tunnel of the same process takes nobody's place, one of another process does", async () => {
  const host = await rig.host();
  const [here, elsewhere] = ["0123456789abcdef", "fedcba9876543210"];
  const one = await dial(host, "n1", { of: `${here}-1` });
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write("x");
  await until(() => one.text === "x");
  const from = one.gotBytes;
  // As to a server whose name leads to the address that it has as well.
  const beside = await dial(host, "n1", { of: `${here}-2` });
  one.answer.socket.destroy();
  await until(() => host.sockets() === 1);
  const again = await dial(host, "n1", { session: one.token, from, of: `${here}-1` });
  expect(again.token).toBe(one.token);
  again.send(messageTypes.data, 2, bytes("on"));
  expect(await read(stream, 2)).toBe("on");
  expect(beside.answer.socket.destroyed).toBe(false);
  again.answer.socket.destroy();
  await dial(host, "n1", { of: `${elsewhere}-1` });
  await expect(read(stream, 1)).rejects.toThrow("the other end began anew");
});

test("a node that loses its power again and again gets in: the oldest of what it has forgotten makes room", async () => {
  const clock = new FakeClock();
  const host = await rig.host({ clock });
  const tunnels: Impostor[] = [];
  const start = async (n: number) => void tunnels.push(await dial(host, "n1", { of: `${"0".repeat(15)}${n}-1` }));
  for (let n = 1; n <= 8; n++) await start(n);
  // Those that speak are alive, whatever else has the name.
  await expect(start(9)).rejects.toMatchObject({ code: "WEBSOCKET_DIAL", details: { status: 503 } });
  // The server has not noticed yet that any of them is gone.
  await clock.advance(10_000);
  await start(9);
  await until(() => tunnels[0]!.answer.socket.destroyed);
  expect(tunnels.slice(1).every(({ answer }) => !answer.socket.destroyed)).toBe(true);
});

test("a process that has eight tunnels gets no ninth", async () => {
  const host = await rig.host();
  const tunnels: Impostor[] = [];
  for (let n = 1; n <= 8; n++) tunnels.push(await dial(host, "n1", { of: `0123456789abcdef-${n}` }));
  const ninth = dial(host, "n1", { of: "0123456789abcdef-9" });
  await expect(ninth).rejects.toMatchObject({ code: "WEBSOCKET_DIAL", details: { status: 503 } });
  expect(tunnels.some(({ answer }) => answer.socket.destroyed)).toBe(false);
});

test("the same request again takes the session over: the socket before it is deaf from then on", async () => {
  const host = await rig.host();
  const one = await dial(host, "n1");
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write("x");
  await until(() => one.text === "x");
  const twins = [
    await dial(host, "n1", { session: one.token, from: one.gotBytes }),
    await dial(host, "n1", { session: one.token, from: one.gotBytes }),
  ] as const;
  expect(twins.map(({ token }) => token)).toEqual([one.token, one.token]);
  await until(() => one.answer.socket.destroyed && twins[0].answer.socket.destroyed);
  twins[1].send(messageTypes.data, 2, bytes("heard"));
  expect(await read(stream, 5)).toBe("heard");
});

test.each([
  ["just in time", bridgeMs - 1, true],
  ["after exactly the time that a session waits", bridgeMs, false],
])("resuming %s", async (_, afterMs, goesOn) => {
  const clock = new FakeClock();
  const host = await rig.host({ clock });
  const one = await dial(host, "n1");
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write("x");
  await until(() => one.text === "x");
  const from = one.gotBytes;
  one.answer.socket.destroy();
  await until(() => host.sockets() === 0);
  await clock.advance(afterMs);
  const again = await dial(host, "n1", { session: one.token, from });
  expect(again.token === one.token).toBe(goesOn);
  if (goesOn) {
    again.send(messageTypes.data, 2, bytes("on"));
    expect(await read(stream, 2)).toBe("on");
  } else await expect(read(stream, 1)).rejects.toThrow("it was away for too long");
});

test("a server that has started again knows no session: the node's streams end, and new ones work at once", async () => {
  const host = await rig.host();
  const wire = await rig.wire(host.door.port);
  let connections = 0;
  const port = await rig.listen((socket) => {
    connections++;
    socket.on("close", () => connections--);
    socket.pipe(socket);
  });
  // One that asks rarely: on a busy machine a connection more may be the right thing.
  rig.client(wire.port, "n1", { options: { isMetered: true } });
  await until(() => host.tunnels.has("n1"));
  const old = host.tunnels.dial("n1", "tcp", `127.0.0.1:${port}`);
  old.write("x");
  expect(await read(old, 1)).toBe("x");
  const restarted = host.restart();
  wire.cut();
  await until(() => restarted.has("n1"));
  // What the old server held open on the node is closed, and not after the time of the bridge.
  await until(() => connections === 0);
  const stream = restarted.dial("n1", "tcp", `127.0.0.1:${port}`);
  stream.write("again");
  expect(await read(stream, 5)).toBe("again");
  // It stays with the connection that it has: another beside it would go on from bytes that are long there.
  await systemClock.sleep(1000);
  expect([host.connections(), host.sockets()]).toEqual([2, 1]);
});

test("who dies within a frame takes its streams with it where nothing can be resumed", async () => {
  const host = await rig.host();
  // As a node of k3s: no header.
  const answer = await dialBareWebSocket(
    {
      ...{ host: "127.0.0.1", port: host.door.port, path: connectPath, tls: { ca: localhostTls.certificatePem } },
      ...{ headers: { [nodeHeader]: "n1" }, connectTimeoutMs: 60_000, timeoutMs: 60_000 },
    },
    AbortSignal.timeout(60_000),
  );
  const node = new Impostor(answer);
  const stream = host.tunnels.dial("n1", "tcp", "127.0.0.1:1");
  stream.write("x");
  await until(() => node.text === "x");
  const frame = testCodec.encode([{ kind: messageTypes.data, connection: 2, payload: Buffer.alloc(1000, "y") }], true);
  answer.socket.write(frame.subarray(0, 500));
  expect((await read(stream, 400)).startsWith("yyy")).toBe(true);
  answer.socket.destroy();
  await expect(read(stream, 1000)).rejects.toThrow("tunnel disconnect: the connection was lost");
  expect(host.tunnels.has("n1")).toBe(false);
});
