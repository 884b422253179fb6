// Serves the OpenAPI documents that the build joined from the facts table: /openapi/v2 (JSON, and the protobuf that
// kubectl falls back to), /openapi/v3 and its documents by group version, each with a hash that lets clients keep it.
import { notAcceptable } from "#model/status.ts";
import { parseAccept } from "../endpoints/negotiation.ts";
import type { HandlerRequest, Result } from "../endpoints/result.ts";

export interface OpenApiAssets {
  /** By document: `v2.json`, `v2.pb`, `v3/api/v1.json`, `v3/apis/apps/v1.json`, … */
  readonly hashes: ReadonlyMap<string, string>;
  /** Only names of `hashes` are asked for. */
  read(name: string): Uint8Array | undefined;
}

export interface OpenApi {
  /** Undefined: not a path of OpenAPI. */
  answer(request: HandlerRequest, path: string): Result | undefined;
  readonly paths: readonly string[];
}

const protobufType = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/** What is answered: a media type may not contain `@`, and clients parse it. */
const protobufContentType = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const protobufV3Type = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
const v3Name = /^v3\/(.+)\.json$/;

export function createOpenApi(assets: OpenApiAssets | undefined): OpenApi {
  const hashes: ReadonlyMap<string, string> = assets?.hashes ?? new Map();
  const v3 = [...hashes.keys()].flatMap((name) => v3Name.exec(name)?.[1] ?? []).sort();
  const document = (request: HandlerRequest, name: string, contentType: string): Result | undefined => {
    const hash = hashes.get(name);
    if (hash === undefined) return undefined;
    const etag = `"${hash}"`;
    const isPinned = request.query.get("hash") === hash;
    const headers = {
      etag,
      vary: "Accept",
      "cache-control": isPinned ? "public, immutable" : "no-cache, private",
      ...(isPinned ? { expires: "Fri, 31 Dec 2100 00:00:00 GMT" } : {}),
    };
    if (request.header("if-none-match") === etag) return { type: "raw", status: 304, contentType, body: "", headers };
    const body = assets?.read(name);
    return body && { type: "raw", status: 200, contentType, body, headers };
  };
  const index = (): Result => {
    const paths: Record<string, { serverRelativeURL: string }> = {};
    for (const name of v3) {
      paths[name] = { serverRelativeURL: `/openapi/v3/${name}?hash=${hashes.get(`v3/${name}.json`)}` };
    }
    return { type: "raw", status: 200, contentType: "application/json", body: JSON.stringify({ paths }) };
  };
  return {
    paths: ["/openapi/v2", "/openapi/v3", ...v3.map((name) => `/openapi/v3/${name}`)],
    answer(request, path) {
      if (path === "/openapi/v3") return index();
      if (path === "/openapi/v2") {
        for (const { type } of parseAccept(request.header("accept") ?? "*/*")) {
          if (type === protobufType) return document(request, "v2.pb", protobufContentType);
          if (type === "application/json" || type === "*/*") return document(request, "v2.json", "application/json");
        }
        throw notAcceptable(`only the following media types are accepted: application/json, ${protobufType}`);
      }
      if (!path.startsWith("/openapi/v3/")) return undefined;
      const accepted = parseAccept(request.header("accept") ?? "*/*");
      if (!accepted.some(({ type }) => ["application/json", "*/*", "application/*"].includes(type))) {
        throw notAcceptable(`only the following media types are accepted: application/json, ${protobufV3Type}`);
      }
      return document(request, `v3/${path.slice("/openapi/v3/".length)}.json`, "application/json");
    },
  };
}
