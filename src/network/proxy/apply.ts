// The proxy's effects: one nft transaction, conntrack deletions, kernel settings. Commands come in, so that tests run
// the same code inside a network namespace.
import { AppError } from "#base/errors.ts";
import type { IpFamily } from "#base/ip-range.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import type { Sysctl } from "#platform/sysctl.ts";
import type { StaleFlow } from "./plan.ts";
import { type Ruleset, removal, type TableFamily } from "./ruleset.ts";

/** nft takes long for thousands of services on a slow board. */
const nftTimeoutMs = 60_000;

export async function applyScript(commands: Commands, script: string): Promise<void> {
  if (script !== "") await runChecked(commands, "nft", ["-f", "-"], { input: script, timeoutMs: nftTimeoutMs });
}

/** Of both families, where they are there: a kernel without IPv6 does not know the second. */
export async function removeTables(commands: Commands, table: string): Promise<void> {
  const { nftables = [] } = JSON.parse(await runChecked(commands, "nft", ["-j", "list", "tables"])) as {
    nftables?: { table?: { family: string; name: string } }[];
  };
  const isTableFamily = (family: string): family is TableFamily => family === "ip" || family === "ip6";
  for (const { table: found } of nftables) {
    if (found?.name === table && isTableFamily(found.family)) await applyScript(commands, removal(found.family, table));
  }
}

/** Is a base chain there with as many rules as it should have? Somebody may have flushed the ruleset. */
export async function isChainIntact(
  commands: Commands,
  { family, table, chains }: Ruleset,
  chain: string,
): Promise<boolean> {
  const result = await commands.run("nft", ["-j", "list", "chain", family, table, chain]);
  if (result.code !== 0) return false;
  const document = JSON.parse(result.stdout) as { nftables?: { rule?: unknown }[] };
  return document.nftables?.filter((entry) => entry.rule !== undefined).length === chains.get(chain)?.rules.length;
}

/** conntrack exits 1 where nothing matched, which is as good. */
export async function deleteFlows(commands: Commands, family: IpFamily, flow: StaleFlow): Promise<void> {
  const args = ["-D", "-f", family.toLowerCase(), "-p", flow.protocol];
  if (flow.originalIp) args.push("--orig-dst", flow.originalIp);
  if (flow.originalPort) args.push("--orig-port-dst", String(flow.originalPort));
  if (flow.endpointIp) args.push("--dst-nat", flow.endpointIp);
  const result = await commands.run("conntrack", args);
  if (result.code > 1) throw new AppError("NETWORK_CONNTRACK", `conntrack ${args.join(" ")}: ${result.stderr.trim()}`);
}

/**
 * By family: what sends bridged packets through nftables, and what lets the machine forward. That of IPv6 is left to
 * forwarding.ts: switched on without more it costs a machine what it has from routers' advertisements.
 */
const settings = {
  IPv4: {
    bridge: "net.bridge.bridge-nf-call-iptables",
    others: ["net.ipv4.ip_forward", "net.ipv4.conf.all.route_localnet"],
  },
  IPv6: { bridge: "net.bridge.bridge-nf-call-ip6tables", others: [] },
} as const satisfies Readonly<Record<IpFamily, { bridge: string; others: readonly string[] }>>;

/**
 * What forwarding needs of the kernel. Answers whether bridged packets pass nftables, which takes br_netfilter; its
 * absence is not an error, the plan makes up for it.
 */
export async function prepareKernel(
  commands: Commands,
  sysctl: Sysctl,
  families: readonly IpFamily[],
): Promise<{ hasBridgeNetfilter: boolean }> {
  if ((await sysctl.read(settings.IPv4.bridge)) === undefined) {
    // Where modprobe is missing or refuses, the read below says so.
    await commands.run("modprobe", ["br_netfilter"]).catch(() => undefined);
  }
  const hasBridgeNetfilter = (await sysctl.read(settings.IPv4.bridge)) !== undefined;
  for (const family of families) {
    if (hasBridgeNetfilter) await ensure(sysctl, settings[family].bridge, "1");
    for (const name of settings[family].others) await ensure(sysctl, name, "1");
  }
  return { hasBridgeNetfilter };
}

async function ensure(sysctl: Sysctl, name: string, value: string): Promise<void> {
  const current = await sysctl.read(name);
  if (current !== undefined && current !== value) await sysctl.write(name, value);
}
