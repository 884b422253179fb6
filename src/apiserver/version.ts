// The body of /version: a Kubernetes version that clients compare their own with.
import { moteCommit, moteVersion } from "#base/version.ts";
import type { VersionInfo } from "./endpoints/system.ts";

const platforms: Readonly<Record<string, string>> = { x64: "linux/amd64", arm64: "linux/arm64", arm: "linux/arm" };

export function versionInfo(): VersionInfo {
  const [, major = "1", minor = "32"] = /^v(\d+)\.(\d+)/.exec(moteVersion) ?? [];
  return {
    major,
    minor,
    gitVersion: moteVersion,
    gitCommit: moteCommit,
    gitTreeState: "clean",
    buildDate: "1970-01-01T00:00:00Z",
    goVersion: `node${process.version.slice(1)}`,
    compiler: "esbuild",
    platform: platforms[process.arch] ?? `linux/${process.arch}`,
  };
}
