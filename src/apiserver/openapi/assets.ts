// The OpenAPI documents as files beside the program (scripts/build/openapi.ts makes them and their index). They are
// read when asked for and not kept: megabytes that most servers are asked for once a day. Those of APIs that are off by
// default are there under names of their own, and are shown where their API is on.
import { gunzipSync } from "node:zlib";
import { hasCode } from "#base/errors.ts";
import { readAsset } from "#platform/assets.ts";
import { addToV2, hashOf, isV2Form, type V2Addition } from "./addition.ts";
import type { OpenApiAssets } from "./serve.ts";

type Index = Readonly<Record<string, { readonly sha512: string }>>;

const optionalFolder = "optional/";

/** Without a build there are none: kubectl then refuses to validate, and `--validate=false` helps. */
export function openApiAssets(optionalApis: readonly string[] = []): OpenApiAssets {
  const bytes = readIfThere("index.json");
  const index = bytes ? (JSON.parse(new TextDecoder().decode(bytes)) as Index) : {};
  const all: OpenApiAssets = {
    hashes: new Map(Object.entries(index).map(([name, { sha512 }]) => [name, sha512])),
    read(name) {
      const packed = readIfThere(`${name}.gz`);
      return packed && gunzipSync(packed);
    },
  };
  return withOptional(all, optionalApis);
}

/** `all` of the build, as a server shows it that has these APIs on. Exported for its test. */
export function withOptional(all: OpenApiAssets, optionalApis: readonly string[]): OpenApiAssets {
  const hashes = new Map([...all.hashes].filter(([name]) => !name.startsWith(optionalFolder)));
  /** Names in the build, by those they are shown under. */
  const documents = new Map<string, string>();
  const additions: string[] = [];
  for (const api of optionalApis) {
    const document = `${optionalFolder}${api}/v3.json`;
    const hash = all.hashes.get(document);
    if (hash !== undefined) {
      hashes.set(`v3/apis/${api}.json`, hash);
      documents.set(`v3/apis/${api}.json`, document);
    }
    const addition = `${optionalFolder}${api}/v2.json`;
    if (all.hashes.has(addition)) additions.push(addition);
  }
  for (const [name, hash] of hashes) {
    if (!isV2Form(name) || additions.length === 0) continue;
    hashes.set(name, hashOf([hash, ...additions.map((addition) => all.hashes.get(addition))].join("\n")));
  }
  return {
    hashes,
    read(name) {
      const document = all.read(documents.get(name) ?? name);
      if (!document || !isV2Form(name)) return document;
      return additions.reduce((sum, addition) => {
        const bytes = all.read(addition);
        return bytes ? addToV2(name, sum, JSON.parse(new TextDecoder().decode(bytes)) as V2Addition) : sum;
      }, document);
    },
  };
}

function readIfThere(name: string): Uint8Array | undefined {
  try {
    return readAsset(`openapi/${name}`);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}
