// --with-node-id: machines of one image have one host name, so each adds eight digits of its own to its node's name, made once
// and kept with the device's password. Counterpart: k3s, whose form this is.
import { dirname } from "node:path";
import type { Random } from "#base/clock.ts";
import type { FlagValues } from "#cli/flags.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";

const idBytes = 4;

/** `node`, under the name that it has here. */
export async function withNodeId<Node extends { readonly nodeName: string; readonly dataDir: string }>(
  node: Node,
  values: FlagValues,
  random: Random,
): Promise<Node> {
  if (values["with-node-id"] !== true) return node;
  return { ...node, nodeName: `${node.nodeName}-${await ensureId(`${node.dataDir}/node/id`, random)}` };
}

async function ensureId(path: string, random: Random): Promise<string> {
  const kept = (await readFileIfExists(path))?.toString("utf8").trim() ?? "";
  if (/^[0-9a-f]{8}$/.test(kept)) return kept;
  const made = Buffer.from(random.bytes(idBytes)).toString("hex");
  await makeFolder(dirname(path), 0o700);
  await writeFileDurable(path, `${made}\n`, 0o600);
  return made;
}
