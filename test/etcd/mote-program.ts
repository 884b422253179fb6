// The mote of this source tree as a program to spawn: bundled once for each test process, under a name of its own, so
// that tests that run side by side do not write over what another is starting. Beside the bundles of scripts/run.mjs,
// because shipped files are looked for from there.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { afterAll } from "vitest";

let bundled: Promise<string> | undefined;
afterAll(async () => {
  if (bundled) rmSync(await bundled, { force: true });
});

/** For `node FILE …`. */
export function moteProgram(): Promise<string> {
  bundled ??= bundle();
  return bundled;
}

async function bundle(): Promise<string> {
  const outfile = join(process.cwd(), "build", "scripts", `mote-${process.pid}-${Math.floor(performance.now())}.mjs`);
  await build({
    ...{ entryPoints: ["src/entry/mote.ts"], outfile, bundle: true, platform: "node", format: "esm" },
    ...{ target: "node20", packages: "external", logLevel: "error" },
  });
  return outfile;
}
