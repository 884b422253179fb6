// The door with real clients of both protocols, and what it makes of requests that are not as they should be.
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { request as httpsRequest } from "node:https";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { requestHead } from "./http2-exchange.ts";
import { type HttpsServer, openHttpsServer, type ServerRequest, type ServerResponse } from "./https-server.ts";

type Handle = (request: ServerRequest, response: ServerResponse) => Promise<void>;

let server: HttpsServer;
let session: ClientHttp2Session;
let handle: Handle;

beforeAll(async () => {
  server = await openHttpsServer(
    { host: "127.0.0.1", port: 0, tls: localhostTls, log: silentLogger },
    { request: (request, response) => handle(request, response), upgrade: async ({ socket }) => void socket.destroy() },
  );
  session = connect(`https://127.0.0.1:${server.port}`, { rejectUnauthorized: false });
});
afterAll(async () => {
  session.close();
  await server.close(100);
});

const echo: Handle = async (request, response) => {
  const parts: Uint8Array[] = [];
  for await (const part of request.body) parts.push(part);
  response.head(201, { "content-type": "text/plain", "X-Method": request.method, connection: "close" });
  response.end(Buffer.concat(parts));
};

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
}

function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let headers: Record<string, unknown> = {};
    const parts: Buffer[] = [];
    stream.on("response", (got) => {
      headers = got;
    });
    stream.on("data", (part: Buffer) => parts.push(part));
    stream.on("end", () => resolve({ status: Number(headers[":status"]), headers, body: Buffer.concat(parts) }));
    stream.on("error", reject);
  });
}

function h2(method: string, body?: Buffer, more: Record<string, string> = {}): Promise<Answer> {
  const stream = session.request({ ":method": method, ":path": "/x?y=1", ...more }, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  return answerOf(stream);
}

function h1(method: string, body?: Buffer): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port: server.port, path: "/x?y=1", method, rejectUnauthorized: false };
    const asked = httpsRequest(options, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      answer.on("end", () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(parts) }),
      );
      answer.on("error", reject);
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

describe.each([
  ["HTTP/1.1", h1],
  ["HTTP/2", h2],
] as const)("over %s", (_name, ask) => {
  test.each([0, 1, 16_384, 1_000_000, 5_000_000])("a body of %d bytes goes and comes back", async (size) => {
    handle = echo;
    const body = Buffer.alloc(size, size % 251);
    const answer = await ask("POST", body);
    expect(answer.status).toBe(201);
    expect(answer.headers).toMatchObject({ "content-type": "text/plain", "x-method": "POST" });
    expect(answer.headers["date"]).toBeTruthy();
    expect(answer.body.equals(body)).toBe(true);
  });

  test("an answer of many megabytes is written as it is taken", async () => {
    let most = 0;
    handle = async (_request, response) => {
      response.head(200, {});
      for (let i = 0; i < 200; i++) {
        if (!response.write(Buffer.alloc(100_000, i))) await response.drained();
        most = Math.max(most, response.pendingBytes);
      }
      response.end("end");
    };
    const { body } = await ask("GET");
    expect(body.length).toBe(20_000_003);
    for (let i = 0; i < 200; i++) expect(body[i * 100_000 + 99_999]).toBe(i);
    expect(most).toBeLessThan(1_000_000);
  });

  test("without a body", async () => {
    handle = async (_request, response) => {
      response.head(204, {});
      response.end();
    };
    expect(await ask("DELETE")).toMatchObject({ status: 204, body: Buffer.alloc(0) });
  });

  test("an answer that is cut is no complete one", async () => {
    handle = async (_request, response) => {
      response.head(200, {});
      response.write("half");
      await new Promise((resolve) => setTimeout(resolve, 20));
      response.destroy();
    };
    await expect(ask("GET")).rejects.toThrow();
  });
});

describe("HTTP/2", () => {
  test("a client that goes is noticed", async () => {
    const aborted = new Promise<unknown>((resolve) => {
      handle = async ({ signal }, response) => {
        response.head(200, {});
        response.flushHead();
        signal.addEventListener("abort", () => resolve(signal.reason));
      };
    });
    const stream = session.request({ ":path": "/" });
    stream.on("response", () => stream.close());
    expect(await aborted).toMatchObject({ code: "HTTPS_GONE" });
  });

  test("a body that is shorter or longer than it says is reset, and the handler's reading fails", async () => {
    for (const length of ["3", "5"]) {
      const read = new Promise<unknown>((resolve) => {
        handle = async (request, response) => {
          await echo(request, response).catch(resolve);
        };
      });
      await expect(h2("POST", Buffer.from("four"), { "content-length": length })).rejects.toThrow(/PROTOCOL_ERROR/);
      expect(await read).toMatchObject({ code: "HTTPS_GONE" });
    }
    handle = echo;
    expect((await h2("POST", Buffer.from("four"), { "content-length": "4" })).status).toBe(201);
  });

  test("a header that would be two answers nothing", async () => {
    handle = async (_request, response) => {
      response.head(200, { "x-a": "b\r\nx-c: d" });
      response.end();
    };
    await expect(h2("GET")).rejects.toThrow();
  });
});

const head = [":method", "GET", ":path", "/"];
test("nothing is handed out to resume a connection with, after certificates were renewed neither", async () => {
  const ticket = () =>
    new Promise<Buffer | undefined>((resolve, reject) => {
      const options = {
        host: "127.0.0.1",
        port: server.port,
        rejectUnauthorized: false,
        maxVersion: "TLSv1.2",
      } as const;
      const socket = connectTls(options, () => {
        resolve(socket.getTLSTicket());
        socket.destroy();
      });
      socket.once("error", reject);
    });
  expect(await ticket()).toBeUndefined();
  server.setTls(localhostTls);
  expect(await ticket()).toBeUndefined();
});

test.each<[string, readonly string[], object | undefined]>([
  ["plain", [...head, "accept", "a"], { method: "GET", target: "/", contentLength: undefined }],
  ["repeated", [...head, "accept", "a", "accept", "b"], { headers: { accept: "a, b" } }],
  ["cookies", [...head, "cookie", "a", "cookie", "b"], { headers: { cookie: "a; b" } }],
  ["the first of one", [...head, "authorization", "a", "authorization", "b"], { headers: { authorization: "a" } }],
  ["a length", [...head, "content-length", "12"], { contentLength: 12 }],
  ["__proto__", [...head, "__proto__", "x"], { method: "GET" }],
  ["no path", [":method", "GET"], undefined],
  ["no method", [":path", "/"], undefined],
  ["two paths", [...head, ":path", "/b"], undefined],
  ["pseudo behind others", [":method", "GET", "accept", "a", ":path", "/"], undefined],
  ["an unknown pseudo header", [...head, ":status", "200"], undefined],
  ["a connection header", [...head, "transfer-encoding", "chunked"], undefined],
  ["te", [...head, "te", "gzip"], undefined],
  ["te of trailers", [...head, "te", "trailers"], { method: "GET" }],
  ["two lengths", [...head, "content-length", "1", "content-length", "2"], undefined],
  ["a length that is none", [...head, "content-length", "+1"], undefined],
])("the head of a request: %s", (_what, list, expected) => {
  const found = requestHead(list);
  if (expected === undefined) expect(found).toBeUndefined();
  else expect(JSON.parse(JSON.stringify(found))).toMatchObject(JSON.parse(JSON.stringify(expected)) as object);
});
