// Which cluster a node's memory is of. A node that moves to another cluster must not begin with the pods of the old one, nor
// hold them as after the loss of a store: all that was kept of the old cluster is taken away before it is read. A cluster is
// known by the keys of its authorities: new ones come in a bundle with those that vouch for them, so that two bundles of one
// cluster have a key in common, however its authorities have changed between.
import type { Logger } from "#base/log.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeTree } from "#platform/folders.ts";
import { forgetNode } from "./orphans.ts";

export interface HomeOptions {
  /** `<data>/agent`. */
  readonly dataFolder: string;
  /** What is remembered of the cluster. */
  readonly memoryFolder: string;
  /** By which the cluster is known now. */
  readonly keys: readonly string[];
}

type Home = "same" | "other" | "changed";

/** Pure. `kept`: of the last run; undefined: it did not note any. */
export function planHome(kept: readonly string[] | undefined, keys: readonly string[]): Home {
  if (kept === undefined) return "changed";
  if (kept.join() === keys.join()) return "same";
  return kept.some((key) => keys.includes(key)) ? "changed" : "other";
}

const markOf = ({ dataFolder }: Pick<HomeOptions, "dataFolder">): string => `${dataFolder}/cluster-keys`;

/** At a start, before the memory is opened. */
export async function settleHome(options: HomeOptions, log: Logger): Promise<void> {
  const home = planHome(await readKeys(options), options.keys);
  if (home === "other") {
    log.warn("this node has moved to another cluster: what it remembered of the old one is removed, and its pods end");
    await removeTree(options.memoryFolder);
    await forgetNode(options.dataFolder);
  }
  // Last: a crash before has it all done again.
  if (home !== "same") await writeKeys(options);
}

/** While the node runs, whenever the authorities have changed. Another cluster is left to the next start. */
export async function noteHome(options: Omit<HomeOptions, "memoryFolder">): Promise<void> {
  if (planHome(await readKeys(options), options.keys) === "changed") await writeKeys(options);
}

async function readKeys(options: Pick<HomeOptions, "dataFolder">): Promise<readonly string[] | undefined> {
  const text = (await readFileIfExists(markOf(options)))?.toString("utf8").trim();
  // Cut short by a loss of power it says nothing.
  return text ? text.split("\n") : undefined;
}

const writeKeys = (options: Pick<HomeOptions, "dataFolder" | "keys">): Promise<void> =>
  writeFileDurable(markOf(options), `${options.keys.join("\n")}\n`, 0o600);
