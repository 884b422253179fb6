// The proxy's effects: one nft transaction, conntrack deletions, kernel settings. Commands come in, so that tests run
// the same code inside a network namespace.
import { AppError } from "#base/errors.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import type { Sysctl } from "#platform/sysctl.ts";
import type { StaleFlow } from "./plan.ts";
import { removal } from "./ruleset.ts";

/** nft takes long for thousands of services on a slow board. */
const nftTimeoutMs = 60_000;

export async function applyScript(commands: Commands, script: string): Promise<void> {
  if (script !== "") await runChecked(commands, "nft", ["-f", "-"], { input: script, timeoutMs: nftTimeoutMs });
}

export const removeTable = (commands: Commands, table: string): Promise<void> => applyScript(commands, removal(table));

/** Is a base chain there with as many rules as it should have? Somebody may have flushed the ruleset. */
export async function isChainIntact(
  commands: Commands,
  table: string,
  chain: string,
  ruleCount: number,
): Promise<boolean> {
  const result = await commands.run("nft", ["-j", "list", "chain", "ip", table, chain]);
  if (result.code !== 0) return false;
  const document = JSON.parse(result.stdout) as { nftables?: { rule?: unknown }[] };
  return document.nftables?.filter((entry) => entry.rule !== undefined).length === ruleCount;
}

/** conntrack exits 1 where nothing matched, which is as good. */
export async function deleteFlows(commands: Commands, flow: StaleFlow): Promise<void> {
  const args = ["-D", "-f", "ipv4", "-p", flow.protocol];
  if (flow.originalIp) args.push("--orig-dst", flow.originalIp);
  if (flow.originalPort) args.push("--orig-port-dst", String(flow.originalPort));
  if (flow.endpointIp) args.push("--dst-nat", flow.endpointIp);
  const result = await commands.run("conntrack", args);
  if (result.code > 1) throw new AppError("NETWORK_CONNTRACK", `conntrack ${args.join(" ")}: ${result.stderr.trim()}`);
}

/**
 * What forwarding needs of the kernel. Answers whether bridged packets pass nftables, which takes br_netfilter; its
 * absence is not an error, the plan makes up for it.
 */
export async function prepareKernel(commands: Commands, sysctl: Sysctl): Promise<{ hasBridgeNetfilter: boolean }> {
  const bridge = "net.bridge.bridge-nf-call-iptables";
  if ((await sysctl.read(bridge)) === undefined) {
    // Where modprobe is missing or refuses, the read below says so.
    await commands.run("modprobe", ["br_netfilter"]).catch(() => undefined);
  }
  const hasBridgeNetfilter = (await sysctl.read(bridge)) !== undefined;
  if (hasBridgeNetfilter) await ensure(sysctl, bridge, "1");
  await ensure(sysctl, "net.ipv4.ip_forward", "1");
  await ensure(sysctl, "net.ipv4.conf.all.route_localnet", "1");
  return { hasBridgeNetfilter };
}

async function ensure(sysctl: Sysctl, name: string, value: string): Promise<void> {
  const current = await sysctl.read(name);
  if (current !== undefined && current !== value) await sysctl.write(name, value);
}
