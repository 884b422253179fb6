// Tokens from files: --token-file of an agent; --token-file and --agent-token-file of a server. A token that stands in a flag counts
// more. Who has joined, or has its token already, needs none: a file that was removed after the first start, or that a damaged
// disk does not give, keeps nobody from starting.
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { FlagValues } from "#cli/flags.ts";
import { exists, readFileIfExists } from "#platform/files.ts";
import type { ServerConfig } from "./config.ts";
import type { AgentConfig } from "./node-config.ts";

/** What a node keeps once it has joined (supervisor/join-client.ts). */
const keptFile = "client-kubelet.crt";

/** Undefined: there is none. Rejects with STARTUP where one was promised to a node that needs it. */
export async function tokenOf(
  {
    token,
    tokenFile,
    node,
  }: Pick<AgentConfig, "token" | "tokenFile"> & { readonly node: Pick<AgentConfig["node"], "agentDir"> },
  log: Logger,
): Promise<string | undefined> {
  if (token !== undefined || tokenFile === undefined) return token;
  const { text, problem } = await textOf("token-file", tokenFile);
  if (problem === undefined) return text;
  if (!(await exists(`${node.agentDir}/${keptFile}`))) throw new AppError("STARTUP", problem);
  log.warn("this node has joined before and goes on without the token that it was given", { error: problem });
  return undefined;
}

/** The same of a server, whose flags `values` are. */
export async function withTokenFiles<
  Config extends Pick<ServerConfig, "serverDir" | "token" | "agentToken" | "warnings">,
>(config: Config, values: FlagValues): Promise<Config> {
  const found: { token?: string | undefined; agentToken?: string | undefined } = {};
  const warnings = [...config.warnings];
  for (const [flag, name] of [
    ["token-file", "token"],
    ["agent-token-file", "agentToken"],
  ] as const) {
    const path = values[flag];
    if (typeof path !== "string" || config[name] !== undefined) continue;
    const { text, problem } = await textOf(flag, path);
    found[name] = text;
    if (problem === undefined) continue;
    if (!(await exists(`${config.serverDir}/token`))) throw new AppError("STARTUP", problem);
    warnings.push(`${problem}; this server goes on with the token that it has`);
  }
  return { ...config, ...found, warnings };
}

async function textOf(flag: string, path: string): Promise<{ readonly text?: string; readonly problem?: string }> {
  try {
    const text = (await readFileIfExists(path))?.toString("utf8").trim();
    return text ? { text } : { problem: `${flag}: ${path} is not there or empty` };
  } catch (error) {
    return { problem: `${flag}: ${path} cannot be read: ${messageOf(error)}` };
  }
}
