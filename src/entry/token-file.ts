// The token of an agent, from its flag or from the file of --token-file. Who has joined needs none: a file that was removed
// after the first start, or that a damaged disk does not give, keeps no pod from starting.
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { exists, readFileIfExists } from "#platform/files.ts";
import type { AgentConfig } from "./node-config.ts";

/** What a node keeps once it has joined (supervisor/join-client.ts). */
const keptFile = "client-kubelet.crt";

/** Undefined: there is none. Rejects with STARTUP where one was promised to a node that needs it. */
export async function tokenOf(
  {
    token,
    tokenFile,
    node,
  }: Pick<AgentConfig, "token" | "tokenFile"> & {
    readonly node: Pick<AgentConfig["node"], "agentDir">;
  },
  log: Logger,
): Promise<string | undefined> {
  if (token !== undefined || tokenFile === undefined) return token;
  const read = await textOf(tokenFile);
  if ("text" in read) return read.text;
  const problem = `token-file: ${tokenFile} ${read.problem}`;
  if (!(await exists(`${node.agentDir}/${keptFile}`))) throw new AppError("STARTUP", problem);
  log.warn("this node has joined before and goes on without the token that it was given", { error: problem });
  return undefined;
}

async function textOf(path: string): Promise<{ readonly text: string } | { readonly problem: string }> {
  try {
    const text = (await readFileIfExists(path))?.toString("utf8").trim();
    return text ? { text } : { problem: "is not there or empty" };
  } catch (error) {
    return { problem: `cannot be read: ${messageOf(error)}` };
  }
}
