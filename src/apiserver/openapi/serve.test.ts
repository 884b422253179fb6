import { expect, test } from "vitest";
import { loopback } from "../authn/user.ts";
import type { HandlerRequest } from "../endpoints/result.ts";
import { createOpenApi } from "./serve.ts";

const openapi = createOpenApi({
  hashes: new Map([
    ["v2.json", "AA"],
    ["v2.pb", "BB"],
    ["v3/api/v1.json", "CC"],
  ]),
  read: (name) => new TextEncoder().encode(name),
});
const get = (target: string, headers: Record<string, string> = {}) => {
  const [path = "", query = ""] = target.split("?");
  const request: HandlerRequest = {
    method: "GET",
    path,
    query: new URLSearchParams(query),
    header: (name) => headers[name],
    user: loopback,
    signal: new AbortController().signal,
    body: async () => new Uint8Array(),
    warn() {},
  };
  const result = openapi.answer(request, path);
  if (result?.type !== "raw") return result;
  return { ...result, body: typeof result.body === "string" ? result.body : new TextDecoder().decode(result.body) };
};

test("the index names each document with its hash", () => {
  expect(JSON.parse(String((get("/openapi/v3") as { body: string }).body))).toEqual({
    paths: { "api/v1": { serverRelativeURL: "/openapi/v3/api/v1?hash=CC" } },
  });
});

test.each([
  ["/openapi/v2", {}, 200, "v2.json"],
  ["/openapi/v2", { accept: "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" }, 200, "v2.pb"],
  ["/openapi/v3/api/v1?hash=CC", {}, 200, "v3/api/v1.json"],
  ["/openapi/v3/api/v1", { "if-none-match": '"CC"' }, 304, ""],
] as const)("%s %o", (target, headers, status, body) => {
  expect(get(target, headers)).toMatchObject({ status, body });
});

test("only a pinned document may be kept for good", () => {
  expect(get("/openapi/v3/api/v1?hash=CC")).toMatchObject({ headers: { "cache-control": "public, immutable" } });
  expect(get("/openapi/v3/api/v1?hash=DD")).toMatchObject({ headers: { "cache-control": "no-cache, private" } });
});

test("other documents are not there, other formats are refused", () => {
  expect(get("/openapi/v3/../../etc/passwd")).toBeUndefined();
  expect(get("/openapi/v3/apis/nope/v1")).toBeUndefined();
  expect(() => get("/openapi/v3/api/v1", { accept: "text/html" })).toThrow(/media types/);
});
