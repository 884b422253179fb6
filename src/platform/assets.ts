// Files that ship beside the program: WASM modules, OpenAPI documents, images. In the bundle they lie next to it (the
// `dist` folder); in a source checkout they are taken from build/dist, which `npm run build` makes.
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** The folder of shipped files. */
export function assetFolder(): string {
  if (existsSync(join(here, "engine.wasm"))) return here;
  return join(here, "..", "..", "build", "dist");
}

/** Bytes of a shipped file, e.g. "engine.wasm". Throws ENOENT when the build has not been run. */
export function readAsset(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(join(assetFolder(), name)));
}
