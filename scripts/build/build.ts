// `npm run build`: WASM modules, OpenAPI documents, images and the bundle, into build/dist. What is newer than its
// sources is left alone.
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { architectures } from "#build.config.ts";
import { main, runStages, type Stage, seconds } from "#scripts/stages.ts";
import { buildBundle, distFolder } from "./bundle.ts";
import { buildImages } from "./images.ts";
import { buildOpenapi } from "./openapi.ts";
import { buildWasm } from "./wasm.ts";

const hostArchitecture = architectures.find((a) => a.node === process.arch) ?? architectures[0]!;

/** True when `output` exists and nothing under `sources` is newer. */
export function isCurrent(output: string, sources: readonly string[]): boolean {
  if (!existsSync(output)) return false;
  const builtMs = statSync(output).mtimeMs;
  const newest = (path: string): number => {
    const stat = statSync(path);
    if (!stat.isDirectory()) return stat.mtimeMs;
    return readdirSync(path).reduce((max, name) => Math.max(max, newest(join(path, name))), 0);
  };
  return sources.every((source) => newest(source) <= builtMs);
}

function unlessCurrent(name: string, output: string, sources: readonly string[], make: () => unknown): Stage {
  return {
    name,
    run: async () => {
      if (isCurrent(join(distFolder, output), sources)) return "up to date";
      const said = await make();
      return typeof said === "string" ? said : undefined;
    },
  };
}

export const buildStages: readonly Stage[] = [
  unlessCurrent("WASM modules", "engine.wasm", ["assembly", "scripts/build/wasm.ts", "package-lock.json"], () =>
    buildWasm(),
  ),
  unlessCurrent(
    "OpenAPI documents",
    "openapi/index.json",
    ["src/model/gen", "src/model/openapi.ts", "src/model/resources.ts", "scripts/build/openapi.ts"],
    buildOpenapi,
  ),
  unlessCurrent(
    "images",
    `images/web-${hostArchitecture.oci}.tar`,
    ["scripts/build/images.ts", "scripts/build/images.lock.json", "scripts/build/oci"],
    buildImages,
  ),
  // Always: it names the commit, which no file's time tells, and takes a moment.
  { name: "bundle", run: buildBundle },
];

if (process.argv[1]?.includes("scripts__build__build")) {
  await main(async () => console.log(`built ${distFolder} in ${seconds(await runStages(buildStages))}`));
}
