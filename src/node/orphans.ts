// Guards running pods against a store that opens empty. A node whose object had to be made anew although it had one, and of
// whose pods the API knows none, looks the same whether everything was deleted or the store was lost (a wrong path, a new
// disk, a server before its snapshot is restored). Ending all pods at once would make a loss of records a loss of service,
// so they go on for a while, which is said; what the API still does not know after that is ended as ever.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import type { ChildSignal } from "./child-signals.ts";
import type { PodContext } from "./pods/context.ts";
import type { PodObservation } from "./pods/observation.ts";
import { PodWorker } from "./pods/worker.ts";

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

export interface OrphanEnding {
  readonly context: PodContext;
  /** By uid: of all pods that the API knows, and of orphans while they end. */
  readonly workers: Map<string, PodWorker>;
  readonly child: () => ChildSignal;
}

/** Of volumes whose driver has not registered yet. */
const leftoverPause = { minMs: 1_000, maxMs: 60_000 } as const;

/** What runs or lies here of pods that the API does not know; only safe to ask once its list is complete. */
export async function endOrphans(
  node: Pick<OrphanFacts, "isNewNode" | "hadNode"> & Pick<OrphanDeps, "warn">,
  { context, workers, child }: OrphanEnding,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log, runtime } = context;
  const orphans = () => runtime.all().filter((observed) => !workers.has(observed.uid));
  const facts = { ...node, knownPods: workers.size, orphans: orphans().length };
  await waitForOrphans(facts, { clock, log, warn: node.warn }, signal);
  const endOne = async (observed: PodObservation) => {
    log.info("ending a pod that is no longer in the API", { namespace: observed.namespace, pod: observed.name });
    const worker = new PodWorker(context, standIn(observed));
    worker.removed();
    workers.set(observed.uid, worker);
    const own = child();
    try {
      await worker.run(own.signal);
    } finally {
      own.end();
      workers.delete(observed.uid);
    }
  };
  await Promise.all(orphans().map(endOne));
  await removeLeftovers(context, workers, signal);
}

async function removeLeftovers(
  { clock, log, volumes }: PodContext,
  workers: ReadonlyMap<string, PodWorker>,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted) return;
  let left = (await volumes.leftovers()).filter((uid) => !workers.has(uid));
  let pauseMs: number = leftoverPause.minMs;
  while (left.length > 0 && !signal.aborted) {
    const failed: string[] = [];
    for (const uid of left) {
      try {
        await volumes.remove(uid);
      } catch (error) {
        // The driver of a volume may not have registered yet.
        log.warn("cannot remove what is left of a pod, trying again", { uid, error: messageOf(error) });
        failed.push(uid);
      }
    }
    left = failed;
    if (left.length > 0) await pause(clock, pauseMs, signal);
    pauseMs = Math.min(pauseMs * 2, leftoverPause.maxMs);
  }
}

/** Enough of a pod to end what the runtime still has of it. */
const standIn = (observed: PodObservation): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: observed.name, namespace: observed.namespace, uid: observed.uid },
  // Nobody waits for it any more.
  spec: { containers: [], terminationGracePeriodSeconds: 1 },
});
