// The OpenAPI documents as files beside the program (scripts/build/openapi.ts makes them and their index). They are
// read when asked for and not kept: megabytes that most servers are asked for once a day.
import { gunzipSync } from "node:zlib";
import { hasCode } from "#base/errors.ts";
import { readAsset } from "#platform/assets.ts";
import type { OpenApiAssets } from "./serve.ts";

type Index = Readonly<Record<string, { readonly sha512: string }>>;

/** Without a build there are none: kubectl then refuses to validate, and `--validate=false` helps. */
export function openApiAssets(): OpenApiAssets {
  const bytes = readIfThere("index.json");
  const index = bytes ? (JSON.parse(new TextDecoder().decode(bytes)) as Index) : {};
  return {
    hashes: new Map(Object.entries(index).map(([name, { sha512 }]) => [name, sha512])),
    read(name) {
      const packed = readIfThere(`${name}.gz`);
      return packed && gunzipSync(packed);
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
