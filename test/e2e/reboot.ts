// What a power cut leaves of an agent's machine, done to one that shares this kernel: every process of the agent is killed,
// what lay in memory is gone (mounts, run folder, devices, rules), and what lay on disk stays.
import { readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import type { Host } from "./host.ts";

interface Process {
  readonly pid: number;
  readonly parentPid: number;
  readonly args: string;
}

export function processes(): Process[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      const [state, parentPid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state === "Z") return [];
      const args = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      return [{ pid: Number(name), parentPid: Number(parentPid), args }];
    } catch {
      // It ended while it was looked at.
      return [];
    }
  });
}

const kill = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
};

/** 0: it has gone, as a network of somebody else may at any time. */
const inode = (path: string): number => statSync(path, { throwIfNoEntry: false })?.ino ?? 0;

/** Everything of `host` that lies in memory goes; `agentPid` first, so that it can mend nothing. */
export async function cutPower(host: Host, agentPid: number): Promise<void> {
  if (agentPid > 0) kill(agentPid);
  const socket = `${host.runDir}/containerd/containerd.sock`;
  const isOurs = ({ args }: Process) =>
    args.includes(`--config ${host.dataDir}/agent/etc/containerd/`) ||
    (args.includes("containerd-shim") && args.includes(`-address ${socket}`));
  const networks = new Set<number>();
  // What hangs in the kernel when the machine is busy takes its time to end.
  for (const endMs = performance.now() + 60_000; performance.now() < endMs; ) {
    const all = processes();
    const doomed = new Set(all.filter(isOurs).map(({ pid }) => pid));
    for (let size = -1; size !== doomed.size; ) {
      size = doomed.size;
      for (const { pid, parentPid } of all) if (doomed.has(parentPid)) doomed.add(pid);
    }
    if (doomed.size === 0) break;
    for (const pid of doomed) {
      try {
        networks.add(Number(/\d+/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[0]));
      } catch {
        // It ended while it was looked at.
      }
    }
    // Parents first, so that nothing is started anew.
    for (const pid of [...doomed].sort((a, b) => a - b)) kill(pid);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  networks.delete(inode(`/run/netns/${host.name}`));
  networks.delete(inode("/proc/self/ns/net"));
  for (const name of readdirSync("/run/netns")) {
    if (name.startsWith("cni-") && networks.has(inode(`/run/netns/${name}`)))
      await host.exec("ip", ["netns", "del", name]);
  }
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((path) => path.startsWith(`${host.folder}/`));
  for (const path of mounts.sort((a, b) => b.length - a.length)) await host.exec("umount", ["-l", path]);
  rmSync(host.runDir, { recursive: true, force: true });
  await host.exec("nft", ["flush", "ruleset"]);
  await host.exec("ip", ["address", "flush", "dev", "lo", "scope", "global"]);
  const links = (await host.exec("ip", ["-o", "link"])).stdout.matchAll(/^\d+: ([^:@\s]+)/gm);
  for (const [, name = ""] of links) {
    if (!["lo", "eth0", "wire"].includes(name)) await host.exec("ip", ["link", "del", name]);
  }
}
