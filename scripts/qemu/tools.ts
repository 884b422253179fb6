// Host programs that the emulated devices need: installed when we may, named when not.
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";
import type { Flow } from "./machines.ts";

const always: readonly { readonly program: string; readonly package: string }[] = [
  { program: "mcopy", package: "mtools" },
  { program: "zstd", package: "zstd" },
  { program: "e2fsck", package: "e2fsprogs" },
];

/** Packages that are missing for these flows. */
export function missingPackages(flows: readonly Flow[]): string[] {
  const missing = always.filter((tool) => !onPath(tool.program)).map((tool) => tool.package);
  for (const flow of flows) {
    const files = [flow.flash?.code, flow.flash?.variables, flow.bios].filter((file) => file !== undefined);
    if (!onPath(flow.emulator)) missing.push(flow.packages[0]!);
    if (files.some((file) => !existsSync(file))) missing.push(...flow.packages.slice(1));
  }
  return [...new Set(missing)];
}

/** Installs what is missing; says what it did. */
export async function ensureTools(flows: readonly Flow[]): Promise<string> {
  const missing = missingPackages(flows);
  if (missing.length === 0) return "all there";
  const command = `apt-get install --no-install-recommends ${missing.join(" ")}`;
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) {
    throw new UserError(`programs are missing: run \`sudo ${command}\``);
  }
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  await run("apt-get", ["update", "-q"], { env });
  await run("apt-get", ["install", "-y", "-q", "--no-install-recommends", ...missing], { env });
  const still = missingPackages(flows);
  if (still.length > 0) throw new UserError(`still missing after ${command}: ${still.join(", ")}`);
  return `installed ${missing.join(", ")}`;
}

function onPath(program: string): boolean {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  return folders.some((folder) => existsSync(join(folder, program)));
}
