// Requests and watches over one connection, against the real server, with a wire between that can fall silent.
import { createServer } from "node:https";
import * as net from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { type HttpClientOptions, readBody } from "./http-client.ts";
import { createHttp2Client, type Http2Client } from "./http2-client.ts";
import { openHttpsServer } from "./https-server.ts";

const ends: (() => void | Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface Door {
  readonly port: number;
  readonly connections: Set<object>;
  /** Of watches, which end with their client only. */
  readonly watching: { count: number };
}

/** Answers with what it was sent; a watch is told "begun" and then nothing. */
async function door(): Promise<Door> {
  const connections = new Set<object>();
  const watching = { count: 0 };
  const server = await openHttpsServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, log: silentLogger },
    {
      async request(request, response) {
        connections.add(request.connection);
        if (request.target === "/watch") {
          response.head(200, {});
          response.write("begun\n");
          watching.count++;
          await new Promise<void>((resolve) => {
            request.signal.addEventListener("abort", () => resolve(), { once: true });
          });
          watching.count--;
          return;
        }
        const parts: Uint8Array[] = [];
        for await (const part of request.body) parts.push(part);
        response.head(201, { "content-type": "text/plain", "x-target": request.target });
        response.end(Buffer.concat([Buffer.from(`${request.method} `), ...parts]));
      },
      async upgrade({ socket }) {
        socket.destroy();
      },
    },
  );
  ends.push(() => server.close(0));
  return { port: server.port, connections, watching };
}

/** Between a client and a server: while it is silent nothing arrives, and nobody is told. */
async function wire(to: number): Promise<{ port: number; silence(is: boolean): void }> {
  const sockets = new Set<net.Socket>();
  let isSilent = false;
  const server = net.createServer((socket) => {
    const other = net.connect(to, "127.0.0.1");
    for (const [one, two] of [
      [socket, other],
      [other, socket],
    ] as const) {
      sockets.add(one);
      if (isSilent) one.pause();
      one.on("data", (bytes) => two.write(bytes));
      if (isSilent) one.pause();
      one.on("error", () => {});
      one.on("close", () => {
        sockets.delete(one);
        two.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    port: (server.address() as net.AddressInfo).port,
    silence(is) {
      isSilent = is;
      for (const socket of sockets) {
        if (is) socket.pause();
        else socket.resume();
      }
    },
  };
}

function clientOf(port: number, more: Partial<HttpClientOptions> = {}): Http2Client {
  const client = createHttp2Client({
    ...{ baseUrl: `https://127.0.0.1:${port}/base`, ca: localhostTls.certificatePem },
    ...more,
  });
  ends.push(() => client.close());
  return client;
}

const get = { method: "GET", path: "/thing?a=b", idleTimeoutMs: 20_000 };
const watch = { method: "GET", path: "/watch", idleTimeoutMs: 60_000 };

test("requests and watches share a connection", async () => {
  const { port, connections, watching } = await door();
  const client = clientOf(port, { baseUrl: `https://127.0.0.1:${port}` });
  const watches = await Promise.all(Array.from({ length: 5 }, () => client.send(watch)));
  for (const { status, body } of watches) {
    expect(status).toBe(200);
    for await (const bytes of body) {
      expect(Buffer.from(bytes).toString()).toBe("begun\n");
      break;
    }
  }
  const answer = await client.send({ ...get, method: "POST", body: "some bytes" });
  expect(answer).toMatchObject({ status: 201, headers: { "content-type": "text/plain", "x-target": "/thing?a=b" } });
  expect((await readBody(answer, 1000)).toString()).toBe("POST some bytes");
  const chunks = (async function* () {
    yield Buffer.from("in ");
    yield Buffer.from("parts");
  })();
  const streamed = await client.send({ ...get, method: "PUT", body: { sizeBytes: 8, chunks } });
  expect((await readBody(streamed, 1000)).toString()).toBe("PUT in parts");
  expect(connections.size).toBe(1);
  // Whoever breaks off leaves nothing running at the server.
  await expect.poll(() => watching.count).toBe(0);
});

test("a path before all others is kept", async () => {
  const { port } = await door();
  const answer = await clientOf(port).send(get);
  expect(answer.headers["x-target"]).toBe("/base/thing?a=b");
});

test("who was never there is not waited for", async () => {
  const free = net.createServer();
  await new Promise<void>((resolve) => free.listen(0, "127.0.0.1", resolve));
  const { port } = free.address() as net.AddressInfo;
  await new Promise<void>((resolve) => free.close(() => resolve()));
  const startedMs = performance.now();
  await expect(clientOf(port).send({ ...get, patienceMs: 60_000 })).rejects.toMatchObject({ code: "HTTP_FAILED" });
  expect(performance.now() - startedMs).toBeLessThan(10_000);
});

test("an abort ends what waits and what runs, with its reason", async () => {
  const { port } = await door();
  const client = clientOf(port, { baseUrl: `https://127.0.0.1:${port}` });
  const stop = new AbortController();
  const { body } = await client.send(watch, stop.signal);
  const reading = (async () => {
    for await (const _ of body) stop.abort(new Error("enough"));
  })();
  await expect(reading).rejects.toThrow("enough");
  await expect(client.send(get, stop.signal)).rejects.toThrow("enough");
});

test("a silent connection is found out, and who has patience goes on when it is back", async () => {
  const { port, connections } = await door();
  const between = await wire(port);
  const client = clientOf(between.port, { baseUrl: `https://127.0.0.1:${between.port}` });
  const { body } = await client.send(watch);
  between.silence(true);
  client.check();
  const reading = (async () => {
    for await (const _ of body) {
      // "begun", then nothing.
    }
  })();
  await expect(reading).rejects.toThrow(/silent/);
  const patient = client.send({ ...get, patienceMs: 60_000 });
  between.silence(false);
  expect((await patient).status).toBe(201);
  expect(connections.size).toBe(2);
});

test("whoever pauses tries at once when the server is known to be back", async () => {
  const { port } = await door();
  let attempts = 0;
  let isAway = false;
  const dial = async (): Promise<net.Socket> => {
    attempts++;
    if (isAway) throw new Error("refused");
    const socket = net.connect(port, "127.0.0.1");
    await new Promise((resolve) => socket.once("connect", resolve));
    sockets.push(socket);
    return socket;
  };
  const sockets: net.Socket[] = [];
  const client = clientOf(port, { baseUrl: `https://127.0.0.1:${port}`, dial });
  await readBody(await client.send(get), 1000);
  isAway = true;
  for (const socket of sockets) socket.destroy();
  const isFound = async () => {
    await client.send(get).catch(() => {});
    return attempts;
  };
  await expect.poll(isFound).toBeGreaterThan(1);
  // No time passes.
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  try {
    const stop = new AbortController();
    const patient = expect(client.send({ ...get, patienceMs: 60_000 }, stop.signal)).rejects.toThrow("enough");
    const turns = async () => {
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    };
    await turns();
    const before = attempts;
    await turns();
    expect(attempts).toBe(before);
    client.hurry();
    await turns();
    expect(attempts).toBe(before + 1);
    stop.abort(new Error("enough"));
    await patient;
  } finally {
    vi.useRealTimers();
  }
});

test("a request that is not answered doubts the connection by itself", async () => {
  const { port } = await door();
  const between = await wire(port);
  const client = clientOf(between.port);
  await readBody(await client.send(get), 1000);
  between.silence(true);
  await expect(client.send(get)).rejects.toMatchObject({ code: "HTTP_FAILED" });
});

test("a server without HTTP/2 gets HTTP/1.1", async () => {
  const { certificatePem: cert, keyPem: key } = localhostTls;
  const server = createServer({ cert, key }, (request, response) => response.end(request.httpVersion));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const client = clientOf((server.address() as net.AddressInfo).port);
  for (let i = 0; i < 2; i++) expect((await readBody(await client.send(get), 100)).toString()).toBe("1.1");
});
