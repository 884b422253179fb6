// The whole way: a client of the API server, its door, the proxy, and a server that stands for a pod. Pods have addresses
// that nobody here has, so the dialler leads them to this machine, which the proxy itself would refuse.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { connect } from "node:http2";
import { createServer as createTlsServer, request as httpsRequest } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Endpoints, Pod, Service } from "#model/gen/core-v1.ts";
import { notFound } from "#model/status.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { openUpgrade } from "#platform/upgrade-client.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import type { NodeDialer } from "../node-dialer.ts";
import { createStrategies } from "../registry/strategies.ts";
import { type ApiServer, createApiServer } from "../server.ts";
import { createBackendProxy, isProxyable, parseBackendName } from "./backend-proxy.ts";
import { byDestination } from "./connect.ts";
import { createNodeProxy } from "./node-proxy.ts";

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

const dialled: string[] = [];
const seen: IncomingMessage["headers"][] = [];
/** What came on a connection whose upgrade was refused. */
const smuggled: string[] = [];
let backend: Backend;
let server: ApiServer;
let ended: Promise<void>;
const abort = new AbortController();
const behind = createServer(answerAs);
const behindTls = createTlsServer({ cert: localhostTls.certificatePem, key: localhostTls.keyPem }, answerAs);

function answerAs(request: IncomingMessage, response: ServerResponse): void {
  seen.push(request.headers);
  const { method = "", url = "" } = request;
  if (url === "/page") {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8", "content-length": "99" });
    response.end('<a href="/rewriteme">test</a>'.padEnd(99));
  } else if (url === "/packed") {
    response.writeHead(200, { "content-type": "text/html", "content-encoding": "gzip" });
    response.end(gzipSync('<img src="/x">'));
  } else if (url === "/moved") {
    response.writeHead(302, { location: "/there?a=b", "x-own": "1", connection: "x-own" });
    response.end();
  } else if (url === "/broken") {
    response.writeHead(200, { "content-length": "1000" });
    response.write("half");
    setTimeout(() => response.destroy(), 50);
  } else {
    let body = "";
    request.on("data", (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on("end", () => response.end(`${method} ${url} ${body}`));
  }
}
behind.on("upgrade", (request: IncomingMessage, socket: Duplex) => {
  seen.push(request.headers);
  if (request.url === "/no") {
    socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    return;
  }
  if (request.url === "/stays") {
    socket.on("data", (bytes: Buffer) => smuggled.push(bytes.toString()));
    socket.on("end", () => socket.end());
    socket.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    return;
  }
  socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
  socket.on("data", (bytes: Buffer) => socket.write(bytes.toString().toUpperCase()));
  socket.on("end", () => socket.end());
});

const pods: Record<string, unknown> = {
  web: {
    spec: { containers: [{ name: "a" }, { name: "b", ports: [{ containerPort: 1080 }] }] },
    status: { podIP: "10.0.0.1" },
  },
  bare: { spec: { containers: [{ name: "a" }] }, status: { podIP: "10.0.0.2" } },
  early: { metadata: { name: "early" }, spec: { containers: [{ name: "a" }] } },
  evil: { spec: { containers: [{ name: "a" }] }, status: { podIP: "127.0.0.1" } },
};
const address = (ip: string, name: string) => ({ ip, targetRef: { kind: "Pod", name } });
const endpoints: Record<string, unknown> = {
  svc: {
    subsets: [
      { addresses: [address("10.0.0.1", "web")], ports: [{ name: "http", port: 1080 }] },
      // By hand: the pod has another address, or there is none.
      { addresses: [address("10.0.0.9", "web"), { ip: "10.0.0.8" }], ports: [{ name: "forged", port: 1080 }] },
    ],
  },
  none: {},
};
const get = async <T>(from: Record<string, unknown>, name: string): Promise<T> => {
  if (!from[name]) throw notFound({ group: "", resource: "pods" }, name);
  return from[name] as T;
};
const logDialer: NodeDialer = {
  request: async () => ({
    status: 200,
    headers: {},
    body: (async function* () {
      yield Buffer.from("one\n");
      yield Buffer.from("two\n");
    })(),
  }),
  upgrade: () => Promise.reject(new Error("not asked")),
};

beforeAll(async () => {
  for (const one of [behind, behindTls]) await new Promise<void>((resolve) => one.listen(0, "127.0.0.1", resolve));
  backend = await openDatastore({ endpoint: "memory://" }, { clock: systemClock, log: silentLogger });
  const basics = { clock: systemClock, random: systemRandom, log: silentLogger };
  server = createApiServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls },
    {
      ...{ ...basics, backend, metrics: new Metrics(), admission: [], columnsFor: () => [] },
      authenticators: [{ authenticate: async () => ({ name: "admin", groups: ["system:masters"] }) }],
      authorizer: { authorize: () => ({ verdict: "no-opinion", reason: "" }) },
      strategies: createStrategies(basics),
      connector: byDestination(
        createNodeProxy({
          ...{ dialer: logDialer, log: silentLogger },
          getPod: async () =>
            ({ metadata: { name: "web" }, spec: { nodeName: "n", containers: [{ name: "a" }] } }) as Pod,
        }),
        createBackendProxy({
          ...basics,
          getPod: (_, name) => get<Pod>(pods, name),
          getService: async () => ({ spec: { ports: [{ name: "http", port: 80 }] } }) as Service,
          getEndpoints: (_, name) => get<Endpoints>(endpoints, name),
          dial: (to, request, signal) => {
            dialled.push(`${to.tls ? "tls " : ""}${to.host}:${to.port}`);
            const port = ((to.tls ? behindTls : behind).address() as AddressInfo).port;
            return openUpgrade({ ...to, host: "127.0.0.1", port: to.port === 9 ? 9 : port }, request, signal);
          },
        }),
      ),
    },
  );
  await new Promise<void>((ready, failed) => {
    ended = server.service.run(abort.signal, ready);
    ended.catch(failed);
  });
});
afterAll(async () => {
  abort.abort();
  await ended;
  await backend.close();
  for (const one of [behind, behindTls]) {
    one.closeAllConnections();
    await new Promise((resolve) => one.close(resolve));
  }
});

const base = "/api/v1/namespaces/ns";
const common = () => ({
  host: "127.0.0.1",
  port: server.port,
  rejectUnauthorized: false,
  agent: false as const,
  headers: { authorization: "Bearer x", "x-own": "1" } as Record<string, string>,
});

function ask(path: string, method = "GET", body = ""): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest({ ...common(), path: base + path, method }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    request.on("error", reject);
    // Node's client frames bodies of some methods only where it is told their size.
    if (body !== "") request.setHeader("content-length", body.length);
    request.end(body);
  });
}

test.each([
  ["/pods/web/proxy/a/b?c=d%20e", "10.0.0.1:1080", "GET /a/b?c=d%20e "],
  ["/pods/web:81/proxy/", "10.0.0.1:81", "GET / "],
  ["/pods/bare/proxy/x/", "10.0.0.2:80", "GET /x/ "],
  ["/pods/https:web:443/proxy/x", "tls 10.0.0.1:443", "GET /x "],
  ["/services/svc:http/proxy/x", "10.0.0.1:1080", "GET /x "],
  ["/services/http:svc:80/proxy/x", "10.0.0.1:1080", "GET /x "],
])("%s leads to %s", async (path, to, text) => {
  expect(await ask(path)).toMatchObject({ status: 200, text });
  expect(dialled.at(-1)).toBe(to);
});

test.each(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])("%s with a body", async (method) => {
  expect(await ask("/pods/web/proxy/x", method, "hello")).toMatchObject({ status: 200, text: `${method} /x hello` });
});

test("over HTTP/2", async () => {
  const session = connect(`https://127.0.0.1:${server.port}`, { rejectUnauthorized: false });
  const stream = session.request({
    ":path": `${base}/pods/web/proxy/x`,
    ":method": "POST",
    authorization: "Bearer x",
  });
  let text = "";
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  stream.end("hello");
  await new Promise((resolve) => stream.on("end", resolve));
  session.close();
  expect(text).toBe("POST /x hello");
});

test("the client's credentials stay, and the path is told", async () => {
  await ask("/pods/web/proxy/x/");
  expect(seen.at(-1)).toMatchObject({ "x-own": "1", "x-forwarded-uri": `${base}/pods/web/proxy/x/` });
  expect(seen.at(-1)).not.toHaveProperty("authorization");
});

test.each(["GET", "HEAD"])("%s of the path without a slash is led to the one with it", async (method) => {
  expect(await ask("/pods/web/proxy?a=b", method)).toMatchObject({
    status: 301,
    headers: { location: `${base}/pods/web/proxy/?a=b` },
  });
});

test("what is no read goes on without the slash", async () => {
  expect(await ask("/services/svc:http/proxy?a=b", "POST")).toMatchObject({ status: 200, text: "POST /?a=b " });
});

test("links and redirects lead through the proxy; what belongs to the connection stays behind", async () => {
  const page = await ask("/pods/web:80/proxy/page");
  expect(page.text.trim()).toBe(`<a href="${base}/pods/web:80/proxy/rewriteme">test</a>`);
  expect((await ask("/pods/web:80/proxy/packed")).text).toBe(`<img src="${base}/pods/web:80/proxy/x">`);
  const moved = await ask("/services/svc:http/proxy/moved");
  expect(moved).toMatchObject({ status: 302, headers: { location: `${base}/services/svc:http/proxy/there?a=b` } });
  expect(moved.headers).not.toHaveProperty("x-own");
});

test("an answer that breaks off is not taken for whole", async () => {
  await expect(ask("/pods/web/proxy/broken")).rejects.toThrow();
});

test.each([
  ["/pods/a:b:c:d/proxy/x", 400, 'invalid pod request "a:b:c:d"'],
  ["/services/ftp:svc:80/proxy/x", 400, 'invalid service request "ftp:svc:80"'],
  ["/pods/web:http/proxy/x", 400, 'invalid port "http"'],
  ["/pods/evil:22/proxy/x", 400, "address not allowed"],
  ["/pods/early/proxy/x", 503, 'pod "early" has no address'],
  ["/pods/nobody/proxy/x", 404, 'pods "nobody" not found'],
  ["/services/svc:81/proxy/x", 503, 'no service port 81 found for service "svc"'],
  ["/services/svc:forged/proxy/x", 503, 'no endpoints available for service "svc"'],
  ["/services/none/proxy/x", 503, 'no endpoints available for service "none"'],
  ["/pods/web:9/proxy/x", 503, "error trying to reach service: "],
])("%s: %i", async (path, status, message) => {
  const answer = await ask(path);
  expect(answer.status).toBe(status);
  expect((JSON.parse(answer.text) as { message: string }).message).toContain(message);
});

function upgrade(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { ...common(), path: base + path };
    const headers = { ...options.headers, connection: "Upgrade", upgrade: "echo" };
    const request = httpsRequest({ ...options, headers });
    request.on("error", reject);
    request.on("response", (response) => {
      let text = `${response.statusCode} `;
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on("end", () => resolve(text));
    });
    request.on("upgrade", (_response, socket) => {
      socket.on("data", (bytes: Buffer) => {
        resolve(bytes.toString());
        socket.destroy();
      });
      socket.write("hello");
    });
    request.end();
  });
}

test("upgrades pass, and so do refusals", async () => {
  expect(await upgrade("/pods/web/proxy/echo")).toBe("HELLO");
  expect(seen.at(-1)).not.toHaveProperty("authorization");
  expect(await upgrade("/pods/web/proxy/no")).toBe("403 no");
});

test("behind an upgrade that was refused nothing of the client's gets through", async () => {
  const socket = connectTls({ host: "127.0.0.1", port: server.port, rejectUnauthorized: false });
  let text = "";
  socket.on("data", (bytes: Buffer) => {
    text += bytes.toString();
  });
  socket.on("error", () => {});
  const head = `GET ${base}/pods/web/proxy/stays HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n`;
  socket.write(`${head}Connection: Upgrade\r\nUpgrade: echo\r\n\r\nGET /early HTTP/1.1\r\nHost: x\r\n\r\n`);
  while (!text.includes("403")) await systemClock.sleep(5);
  socket.write("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
  await systemClock.sleep(100);
  socket.destroy();
  expect(text).toMatch(/^HTTP\/1\.1 403/);
  expect(smuggled).toEqual([]);
});

test("a client that leaves takes its request behind along", async () => {
  const held = new Promise<boolean>((resolve) => {
    behind.once("request", (_request, response: ServerResponse) => response.on("close", () => resolve(true)));
  });
  const asking = httpsRequest({ ...common(), path: `${base}/pods/web/proxy/slow`, method: "POST" });
  asking.on("error", () => {});
  asking.write("begun");
  setTimeout(() => asking.destroy(), 100);
  expect(await held).toBe(true);
});

test.each([
  [["binary.k8s.io"], ["true ", "true one\n", "true two\n"]],
  [["base64.binary.k8s.io"], ["true ", "false b25lCg==", "false dHdvCg=="]],
  [[], ["true ", "true one\n", "true two\n"]],
])("a log over WebSocket, %j", async (protocols, expected) => {
  const messages: string[] = [];
  const socket = new WebSocket(`wss://127.0.0.1:${server.port}${base}/pods/web/log`, protocols, {
    rejectUnauthorized: false,
    headers: { authorization: "Bearer x" },
  });
  socket.on("message", (data: Buffer, isBinary) => messages.push(`${isBinary} ${data.toString()}`));
  const code = await new Promise<number>((resolve, reject) => {
    socket.on("close", resolve);
    socket.on("error", reject);
  });
  expect([code, ...messages]).toEqual([1000, ...expected]);
});

test.each([
  ["web", { scheme: "http", name: "web", port: "" }],
  ["web:http", { scheme: "http", name: "web", port: "http" }],
  ["https:web:443", { scheme: "https", name: "web", port: "443" }],
  ["https:web:", { scheme: "https", name: "web", port: "" }],
  [":80", undefined],
  ["ftp:web:1", undefined],
  ["a:b:c:d", undefined],
])("name %s", (text, expected) => expect(parseBackendName(text)).toEqual(expected));

test.each([
  ["10.0.0.1", true],
  ["192.168.1.1", true],
  ["fd00::1", true],
  ["127.0.0.1", false],
  ["::ffff:127.0.0.1", false],
  ["169.254.169.254", false],
  ["0.0.0.0", false],
  ["224.0.0.1", false],
  ["::1", false],
  ["fe80::1", false],
])("address %s: %s", (ip, expected) => expect(isProxyable(ip)).toBe(expected));
