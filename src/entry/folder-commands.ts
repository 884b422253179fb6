// Commands that work on the data folder of this machine and need neither a server nor a node, from their command lines.
import { serverFlags } from "#cli/server-flags.ts";
import { systemRandom } from "#platform/random.ts";
import { certificate } from "./certificate.ts";
import { folderConfig } from "./config.ts";
import type { Invocation } from "./invocation.ts";
import { killAll } from "./killall.ts";
import { runKine } from "./kine.ts";
import { withNodeId } from "./node-id.ts";
import { readFlags, readFlagsOnly } from "./read-flags.ts";
import { secretsEncrypt } from "./secrets-encrypt.ts";
import { snapshot } from "./snapshot.ts";

export async function killAllCommand({ args, env, runner }: Invocation): Promise<number> {
  // Of whoever starts a server with it: it may have all of that one's flags.
  const { values } = await readFlagsOnly(serverFlags, args, env);
  return killAll(folderConfig(values, runner));
}

export const kineCommand = ({ args, env }: Invocation): Promise<number> => runKine(args, env);

/** Without a verb it is `defaultVerb`. */
export async function snapshotCommand(given: Invocation, defaultVerb?: string): Promise<number> {
  const { values, positionals, config } = await read(given);
  const words = positionals.length === 0 && defaultVerb !== undefined ? [defaultVerb] : positionals;
  // Snapshots bear the name of the node, and only those of its own are pruned.
  return snapshot(words, values, await withNodeId(config, values, systemRandom));
}

export async function secretsEncryptCommand(given: Invocation): Promise<number> {
  const { values, positionals, config } = await read(given);
  return secretsEncrypt(positionals, values, config);
}

export async function certificateCommand(given: Invocation): Promise<number> {
  const { values, positionals, config } = await read(given);
  return certificate(positionals, values, config);
}

/** A command's own flags, and the configuration of the server or the node that has this folder. */
async function read({ flags, args, env, runner }: Invocation) {
  const { values, positionals } = await readFlags(flags, args, env);
  const defaults = Object.fromEntries(serverFlags.map((flag) => [flag.name, flag.default]));
  return { values, positionals, config: folderConfig({ ...defaults, ...values }, runner) };
}
