// `npm run test:arm`: engine, datastore and codecs under Debian's Node.js for arm64 and armhf through qemu-user-static,
// so that 32-bit surprises come now. Nothing is installed but the emulator: Node and its libraries are unpacked.
import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { type Architecture, architectures } from "#build.config.ts";
import { buildStages } from "#scripts/build/build.ts";
import { sourceFolder } from "#scripts/gen/packages.ts";
import { libraryFolderOf } from "#scripts/image/root.ts";
import { trimIcu } from "#scripts/image/shrink.ts";
import { run } from "#scripts/run-command.ts";
import { main, runStages, type Stage, seconds, UserError } from "#scripts/stages.ts";
import { armRoot } from "./arm-root.ts";

const bundle = "build/arm/self-test.mjs";

type ArmArchitecture = Architecture & { readonly debian: "arm64" | "armhf" };

function emulated(architecture: ArmArchitecture): Stage {
  return {
    name: `self-test on ${architecture.debian}`,
    run: async () => {
      const emulator = `/usr/bin/${architecture.qemuUser}`;
      if (!existsSync(emulator)) {
        if (process.getuid?.() !== 0) throw new UserError(`${emulator} is missing: apt-get install qemu-user-static`);
        await run("apt-get", ["install", "-y", "-q", "--no-install-recommends", "qemu-user-static"]);
      }
      const golden = join(await sourceFolder("golang-k8s-api-dev"), "k8s.io/api/testdata/HEAD");
      const root = await armRoot(architecture.debian);
      const icu = await applianceIcu(root, architecture.debian);
      const environment = ["-E", `LD_LIBRARY_PATH=${icu}`];
      const result = await run(emulator, ["-L", root, ...environment, join(root, "usr/bin/node"), bundle, golden], {
        timeoutMs: 15 * 60_000,
      });
      return result.output.trim().split("\n").at(-1);
    },
  };
}

/** A folder with ICU's data library as images carry it. */
async function applianceIcu(root: string, arch: string): Promise<string> {
  const folder = join("build", "arm", `icu-${arch}`);
  await mkdir(folder, { recursive: true });
  const libraries = await libraryFolderOf(root);
  for (const name of (await readdir(libraries)).filter((n) => /^libicudata\.so\.\d+$/.test(n))) {
    await copyFile(join(libraries, name), join(folder, name));
  }
  await trimIcu(folder);
  return folder;
}

await main(async () => {
  const { values } = parseArgs({ options: { arch: { type: "string" } } });
  const wanted = architectures.filter(
    (a): a is ArmArchitecture => a.debian !== "amd64" && (!values.arch || a.debian === values.arch),
  );
  if (wanted.length === 0) throw new UserError(`--arch ${values.arch}: one of arm64, armhf`);
  const totalMs = await runStages([
    ...buildStages,
    {
      name: "self-test bundle",
      run: async () => {
        await build({
          entryPoints: ["test/arm/self-test.ts"],
          outfile: bundle,
          bundle: true,
          platform: "node",
          format: "esm",
          target: "node20",
          logLevel: "error",
          banner: { js: 'import{createRequire as __cr}from"node:module";const require=__cr(import.meta.url);' },
        });
      },
    },
    ...wanted.map(emulated),
  ]);
  console.log(`${wanted.length} passed, 0 failed in ${seconds(totalMs)}`);
});
