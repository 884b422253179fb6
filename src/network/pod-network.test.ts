// The written configuration, run through Debian's CNI plugins in namespaces of our own.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { exists, readFileIfExists } from "#platform/files.ts";
import { type Commands, runChecked, systemCommands } from "#platform/processes.ts";
import { configurePodNetwork, removePodNetwork } from "./pod-network.ts";

const pluginDir = "/usr/lib/cni";
const suffix = process.pid.toString(36);
const ns = { node: `mqn${suffix}`, a: `mqa${suffix}`, b: `mqb${suffix}` } as const;
const inNode: Commands = {
  run: (program, args, options) => systemCommands.run("ip", ["netns", "exec", ns.node, program, ...args], options),
};
const whyNot = await (async (): Promise<string | undefined> => {
  if (process.getuid?.() !== 0) return "needs root for network namespaces";
  if (!(await exists(`${pluginDir}/bridge`))) return `needs the CNI plugins in ${pluginDir}`;
  const tried = await systemCommands.run("sh", ["-c", "ip netns add $0 && ip netns delete $0", ns.a]);
  return tried.code === 0 ? undefined : `network namespaces cannot be made here: ${tried.stderr.trim()}`;
})();

describe.skipIf(whyNot !== undefined)(`pod network${whyNot ? ` (skipped: ${whyNot})` : ""}`, () => {
  let folder = "";
  const options = () => ({
    cniConfDir: `${folder}/net.d`,
    ipamDir: `${folder}/ipam`,
    podCidrs: ["10.42.7.0/24", "fd00:42:7::/64"],
    mtu: 1400,
  });
  const deps = { commands: inNode, log: silentLogger };

  beforeAll(async () => {
    folder = (await runChecked(systemCommands, "mktemp", ["-d"])).trim();
    for (const name of Object.values(ns)) await runChecked(systemCommands, "ip", ["netns", "add", name]);
  });
  afterAll(async () => {
    for (const name of Object.values(ns)) await systemCommands.run("ip", ["netns", "delete", name]);
    await runChecked(systemCommands, "rm", ["-rf", folder]);
  });

  test("two pods get addresses, a way out and each other; removal leaves nothing", async () => {
    await configurePodNetwork(options(), deps);
    const path = `${folder}/net.d/10-mote.conflist`;
    const config = JSON.parse(String(await readFileIfExists(path))) as Conflist;

    const addresses: string[][] = [];
    for (const pod of ["a", "b"] as const) {
      const result = await callPlugins(config, "ADD", pod);
      addresses.push(result?.ips?.map(({ address }) => address) ?? []);
    }
    expect(addresses).toEqual([
      ["10.42.7.2/24", "fd00:42:7::2/64"],
      ["10.42.7.3/24", "fd00:42:7::3/64"],
    ]);
    const link = await runChecked(inNode, "ip", ["-j", "link", "show", "mote0"]);
    expect(JSON.parse(link)).toMatchObject([{ mtu: 1400 }]);
    const routes = await runChecked(systemCommands, "ip", ["netns", "exec", ns.a, "ip", "-j", "route"]);
    expect(JSON.parse(routes)).toContainEqual(expect.objectContaining({ dst: "default", gateway: "10.42.7.1" }));
    const routes6 = await runChecked(systemCommands, "ip", ["netns", "exec", ns.a, "ip", "-6", "-j", "route"]);
    expect(JSON.parse(routes6)).toContainEqual(expect.objectContaining({ dst: "default", gateway: "fd00:42:7::1" }));
    const hairpin = await runChecked(inNode, "sh", ["-c", "bridge -d -j link show"]);
    expect((JSON.parse(hairpin) as { hairpin?: boolean }[]).map((port) => port.hairpin)).toEqual([true, true]);

    // b ends in order, a is left over.
    await callPlugins(config, "DEL", "b");
    expect(await exists(path)).toBe(true);
    await removePodNetwork(options(), deps);
    expect(await exists(path)).toBe(false);
    expect(await exists(`${folder}/ipam/mote`)).toBe(false);
    expect((await inNode.run("ip", ["link", "show", "mote0"])).code).not.toBe(0);
    expect(await exists(`/run/netns/${ns.a}`)).toBe(false);
    expect(await exists(`/run/netns/${ns.b}`)).toBe(true);
    await removePodNetwork(options(), deps);
  });
});

interface Result {
  readonly ips?: { readonly address: string }[];
}
interface Conflist {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly { readonly type: string }[];
}

/** What a runtime does with a list: each plugin with the result of the one before; backwards for DEL. */
async function callPlugins(config: Conflist, command: "ADD" | "DEL", pod: "a" | "b"): Promise<Result | undefined> {
  let prevResult: Result | undefined;
  for (const plugin of command === "ADD" ? config.plugins : [...config.plugins].reverse()) {
    const { cniVersion, name } = config;
    const input = JSON.stringify({ ...plugin, cniVersion, name, ...(prevResult ? { prevResult } : {}) });
    const env = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: `test-${pod}`,
      CNI_NETNS: `/run/netns/${ns[pod]}`,
      CNI_IFNAME: "eth0",
      CNI_PATH: pluginDir,
    };
    const stdout = await runChecked(inNode, `${pluginDir}/${plugin.type}`, [], { input, env });
    if (command === "ADD") prevResult = JSON.parse(stdout) as Result;
  }
  return prevResult;
}
