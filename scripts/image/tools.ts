// Programs that make images, from locked Debian packages, run through their own dynamic loader: their output becomes part
// of the image, so it must not depend on what the host happens to have installed.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fetchDebianPackages } from "#scripts/debian.ts";
import { type RunResult, run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";
import { debianOptions, readToolsLock, toolsArch } from "./lock.ts";
import { imageFolder } from "./target.ts";

export interface Tools {
  run(program: string, args: readonly string[], env?: Readonly<Record<string, string>>): Promise<RunResult>;
  /** Standard input to standard output, e.g. a decompressor. */
  filter(program: string, args: readonly string[], input: Uint8Array): Promise<Buffer>;
}

export async function prepareTools(): Promise<Tools> {
  if (process.arch !== "x64") throw new UserError("images are built on x86_64; the locked host tools are for it");
  const packages = await readToolsLock();
  const key = createHash("sha256").update(JSON.stringify(packages)).digest("hex").slice(0, 16);
  const folder = join(imageFolder, "tools", key);
  if (!existsSync(folder)) {
    const files = await fetchDebianPackages(packages, toolsArch, debianOptions);
    await mkdir(join(imageFolder, "tools"), { recursive: true });
    const temporary = await mkdtemp(`${folder}.tmp-`);
    for (const file of files) await run("dpkg-deb", ["-x", file, temporary]);
    await rename(temporary, folder).catch(async (error: unknown) => {
      await rm(temporary, { recursive: true, force: true });
      // Another build may have finished the same work first; its result is as good.
      if (!existsSync(folder)) throw error;
    });
  }
  const libraries = join(folder, "usr/lib/x86_64-linux-gnu");
  const command = (program: string, args: readonly string[]): string[] => {
    const path = ["usr/bin", "usr/sbin"].map((place) => join(folder, place, program)).find(existsSync);
    if (!path) throw new Error(`rootfs/tools.lock.json brings no ${program}`);
    return ["--library-path", libraries, path, ...args];
  };
  const loader = join(libraries, "ld-linux-x86-64.so.2");
  return {
    run: (program, args, env) => run(loader, command(program, args), env ? { env } : {}),
    filter: (program, args, input) =>
      new Promise((resolve, reject) => {
        const child = spawn(loader, command(program, args), { stdio: ["pipe", "pipe", "inherit"] });
        const chunks: Buffer[] = [];
        child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
        child.on("error", reject);
        child.stdin.on("error", reject);
        child.on("close", (code) => {
          if (code === 0) resolve(Buffer.concat(chunks));
          else reject(new Error(`${program} ended with exit ${code}`));
        });
        child.stdin.end(input);
      }),
  };
}
