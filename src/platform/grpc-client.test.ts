import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Http2Server, type ServerHttp2Stream } from "node:http2";
import { createServer as createSocketServer, type Socket } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { encodeFrame } from "#wire/grpc.ts";
import { createGrpcClient, type GrpcClient, NotConnectedError } from "./grpc-client.ts";

let folder: string;
let server: Http2Server;
let client: GrpcClient;
let sessions: { destroy(): void }[];
let answer: (stream: ServerHttp2Stream, headers: Record<string, unknown>) => void;

const ok = (
  stream: ServerHttp2Stream,
  messages: number[][],
  trailers: Record<string, string> = { "grpc-status": "0" },
) => {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  for (const message of messages) stream.write(encodeFrame(Uint8Array.from(message)));
  stream.end();
};

beforeEach(async () => {
  folder = mkdtempSync("/tmp/mote-grpc-");
  sessions = [];
  server = createServer();
  server.on("session", (session) => sessions.push(session));
  server.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    answer(stream, headers);
  });
  await new Promise<void>((resolve) => server.listen(`${folder}/s`, resolve));
  client = createGrpcClient({ target: { socketPath: `${folder}/s` }, headers: { "x-extra": "1" } });
});
afterEach(async () => {
  client.close();
  for (const session of sessions) session.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

test("a unary call sends headers and message and gets the answer", async () => {
  let seen: Record<string, unknown> = {};
  answer = (stream, headers) => {
    seen = headers;
    const parts: Buffer[] = [];
    stream.on("data", (part: Buffer) => parts.push(part));
    stream.on("end", () => ok(stream, [[...Buffer.concat(parts).subarray(5), 9]]));
  };
  expect([...(await client.unary("/a.B/C", Uint8Array.from([1, 2]), { timeoutMs: 20_000 }))]).toEqual([1, 2, 9]);
  expect(seen).toMatchObject({ ":path": "/a.B/C", te: "trailers", "grpc-timeout": "20000m", "x-extra": "1" });
});
test("an error in trailers, or in headers alone, is the call's error", async () => {
  answer = (stream) => ok(stream, [], { "grpc-status": "5", "grpc-message": "gone" });
  await expect(client.unary("/x", new Uint8Array(), { timeoutMs: 20_000 })).rejects.toMatchObject({
    code: "NOT_FOUND",
  });
  answer = (stream) => stream.respond({ ":status": 200, "grpc-status": "12" }, { endStream: true });
  await expect(client.unary("/x", new Uint8Array(), { timeoutMs: 20_000 })).rejects.toMatchObject({
    code: "UNIMPLEMENTED",
  });
});
test("a server that does not answer runs into the deadline", async () => {
  answer = () => {};
  await expect(client.unary("/x", new Uint8Array(), { timeoutMs: 10 })).rejects.toMatchObject({
    code: "DEADLINE_EXCEEDED",
  });
});
test("a stream that was aborted while it was being opened ends", async () => {
  answer = () => {};
  const abort = new AbortController();
  const messages = client.serverStream("/x/y", new Uint8Array(), abort.signal);
  const first = messages[Symbol.asyncIterator]().next();
  abort.abort(new Error("enough"));
  await expect(first).rejects.toThrow();
});

test("an aborted call ends with the signal's reason", async () => {
  answer = () => abort.abort(reason);
  const abort = new AbortController();
  const reason = new Error("enough");
  await expect(client.unary("/x", new Uint8Array(), { timeoutMs: 5000, signal: abort.signal })).rejects.toBe(reason);
});
test("a broken connection fails the call and the next one connects anew", async () => {
  answer = (stream) => stream.session?.destroy();
  await expect(client.unary("/x", new Uint8Array(), { timeoutMs: 20_000 })).rejects.toMatchObject({
    code: "UNAVAILABLE",
  });
  answer = (stream) => ok(stream, [[1]]);
  expect([...(await client.unary("/x", new Uint8Array(), { timeoutMs: 20_000 }))]).toEqual([1]);
});
test("a stream gives its messages and then its status", async () => {
  answer = (stream) => ok(stream, [[1], [2]], { "grpc-status": "14", "grpc-message": "bye" });
  const got: number[] = [];
  const read = async () => {
    for await (const message of client.serverStream("/x", new Uint8Array(), new AbortController().signal))
      got.push(message[0]!);
  };
  await expect(read()).rejects.toMatchObject({ code: "UNAVAILABLE", message: "bye" });
  expect(got).toEqual([1, 2]);
});
test("no server is one clear error", async () => {
  const nobody = createGrpcClient({ target: { socketPath: `${folder}/none` } });
  await expect(nobody.unary("/x", new Uint8Array(), { timeoutMs: 20_000 })).rejects.toMatchObject({
    code: "UNAVAILABLE",
  });
  await expect(nobody.unary("/x", new Uint8Array(), { timeoutMs: 20_000 })).rejects.toBeInstanceOf(NotConnectedError);
});
test.each([
  ["ends the calls of a server that has fallen silent", { intervalMs: 30, timeoutMs: 30 }, 20_000, "UNAVAILABLE"],
  ["is not there unless asked for", undefined, 200, "DEADLINE_EXCEEDED"],
])("keepalive %s", async (_name, keepalive, timeoutMs, code) => {
  // Takes the connection and says nothing, as a machine whose power has gone.
  const sockets = new Set<Socket>();
  const silent = createSocketServer((socket) => sockets.add(socket.on("error", () => {})));
  await new Promise<void>((resolve) => silent.listen(`${folder}/silent`, resolve));
  const watcher = createGrpcClient({ target: { socketPath: `${folder}/silent` }, ...(keepalive ? { keepalive } : {}) });
  await expect(watcher.unary("/x", new Uint8Array(), { timeoutMs })).rejects.toMatchObject({ code });
  watcher.close();
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => silent.close(resolve));
});
test("a connection that comes after the client was closed is given up", async () => {
  answer = (stream) => ok(stream, [[1]]);
  const late = createGrpcClient({ target: { socketPath: `${folder}/s` } });
  const call = late.unary("/x", new Uint8Array(), { timeoutMs: 20_000 });
  late.close();
  await expect(call).rejects.toBeInstanceOf(NotConnectedError);
  // What is asked of it later connects anew.
  expect([...(await late.unary("/x", new Uint8Array(), { timeoutMs: 20_000 }))]).toEqual([1]);
  late.close();
});
