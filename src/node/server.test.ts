// The node API over real TLS, in front of a stream server that speaks SPDY as containerd's does. The fake runtime's
// "commands": cat, sh (exits with the code it reads), yes (writes without end), hang (says nothing).
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import * as http from "node:http";
import * as https from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { createX509Authenticator } from "#apiserver/authn/x509.ts";
import { silentLogger } from "#base/log.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { ensurePki, type KeyPair, type Pki } from "#supervisor/pki.ts";
import { until } from "#test/harness/until.ts";
import { exitStatus } from "#wire/remote-command.ts";
import { SpdySession, type SpdyStream } from "#wire/spdy.ts";
import type { PodLookup } from "./lookup.ts";
import { createNodeServer } from "./server.ts";
import type { NodeStats } from "./stats/service.ts";

let folder = "";
let pki: Pki;
let port = 0;
let runtimePort = 0;
const runtimeSockets = new Set<Socket>();
const stop = new AbortController();
let served: Promise<void>;
let runtime: http.Server;
const runtimeRequests: string[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-node-server-"));
  pki = await ensurePki(
    { folder: join(folder, "tls"), nodeName: "n1", nodeIps: ["127.0.0.1"] },
    { clock: systemClock, random: systemRandom, log: silentLogger },
  );
  await writeFile(join(folder, "main.log"), "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout F two\n");
  runtime = streamServer();
  await new Promise<void>((resolve) => runtime.listen(0, "127.0.0.1", resolve));
  runtimePort = (runtime.address() as AddressInfo).port;
  const authenticator = createX509Authenticator(
    { clientCa: pki.clientCa.certificate },
    { clock: systemClock, log: silentLogger },
  );
  await new Promise<void>((resolve) => {
    served = createNodeServer(
      {
        host: "127.0.0.1",
        port: 0,
        tls: () => ({ certificatePem: pki.servingKubelet.certificate, keyPem: pki.servingKubelet.key }),
      },
      {
        clock: systemClock,
        log: silentLogger,
        lookup: fakeLookup(),
        authenticate: (credentials) => authenticator.authenticate(credentials),
        metrics: () => "own 1\n",
        stats: () => ({ claims: () => Promise.reject(new Error("the runtime is away")) }) as unknown as NodeStats,
        listening: (server) => {
          port = server.port;
        },
      },
    ).run(stop.signal, resolve);
  });
});

afterAll(async () => {
  stop.abort();
  await served;
  for (const socket of runtimeSockets) socket.destroy();
  await new Promise((resolve) => runtime.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

function fakeLookup(): PodLookup {
  const pod = {
    metadata: { name: "p", namespace: "default" },
    spec: { containers: [{ name: "main" }, { name: "wait" }] },
    status: {
      containerStatuses: [
        { name: "main", state: { running: {} } },
        { name: "wait", state: { waiting: { reason: "ContainerCreating" } } },
      ],
    },
  } as unknown as Pod;
  const url = (kind: string, detail: string) => Promise.resolve(`http://127.0.0.1:${runtimePort}/${kind}/${detail}`);
  return {
    container: (namespace, name, container) =>
      namespace === "default" && name === "p" && container === "main"
        ? {
            containerId: "c1",
            podUid: "u1",
            containerName: "main",
            state: "running",
            attempt: 0,
            logPath: (previous) => (previous ? undefined : join(folder, "main.log")),
          }
        : undefined,
    sandbox: (_namespace, name) => (name === "p" ? { sandboxId: "s1", podUid: "u1" } : undefined),
    pods: () => [pod],
    runtime: {
      execSync: async (_id, command) => ({
        stdout: Buffer.from(command.join("|")),
        stderr: new Uint8Array(0),
        exitCode: 0,
      }),
      exec: (request) => {
        const wanted = [request.stdin && "in", request.stdout && "out", request.stderr && "err", request.tty && "tty"];
        return url(request.command[0]!, wanted.filter((word) => word !== false).join("-"));
      },
      attach: (request) => url(request.tty ? "tty" : "cat", "attach"),
      portForward: (request) => url("forward", request.podSandboxId),
    },
  };
}

/** As containerd: waits for streams told apart by their header, runs a "command", says how it ended. */
function streamServer(): http.Server {
  const server = http.createServer((_request, response) => {
    response.writeHead(400);
    response.end("not upgraded");
  });
  server.on("connection", (socket) => {
    runtimeSockets.add(socket);
    socket.on("close", () => runtimeSockets.delete(socket));
    socket.on("error", () => {});
  });
  server.on("upgrade", (request, socket, head) => {
    const [, command = "", detail = ""] = (request.url ?? "").split("/");
    runtimeRequests.push(`${command} ${detail} ${String(request.headers["x-stream-protocol-version"])}`);
    if (command === "refuse") {
      socket.end("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 13\r\nConnection: close\r\n\r\nno such thing");
      return;
    }
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
    );
    const streams: Record<string, SpdyStream> = {};
    const finish = (code: number) => {
      streams["stdout"]?.end();
      streams["stderr"]?.end();
      streams["error"]?.write(exitStatus(code));
      session.close();
      socket.end();
    };
    const session = new SpdySession({
      role: "server",
      send: (bytes) => socket.write(bytes),
      accept(stream) {
        stream.reply();
        const type = stream.headers["streamtype"] ?? "";
        streams[type] = stream;
        if (type === "resize") return { data: (bytes) => streams["stdout"]?.write(bytes), end() {}, reset() {} };
        if (command === "forward" && type === "data") {
          return { data: (bytes) => stream.write(Buffer.from(bytes).reverse()), end: () => stream.end(), reset() {} };
        }
        if (type === "stdout" && command === "yes") {
          const more = setInterval(() => {
            for (let i = 0; i < 8; i++) stream.write(Buffer.alloc(64 * 1024, "y"));
          }, 1);
          socket.on("close", () => clearInterval(more));
        }
        let input = "";
        return {
          data(bytes) {
            if (type !== "stdin") return;
            if (command === "sh") input += Buffer.from(bytes).toString();
            else streams["stdout"]?.write(bytes);
          },
          end() {
            if (type !== "stdin") return;
            streams["stderr"]?.write(Buffer.from("bye"));
            finish(command === "sh" ? Number(input) : 0);
          },
          reset() {},
        };
      },
    });
    socket.on("data", (bytes: Buffer) => session.receive(bytes));
    socket.on("end", () => socket.destroy());
    socket.on("error", () => {});
    if (head.length > 0) session.receive(head);
  });
  return server;
}

const identity = (pair: KeyPair | undefined) => ({
  host: "127.0.0.1",
  port,
  ca: pki.serverCa.certificate,
  ...(pair ? { cert: pair.certificate, key: pair.key } : {}),
});

function get(path: string, pair: KeyPair | undefined = pki.clientApiserver, method = "GET"): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = https.request({ ...identity(pair), path, method, agent: false }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on("end", () => resolve(`${response.statusCode} ${text}`));
    });
    request.on("error", reject);
    request.end();
  });
}

test("without the API server's certificate only /healthz answers", async () => {
  expect(await get("/healthz", undefined)).toBe("200 ok");
  for (const path of ["/pods", "/containerLogs/default/p/main", "/metrics", "/nowhere", "/healthz/x"]) {
    // No certificate at all; another authority's; one of our own that is no administrator's.
    expect((await getWithout(path)).slice(0, 3)).toBe("401");
    expect((await get(path, pki.servingKubelet)).slice(0, 3)).toBe("401");
    expect(await get(path, pki.clientKubelet)).toMatch(/^403 Forbidden \(user=system:node:n1/);
  }
});
const getWithout = (path: string) =>
  new Promise<string>((resolve, reject) => {
    https
      .get({ ...identity(undefined), path, agent: false }, (response) => {
        response.resume();
        resolve(`${response.statusCode}`);
      })
      .on("error", reject);
  });

test.each([
  ["GET", "/containerLogs/default/p/main", "200 one\ntwo\n"],
  ["GET", "/containerLogs/default/p/main?tailLines=1&timestamps=true", "200 2026-01-01T00:00:01.000000000Z two\n"],
  [
    "GET",
    "/containerLogs/default/p/main?previous=true",
    '400 previous terminated container "main" in pod "p" not found',
  ],
  ["GET", "/containerLogs/default/p/wait", '400 container "wait" in pod "p" is waiting to start: ContainerCreating'],
  ["GET", "/containerLogs/default/nope/main", '404 pod "nope" does not exist'],
  ["GET", "/containerLogs/default/p/main?tailLines=x", '400 invalid tailLines: "x": must be an integer of at least 0'],
  ["GET", "/containerLogs/default/p/main?sinceTime=x", '400 invalid sinceTime: "x"'],
  ["POST", "/containerLogs/default/p/main", "405 405: Method Not Allowed"],
  ["POST", "/run/default/p/main?cmd=ls%20-l", "200 ls|-l"],
  ["GET", "/configz", '200 {"kubeletconfig":{}}'],
  ["GET", "/metrics", "200 own 1\n"],
  ["GET", "/nowhere", "404 404 page not found"],
  ["GET", "/%", "400 malformed path"],
])("%s %s", async (method, path, expected) => {
  expect(await get(path, pki.clientApiserver, method)).toBe(expected);
});

test("the pods of the node", async () => {
  const body = await get("/pods");
  expect(JSON.parse(body.slice(4))).toMatchObject({ kind: "PodList", items: [{ metadata: { name: "p" } }] });
});

interface Session {
  readonly socket: WebSocket;
  readonly channels: string[];
  readonly closed: Promise<number>;
}
function dial(path: string, protocols: string[]): Promise<Session | string> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://127.0.0.1:${port}${path}`, protocols, identity(pki.clientApiserver));
    const channels: string[] = [];
    const closed = new Promise<number>((done) => {
      socket.on("close", done);
    });
    socket.on("message", (data: Buffer) => {
      channels[data[0]!] = (channels[data[0]!] ?? "") + data.subarray(1).toString();
    });
    socket.on("open", () => resolve({ socket, channels, closed }));
    socket.on("unexpected-response", (request, response) => {
      let text = `${response.statusCode} `;
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on("end", () => resolve(text));
      request.on("error", () => {});
    });
    socket.on("error", reject);
  });
}
const connected = async (path: string, protocols: string[]): Promise<Session> => {
  const session = await dial(path, protocols);
  if (typeof session === "string") throw new Error(session);
  return session;
};
const execPath = (command: string, query = "input=1&output=1&error=1") =>
  `/exec/default/p/main?${query}&command=${command}`;

test("exec over v5: input, its end, both outputs and the exit code", async () => {
  const { socket, channels, closed } = await connected(execPath("sh"), ["v5.channel.k8s.io"]);
  expect(socket.protocol).toBe("v5.channel.k8s.io");
  socket.send(Buffer.from("\x003"));
  socket.send(Buffer.from([255, 0]));
  expect(await closed).toBe(1000);
  expect(channels[2]).toBe("bye");
  expect(JSON.parse(channels[3]!)).toMatchObject({ status: "Failure", details: { causes: [{ message: "3" }] } });
  expect(runtimeRequests.at(-1)).toBe("sh in-out-err v4.channel.k8s.io");
});

test("a megabyte through cat comes back whole", async () => {
  const { socket, channels, closed } = await connected(execPath("cat"), ["v5.channel.k8s.io"]);
  const data = "0123456789abcdef".repeat(65536);
  for (let at = 0; at < data.length; at += 30_000) socket.send(Buffer.from(`\0${data.slice(at, at + 30_000)}`));
  socket.send(Buffer.from([255, 0]));
  expect(await closed).toBe(1000);
  expect(channels[1]).toBe(data);
  expect(JSON.parse(channels[3]!)).toMatchObject({ status: "Success" });
});

test.each([[["channel.k8s.io"]], [[]]])(
  "exec over %j: no word of a success, a text for a failure",
  async (protocols) => {
    const good = await connected(execPath("cat"), protocols);
    expect(good.socket.protocol).toBe(protocols[0] ?? "");
    good.socket.send(Buffer.from("\0hello"));
    await until(() => Boolean(good.channels[1]));
    expect(good.channels[1]).toBe("hello");
    expect(good.channels[3]).toBeUndefined();
    good.socket.terminate();
    const bad = await connected(execPath("hang"), protocols);
    for (const socket of runtimeSockets) socket.destroy();
    expect(await bad.closed).toBe(1000);
    expect(bad.channels[3]).toBe("the container runtime closed the stream");
  },
);

test("exec over base64: text messages both ways", async () => {
  const { socket } = await connected(execPath("cat"), ["base64.channel.k8s.io"]);
  const texts: string[] = [];
  socket.on("message", (data: Buffer, isBinary) => texts.push(`${isBinary} ${data.toString()}`));
  socket.send(`0${Buffer.from("hello").toString("base64")}`);
  const wanted = `false 1${Buffer.from("hello").toString("base64")}`;
  await until(() => texts.includes(wanted));
  expect(texts).toContain(wanted);
  socket.terminate();
});

test("v4 has no half-close: the mark is an error there", async () => {
  const { socket, closed } = await connected(execPath("cat"), ["v4.channel.k8s.io"]);
  socket.send(Buffer.from([255, 0]));
  expect(await closed).toBe(1002);
});

test("a terminal has one output and takes sizes", async () => {
  const { socket, channels } = await connected(execPath("cat", "input=1&output=1&error=1&tty=1"), [
    "v5.channel.k8s.io",
  ]);
  socket.send(Buffer.from('\x04{"Width":80,"Height":24}'));
  await until(() => Boolean(channels[1]));
  expect(channels[1]).toBe('{"Width":80,"Height":24}');
  expect(runtimeRequests.at(-1)).toBe("cat in-out-tty v4.channel.k8s.io");
  socket.terminate();
});

test("a client that leaves takes the runtime's connection with it", async () => {
  const noneLeft = async () => {
    await until(() => runtimeSockets.size === 0);
    expect(runtimeSockets.size).toBe(0);
  };
  await noneLeft();
  const { socket } = await connected(execPath("hang"), ["v5.channel.k8s.io"]);
  expect(runtimeSockets.size).toBe(1);
  socket.terminate();
  await noneLeft();
});

test("a runtime that breaks off is a failure, not a silent success", async () => {
  const { channels, closed } = await connected(execPath("hang"), ["v5.channel.k8s.io"]);
  for (const socket of runtimeSockets) socket.destroy();
  expect(await closed).toBe(1000);
  expect(JSON.parse(channels[3]!)).toMatchObject({ status: "Failure", reason: "InternalError" });
});

test("a client that does not read stops the runtime instead of filling memory", async () => {
  const { socket } = await connected(execPath("yes"), ["v5.channel.k8s.io"]);
  socket.pause();
  let last = -1;
  let bytes = 0;
  for (let i = 0; i < 100 && bytes !== last; i++) {
    last = bytes;
    await systemClock.sleep(50);
    // What the runtime could get rid of: it stands still once every buffer on the way is full.
    bytes = [...runtimeSockets].reduce((sum, s) => sum + s.bytesWritten - s.writableLength, 0);
  }
  expect(bytes).toBe(last);
  expect(bytes).toBeLessThan(32 * 1024 * 1024);
  socket.terminate();
});

test.each([
  ["an unknown protocol", execPath("cat"), ["v1.other"], "400 unsupported WebSocket subprotocols: v1.other"],
  [
    "no streams",
    execPath("cat", "tty=1"),
    ["v5.channel.k8s.io"],
    "400 you must specify at least 1 of stdin, stdout, stderr",
  ],
  ["no command", "/exec/default/p/main?output=1", ["v5.channel.k8s.io"], "400 you must provide at least 1 command"],
  ["no such container", "/exec/default/p/x?output=1&command=a", ["v5.channel.k8s.io"], '500 container not found ("x")'],
  ["no such pod", "/exec/default/x/x?output=1&command=a", ["v5.channel.k8s.io"], "404 pod does not exist"],
  ["another pod's UID", "/exec/default/p/u2/main?output=1&command=a", ["v5.channel.k8s.io"], "404 pod does not exist"],
  ["what the runtime refuses", execPath("refuse"), ["v5.channel.k8s.io"], "500 no such thing"],
])("refused: %s", async (_name, path, protocols, expected) => {
  expect(await dial(path, protocols)).toBe(expected);
});

/** An upgrade to SPDY by hand, as old kubectl does it. */
function spdy(
  path: string,
  protocol: string,
): Promise<{ session: SpdySession; socket: import("node:stream").Duplex; chosen: unknown }> {
  return new Promise((resolve, reject) => {
    const request = https.request({
      ...identity(pki.clientApiserver),
      path,
      method: "POST",
      agent: false,
      headers: { Connection: "Upgrade", Upgrade: "SPDY/3.1", "X-Stream-Protocol-Version": protocol },
    });
    request.on("upgrade", (response, socket) => {
      const session = new SpdySession({ role: "client", send: (bytes) => socket.write(bytes) });
      socket.on("data", (bytes: Buffer) => session.receive(bytes));
      resolve({ session, socket, chosen: response.headers["x-stream-protocol-version"] });
    });
    request.on("response", (response) => reject(new Error(String(response.statusCode))));
    request.on("error", reject);
    request.end();
  });
}

test("SPDY passes through to the runtime", async () => {
  const { session, socket, chosen } = await spdy(execPath("sh"), "v4.channel.k8s.io");
  expect(chosen).toBe("v4.channel.k8s.io");
  const status = await new Promise<string>((resolve) => {
    session.open(
      { streamtype: "error" },
      { data: (bytes) => resolve(Buffer.from(bytes).toString()), end() {}, reset() {} },
    );
    session.open({ streamtype: "stdout" }, { data() {}, end() {}, reset() {} });
    const stdin = session.open({ streamtype: "stdin" }, { data() {}, end() {}, reset() {} });
    stdin.write(Buffer.from("9"));
    stdin.end();
  });
  expect(JSON.parse(status).details.causes[0].message).toBe("9");
  socket.destroy();
});

test("port-forward: SPDY inside WebSocket messages, as kubectl since 1.31", async () => {
  const protocol = "SPDY/3.1+portforward.k8s.io";
  // ws itself refuses the name (it has a slash), so the client is made by hand.
  const request = https.request({
    ...identity(pki.clientApiserver),
    path: "/portForward/default/p",
    agent: false,
    headers: {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": Buffer.alloc(16).toString("base64"),
      "Sec-WebSocket-Protocol": protocol,
    },
  });
  const answer = await new Promise<{ chosen: unknown; text: string }>((resolve, reject) => {
    request.on("response", (response) => reject(new Error(String(response.statusCode))));
    request.on("error", reject);
    request.on("upgrade", (response, socket) => {
      const session = new SpdySession({
        role: "client",
        send(bytes) {
          const size = bytes.length;
          const head = size < 126 ? Buffer.from([0x82, 0x80 | size]) : Buffer.from([0x82, 0xfe, size >> 8, size & 255]);
          socket.write(Buffer.concat([head, Buffer.alloc(4), bytes]));
        },
      });
      let rest = Buffer.alloc(0);
      socket.on("data", (chunk: Buffer) => {
        rest = Buffer.concat([rest, chunk]);
        while (rest.length >= 2 && rest.length >= 2 + (rest[1]! & 127)) {
          const size = rest[1]! & 127;
          if (rest[0] === 0x82) session.receive(rest.subarray(2, 2 + size));
          rest = rest.subarray(2 + size);
        }
      });
      const stream = session.open(
        { streamtype: "data", port: "80", requestid: "0" },
        {
          data(bytes) {
            resolve({ chosen: response.headers["sec-websocket-protocol"], text: Buffer.from(bytes).toString() });
            socket.destroy();
          },
          end() {},
          reset() {},
        },
      );
      stream.write(Buffer.from("stressed"));
    });
    request.end();
  });
  expect(answer).toEqual({ chosen: protocol, text: "desserts" });
});

test("port-forward by channels, as @kubernetes/client-node", async () => {
  const { socket, channels } = await connected("/portForward/default/p?ports=8080", ["v4.channel.k8s.io"]);
  socket.send(Buffer.from("\0live"));
  await until(() => (channels[0] ?? "").length >= 6);
  expect(channels[0]).toBe("\x90\x1fevil".replace("\x90", Buffer.from([0x90]).toString()));
  expect(channels[1]!.length).toBeGreaterThan(0);
  socket.terminate();
});
