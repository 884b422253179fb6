// kubectl 1.32: the one on the PATH when it is of a fitting version, else Debian trixie's, unpacked beside the build.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { architectures, kubectlPins } from "#build.config.ts";
import { unpackDebianPackage } from "#scripts/debian.ts";
import { run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";

/** A command for kubectl 1.31-1.33: "kubectl" when the PATH has one, else a path. */
export async function ensureKubectl(): Promise<string> {
  const found = await run("sh", ["-c", "kubectl version --client -o json"], { ok: [0, 1, 126, 127] });
  const minor = Number(/"minor":\s*"(\d+)/.exec(found.output)?.[1] ?? 0);
  return found.code === 0 && minor >= 31 && minor <= 33 ? "kubectl" : pinnedKubectl();
}

/** Path of trixie's kubectl 1.32.3, which the tests use. */
export async function pinnedKubectl(): Promise<string> {
  const debian = architectures.find((a) => a.node === process.arch)?.debian;
  const pin = kubectlPins.find((p) => p.arch === debian);
  if (!pin) throw new UserError(`no kubectl is pinned for ${process.arch}`);
  const path = join(await unpackDebianPackage(pin), "usr/bin/kubectl");
  if (!existsSync(path)) throw new UserError(`${pin.name} ${pin.version} has no usr/bin/kubectl`);
  return path;
}
