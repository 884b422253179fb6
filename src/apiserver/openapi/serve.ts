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

/** Documents that come and go: those of custom resources. */
export interface DynamicOpenApi {
  /** Hash by path under /openapi/v3. */
  hashes(): ReadonlyMap<string, string>;
  read(path: string): Uint8Array | undefined;
  /** The v2 document with what is added to it; undefined: nothing is. */
  v2(form: "v2.json" | "v2.pb", built: () => Uint8Array | undefined): AddedDocument | undefined;
}

export interface AddedDocument {
  readonly hash: string;
  read(): Uint8Array | undefined;
}

export function createOpenApi(assets: OpenApiAssets | undefined, dynamic?: DynamicOpenApi): OpenApi {
  const hashes: ReadonlyMap<string, string> = assets?.hashes ?? new Map();
  const v3 = [...hashes.keys()].flatMap((name) => v3Name.exec(name)?.[1] ?? []).sort();
  const document = (request: HandlerRequest, name: string, contentType: string): Result | undefined => {
    const path = v3Name.exec(name)?.[1];
    const added = path === undefined ? undefined : dynamic?.hashes().get(path);
    const merged = name === "v2.json" || name === "v2.pb" ? dynamic?.v2(name, () => assets?.read(name)) : undefined;
    const hash = merged?.hash ?? hashes.get(name) ?? added;
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
    const body = merged?.read() ?? (hashes.has(name) ? assets?.read(name) : path && dynamic?.read(path));
    return body ? { type: "raw", status: 200, contentType, body, headers } : undefined;
  };
  const index = (): Result => {
    const paths: Record<string, { serverRelativeURL: string }> = {};
    const added = dynamic?.hashes() ?? new Map<string, string>();
    for (const name of [...v3, ...added.keys()].sort()) {
      paths[name] = {
        serverRelativeURL: `/openapi/v3/${name}?hash=${hashes.get(`v3/${name}.json`) ?? added.get(name)}`,
      };
    }
    return { type: "raw", status: 200, contentType: "application/json", body: JSON.stringify({ paths }) };
  };
  return {
    get paths() {
      const names = [...v3, ...(dynamic?.hashes().keys() ?? [])];
      return ["/openapi/v2", "/openapi/v3", ...names.map((name) => `/openapi/v3/${name}`)];
    },
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
