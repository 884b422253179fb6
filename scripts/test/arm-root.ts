// A folder with Debian trixie's Node.js of another architecture and everything it needs, unpacked from packages: enough
// for qemu-user's -L. Nothing of it is installed.
import { existsSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { unpackDebianClosure } from "#scripts/debian.ts";

export async function armRoot(architecture: "arm64" | "armhf"): Promise<string> {
  const root = join(process.cwd(), "build", "arm-root", architecture);
  const complete = join(root, ".complete");
  if (existsSync(complete)) return root;
  rmSync(root, { recursive: true, force: true });
  await unpackDebianClosure(["nodejs"], architecture, root);
  // The merged-/usr link comes with base-files, which nothing of this depends on.
  if (!existsSync(join(root, "lib"))) symlinkSync("usr/lib", join(root, "lib"));
  writeFileSync(complete, "");
  return root;
}
