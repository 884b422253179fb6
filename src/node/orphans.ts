// Guards running pods against a store that opens empty. A node whose object had to be made anew although it had one, and of
// whose pods the API knows none, looks the same whether everything was deleted or the store was lost (a wrong path, a new
// disk, a server before its snapshot is restored). Ending all pods at once would make a loss of records a loss of service,
// so they go on for a while, which is said; what the API still does not know after that is ended as ever.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";

export interface OrphanFacts {
  /** The Node object was created at this start. */
  readonly isNewNode: boolean;
  /** This machine has had one before. */
  readonly hadNode: boolean;
  /** Bound to this node, as the API lists them. */
  readonly knownPods: number;
  /** Run here, unknown to the API. */
  readonly orphans: number;
}

export interface OrphanDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Tells people who look at the node. */
  readonly warn: (message: string) => void;
}

/** Long enough for a person or a script to restore a snapshot. */
const orphanHoldMs = 10 * 60_000;

const mayEndOrphans = (facts: OrphanFacts): boolean =>
  !(facts.isNewNode && facts.hadNode && facts.knownPods === 0 && facts.orphans > 0);

/** Resolves when pods unknown to the API may be ended; rejects when `signal` aborts before. */
export async function waitForOrphans(facts: OrphanFacts, deps: OrphanDeps, signal: AbortSignal): Promise<void> {
  if (mayEndOrphans(facts)) return;
  const minutes = orphanHoldMs / 60_000;
  const message = `the API knows neither this node nor its ${facts.orphans} running pods, as after the loss of its store; they go on for ${minutes} minutes`;
  deps.log.error(message);
  deps.warn(message);
  await deps.clock.sleep(orphanHoldMs, signal);
}

const markOf = (dataFolder: string): string => `${dataFolder}/registered`;

/** It is another cluster's node from here on. */
export const forgetNode = (dataFolder: string): Promise<void> => removeFile(markOf(dataFolder));

/** Remembers that this machine has a Node object; whether it had one before. One write in a node's life. */
export async function rememberNode(dataFolder: string): Promise<boolean> {
  const path = markOf(dataFolder);
  if ((await readFileIfExists(path)) !== undefined) return true;
  await writeFileDurable(path, "this machine has been registered as a node\n");
  return false;
}
