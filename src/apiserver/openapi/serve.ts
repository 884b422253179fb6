// Serves the OpenAPI documents that the build joined from the facts table: /openapi/v2 (JSON and the protobuf that old
// kubectl asks for), /openapi/v3 and its documents by group version, each with a hash that lets clients keep it.
import { createHash } from "node:crypto";
import { notAcceptable } from "#model/status.ts";
import { parseAccept } from "../endpoints/negotiation.ts";
import type { HandlerRequest, Result } from "../endpoints/result.ts";

export interface OpenApiAssets {
  /** Bytes of a document, or undefined: `v2.json`, `v2.pb`, `v3/<group version with slashes>.json`. */
  read(name: string): Uint8Array | undefined;
  /** Paths of the v3 documents: `api/v1`, `apis/apps/v1`, … */
  readonly v3: readonly string[];
}

export interface OpenApi {
  /** Undefined: not a path of OpenAPI. */
  answer(request: HandlerRequest, path: string): Result | undefined;
}

const protobufType = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const protobufV3Type = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

export function createOpenApi(assets: OpenApiAssets | undefined): OpenApi {
  // Hashes are made when first asked for: the documents are megabytes and most servers are never asked.
  const hashes = new Map<string, string>();
  const hashOf = (name: string, bytes: Uint8Array): string => {
    let hash = hashes.get(name);
    if (hash === undefined) {
      hash = createHash("sha512").update(bytes).digest("hex").toUpperCase();
      hashes.set(name, hash);
    }
    return hash;
  };
  const document = (request: HandlerRequest, name: string, contentType: string): Result | undefined => {
    const bytes = assets?.read(name);
    if (!bytes) return undefined;
    const hash = hashOf(name, bytes);
    const etag = `"${hash}"`;
    const immutable = request.query.get("hash") === hash;
    const headers = {
      etag,
      vary: "Accept",
      "cache-control": immutable ? "public, immutable" : "no-cache, private",
      ...(immutable ? { expires: "Fri, 31 Dec 2100 00:00:00 GMT" } : {}),
    };
    if (request.header("if-none-match") === etag) return { type: "raw", status: 304, contentType, body: "", headers };
    return { type: "raw", status: 200, contentType, body: bytes, headers };
  };
  return {
    answer(request, path) {
      if (path === "/openapi/v2") {
        for (const { type } of parseAccept(request.header("accept") ?? "*/*")) {
          if (type === protobufType) {
            const answer = document(request, "v2.pb", protobufType);
            if (answer) return answer;
          }
          if (type === "application/json" || type === "*/*") return document(request, "v2.json", "application/json");
        }
        throw notAcceptable(`only the following media types are accepted: application/json, ${protobufType}`);
      }
      if (path === "/openapi/v3") {
        const paths: Record<string, { serverRelativeURL: string }> = {};
        for (const name of assets?.v3 ?? []) {
          const bytes = assets?.read(`v3/${name}.json`);
          if (bytes)
            paths[name] = { serverRelativeURL: `/openapi/v3/${name}?hash=${hashOf(`v3/${name}.json`, bytes)}` };
        }
        return { type: "raw", status: 200, contentType: "application/json", body: JSON.stringify({ paths }) };
      }
      if (!path.startsWith("/openapi/v3/")) return undefined;
      const name = path.slice("/openapi/v3/".length);
      if (!assets?.v3.includes(name)) return undefined;
      const accepted = parseAccept(request.header("accept") ?? "*/*").map(({ type }) => type);
      const readable = ["application/json", "*/*", "application/*"];
      if (!accepted.some((type) => readable.includes(type))) {
        throw notAcceptable(`only the following media types are accepted: application/json, ${protobufV3Type}`);
      }
      return document(request, `v3/${name}.json`, "application/json");
    },
  };
}
