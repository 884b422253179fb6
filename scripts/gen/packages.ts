// The pinned Debian packages that carry the API descriptions, unpacked under build/debian/.
// Change a pin in lock.json with the output of `node scripts/run.mjs scripts/gen/pin.ts`.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { unpackDebianPackage } from "#scripts/debian.ts";

export type SourcePackage =
  | "golang-k8s-api-dev"
  | "golang-k8s-apimachinery-dev"
  | "golang-k8s-client-go-dev"
  | "golang-k8s-kubectl-dev"
  | "golang-github-kubernetes-cri-api-dev"
  | "golang-etcd-server-dev"
  | "golang-github-google-gnostic-models-dev";

/** The folder that holds the package's Go sources by import path (`k8s.io/api/core/v1/types.go`). */
export async function sourceFolder(name: SourcePackage): Promise<string> {
  const lock = JSON.parse(await readFile(join("scripts", "gen", "lock.json"), "utf8")) as Record<
    string,
    { version: string; sha256: string }
  >;
  const pin = lock[name];
  if (pin === undefined) throw new Error(`scripts/gen/lock.json has no ${name}`);
  const folder = await unpackDebianPackage({ name, arch: "all", ...pin });
  return join(folder, "usr", "share", "gocode", "src");
}
