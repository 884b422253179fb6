// A handshake that never comes to an end, and what `reach` says of who is there, who hangs and who is gone.
import * as net from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { openHttpsServer, type ServerUpgrade } from "./https-server.ts";
import { acceptBareWebSocket, dialBareWebSocket } from "./raw-websocket.ts";

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

const dialOf = (port: number, timeoutMs: number) => ({
  ...{ host: "127.0.0.1", port, path: "/", tls: { ca: localhostTls.certificatePem }, headers: {} },
  ...{ connectTimeoutMs: 30_000, timeoutMs },
});

test("whoever takes a connection and never answers is given up", async () => {
  const sockets: net.Socket[] = [];
  const mute = net.createServer((socket) => void sockets.push(socket.on("error", () => {})));
  await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
  ends.push(() => {
    for (const socket of sockets) socket.destroy();
    mute.close();
  });
  const { port } = mute.address() as net.AddressInfo;
  await expect(dialBareWebSocket(dialOf(port, 100), new AbortController().signal)).rejects.toMatchObject({
    code: "WEBSOCKET_DIAL",
    details: { isConnected: true },
  });
});

test("who runs answers beside the connection, who hangs takes connections, and who is gone is not reached", async () => {
  const upgrades: ServerUpgrade[] = [];
  const door = await openHttpsServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, log: silentLogger },
    {
      async request() {},
      async upgrade(upgrade) {
        upgrades.push(upgrade);
        acceptBareWebSocket(upgrade, {});
      },
    },
  );
  ends.push(() => door.close(0));
  const sockets: net.Socket[] = [];
  let isMute = false;
  const front = net.createServer((near) => {
    sockets.push(near.on("error", () => {}));
    if (isMute) return;
    const far = net.connect(door.port, "127.0.0.1").on("error", () => {});
    sockets.push(far);
    near.pipe(far).pipe(near);
  });
  const close = () => {
    front.close();
    for (const socket of sockets.splice(0)) socket.destroy();
  };
  ends.push(close);
  await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
  const { port } = front.address() as net.AddressInfo;
  const { socket, reach, handshakeMs } = await dialBareWebSocket(dialOf(port, 60_000), new AbortController().signal);
  socket.on("error", () => {});
  expect(handshakeMs).toBeGreaterThan(0);
  let reached = 0;
  const connected = () => void reached++;
  await reach!(new AbortController().signal, connected);
  expect(reached).toBe(1);
  // It disturbs nobody.
  expect([upgrades.length, socket.destroyed]).toEqual([1, false]);
  isMute = true;
  const stop = new AbortController();
  let isAnswered = false;
  const hanging = reach!(stop.signal, connected).then(() => {
    isAnswered = !stop.signal.aborted;
  });
  await vi.waitUntil(() => reached === 2, { timeout: 30_000 });
  stop.abort(new Error("enough"));
  await hanging;
  expect(isAnswered).toBe(false);
  close();
  await expect(reach!(new AbortController().signal, connected)).rejects.toThrow("ECONNREFUSED");
  expect(reached).toBe(2);
});
