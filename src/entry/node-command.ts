// `mote node replace NAME`: lets another device have the name of a node, once: the one that was flashed again.
import { messageOf } from "#base/errors.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { nodeUsage } from "#cli/node-flags.ts";
import { verbError } from "#cli/verbs.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { givePermission } from "#supervisor/node-replacement.ts";
import { openClusterClient } from "./cluster-client.ts";

const longestMs = 30 * 24 * 3600_000;

/** `args`: the verb and the node. Resolves with the exit code. */
export async function nodeCommand(
  args: readonly string[],
  values: FlagValues,
  kubeconfigPath: string,
): Promise<number> {
  const [verb, name = "", ...rest] = args;
  if (verb !== "replace" || name === "" || rest.length > 0) throw verbError("node", verb, nodeUsage);
  const lifeMs = lifeOf(String(values["ttl"]));
  const { client, http } = await openClusterClient(kubeconfigPath, "node");
  try {
    const isTaken = await givePermission(client, name, Math.ceil(lifeMs / 1000));
    if (!isTaken) throw usageError(`node: no device has the name "${name}": whoever has the token may take it`);
    const until = new Date(clock.now() + lifeMs).toISOString().slice(0, 16);
    console.log(`node "${name}" may be taken by another device, once and until ${until} UTC:`);
    console.log("start it with that name and the token");
    return 0;
  } finally {
    http.close();
  }
}

function lifeOf(text: string): number {
  try {
    const lifeMs = parseDurationNanoseconds(text) / 1e6;
    if (lifeMs >= 1000 && lifeMs <= longestMs) return lifeMs;
  } catch (error) {
    throw usageError(`ttl: ${messageOf(error)}; use one such as 1h`);
  }
  throw usageError(`ttl: "${text}" is not allowed; use one from 1s to 720h`);
}
