// A machine without containerd runs no pods, but is a node: its object says what is missing, until somebody installs it.
import { type Clock, pause } from "#base/clock.ts";
import { withEither } from "#base/either-signal.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { NodeObject, NodeResources } from "./node-object.ts";
import type { Programs } from "./programs.ts";

export interface MissingContainerdDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly programs: Programs;
  /** Says why the node is not Ready. */
  readonly node: (resources: () => NodeResources) => Promise<NodeObject>;
}

/** How often it is looked whether what was missing has been installed. */
const programsMs = 10_000;
const nothing: NodeResources = { capacity: {}, allocatable: {}, pressure: new Set(), isShuttingDown: false };

/** Resolves when there is one; rejects when the signal aborts before. */
export async function waitForContainerd(deps: MissingContainerdDeps, signal: AbortSignal): Promise<void> {
  const { clock, log, programs } = deps;
  if (!(await programs.lacks("containerd"))) return;
  const node = await deps.node(() => nothing);
  const installed = new AbortController();
  const telling = withEither([signal, installed.signal], async (either) => {
    try {
      await node.register(either);
      await node.keep(either);
    } catch (error) {
      if (!either.aborted) log.warn("cannot register the node", { error: messageOf(error) });
    }
  });
  while (!signal.aborted && (await programs.lacks("containerd"))) await pause(clock, programsMs, signal);
  installed.abort(new Error("containerd is there, or nobody waits for it"));
  await telling;
  signal.throwIfAborted();
}
