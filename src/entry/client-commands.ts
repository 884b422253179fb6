// Commands that end soon and ask a server by a kubeconfig, from their command lines.
import { type FlagValues, parseFlags } from "#cli/flags.ts";
import { defaultPaths } from "./default-paths.ts";
import type { Invocation } from "./invocation.ts";
import { nodeCommand } from "./node-command.ts";
import { token } from "./token.ts";

export function tokenCommand(given: Invocation): Promise<number> {
  const { values, positionals } = parseFlags(given.flags, given);
  return token(positionals, values, kubeconfigOf(values, given));
}

export function nodeCommandOf(given: Invocation): Promise<number> {
  const { values, positionals } = parseFlags(given.flags, given);
  return nodeCommand(positionals, values, kubeconfigOf(values, given));
}

const kubeconfigOf = (values: FlagValues, { runner }: Invocation): string =>
  String(values["kubeconfig"] ?? defaultPaths(runner).kubeconfig);
