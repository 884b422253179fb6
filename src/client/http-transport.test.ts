import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { HttpClient, HttpRequest } from "#platform/http-client.ts";
import { createHttpTransport, linesOf } from "./http-transport.ts";

async function* bytes(...parts: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) yield Buffer.from(part, "latin1");
}
const latin1 = (text: string) => Buffer.from(text, "utf8").toString("latin1");

function transport(status: number, ...parts: readonly string[]) {
  const sent: HttpRequest[] = [];
  let destroyed = 0;
  const http: HttpClient = {
    async send(request) {
      sent.push(request);
      return { status, headers: {}, body: bytes(...parts), destroy: () => void destroyed++ };
    },
    close() {},
  };
  const made = createHttpTransport({ token: async () => "t0ken", userAgent: "test" }, { http });
  return { made, sent, destroyed: () => destroyed };
}

describe("lines", () => {
  test.each<[string, readonly string[], readonly string[]]>([
    ["one per chunk", ["a\n", "b\n"], ["a", "b"]],
    ["many in one chunk", ["a\nb\nc\n"], ["a", "b", "c"]],
    ["cut anywhere", ["ab", "c\nd", "", "ef\n"], ["abc", "def"]],
    ["a character cut in two", [latin1("ä").slice(0, 1), `${latin1("ä").slice(1)}\n`], ["ä"]],
    ["empty lines and an unfinished last one are dropped", ["\n\na\n\nhalf"], ["a"]],
  ])("%s", async (_, chunks, expected) => {
    const got: string[] = [];
    for await (const line of linesOf(bytes(...chunks))) got.push(line);
    expect(got).toEqual(expected);
  });
  test("a line without end is refused", async () => {
    async function* endless() {
      for (;;) yield new Uint8Array(1024 * 1024).fill(97);
    }
    const read = async () => {
      for await (const _ of linesOf(endless())) break;
    };
    await expect(read()).rejects.toMatchObject({ code: "CLIENT_EVENT_TOO_LARGE" });
  });
});

describe("requests", () => {
  test("carry path, query, token and body", async () => {
    const t = transport(200, '{"metadata":{}}');
    const body = { metadata: { name: "x" } };
    await t.made.request({ method: "POST", path: "/api/v1/pods", query: { dryRun: "All", none: undefined }, body });
    expect(t.sent[0]).toMatchObject({
      method: "POST",
      path: "/api/v1/pods?dryRun=All",
      headers: { authorization: "Bearer t0ken", "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify(body),
    });
  });
  test("what comes compressed is unpacked; watches are not asked for compressed", async () => {
    const sent: HttpRequest[] = [];
    const object = { metadata: { name: "large" }, data: { text: "x".repeat(300_000) } };
    const http: HttpClient = {
      async send(request) {
        sent.push(request);
        const whole = gzipSync(JSON.stringify(object));
        const body = Readable.from([whole.subarray(0, 100), whole.subarray(100)]);
        return { status: 200, headers: { "content-encoding": "gzip" }, body, destroy() {} };
      },
      close() {},
    };
    const made = createHttpTransport({ userAgent: "test" }, { http });
    expect(await made.request({ method: "GET", path: "/x" })).toEqual(object);
    expect(sent[0]?.headers).toMatchObject({ "accept-encoding": "gzip" });
    const watch = transport(200, "");
    for await (const _ of watch.made.watch({ method: "GET", path: "/w" }, new AbortController().signal)) break;
    expect(watch.sent[0]?.headers).not.toHaveProperty("accept-encoding");
  });
  test("a Status becomes an ApiError", async () => {
    const status = {
      kind: "Status",
      metadata: {},
      status: "Failure",
      reason: "NotFound",
      message: 'pods "x" not found',
    };
    const t = transport(404, JSON.stringify(status));
    await expect(t.made.request({ method: "GET", path: "/x" })).rejects.toMatchObject({
      code: 404,
      reason: "NotFound",
      message: 'pods "x" not found',
    });
  });
  test("what is no Status becomes one of its code", async () => {
    const t = transport(503, "<html>down</html>");
    await expect(t.made.request({ method: "GET", path: "/x" })).rejects.toMatchObject({
      code: 503,
      reason: "ServiceUnavailable",
    });
  });
});

describe("watches", () => {
  test("hand out events and close the connection when left", async () => {
    const t = transport(
      200,
      '{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n{"type":"BOOK',
      'MARK","object":{"metadata":{}}}\n',
    );
    const seen: string[] = [];
    for await (const event of t.made.watch({ method: "GET", path: "/w" }, new AbortController().signal)) {
      seen.push(event.type);
      if (event.type === "BOOKMARK") break;
    }
    expect(seen).toEqual(["ADDED", "BOOKMARK"]);
    expect(t.destroyed()).toBe(1);
  });
  test("a refused one rejects", async () => {
    const t = transport(410, JSON.stringify({ kind: "Status", metadata: {}, reason: "Expired", message: "too old" }));
    const read = async () => {
      for await (const _ of t.made.watch({ method: "GET", path: "/w" }, new AbortController().signal)) break;
    };
    await expect(read()).rejects.toMatchObject({ code: 410, reason: "Expired" });
  });
});
