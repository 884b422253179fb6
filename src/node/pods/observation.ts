// What the runtime says of one pod: its sandboxes and containers, newest first, with everything status and plan need.
// Plain data, folded from CRI lists by runtime-cache.ts; plan.ts and status.ts read nothing else of the machine.

import type { ResourceRequirements } from "#model/gen/core-v1.ts";

export type ContainerState = "created" | "running" | "exited" | "unknown";

/** Of one container, as CRI has them; 0 for none. */
export interface RuntimeLimits {
  readonly cpuShares: number;
  readonly cpuQuotaUs: number;
  readonly memoryBytes: number;
}

export interface ObservedContainer {
  readonly id: string;
  readonly name: string;
  readonly sandboxId: string;
  /** Restart count at the time it was made. */
  readonly attempt: number;
  readonly state: ContainerState;
  readonly createdAtMs: number;
  /** 0 while not started / not finished. */
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly exitCode: number;
  readonly reason: string;
  readonly message: string;
  readonly image: string;
  readonly imageId: string;
  /** Annotation written at creation: tells a container of an older spec. */
  readonly hash: string;
  readonly logPath: string;
  /** What the runtime holds it to; absent where it does not say. */
  readonly limits?: RuntimeLimits;
  /** The resources its pod had been allocated for it when it was made. */
  readonly madeWith?: ResourceRequirements;
  /** Ended to be started again with other resources, whatever its exit code and the restart policy say. */
  readonly mustRestart?: boolean;
}

export interface ObservedSandbox {
  readonly id: string;
  readonly attempt: number;
  readonly ready: boolean;
  readonly createdAtMs: number;
  readonly ips: readonly string[];
}

export interface PodObservation {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  /** Newest first. */
  readonly sandboxes: readonly ObservedSandbox[];
  /** Newest first. */
  readonly containers: readonly ObservedContainer[];
}

export const nothingObserved = (uid: string, namespace: string, name: string): PodObservation => ({
  uid,
  name,
  namespace,
  sandboxes: [],
  containers: [],
});

/** The sandbox containers may be started in, if there is one. */
export const readySandbox = (observed: PodObservation): ObservedSandbox | undefined => {
  const newest = observed.sandboxes[0];
  return newest?.ready ? newest : undefined;
};

/** The newest instance of a container, optionally only in one sandbox. */
export const newestContainer = (
  observed: PodObservation,
  name: string,
  sandboxId?: string,
): ObservedContainer | undefined =>
  observed.containers.find((c) => c.name === name && (sandboxId === undefined || c.sandboxId === sandboxId));

/** What probing has found out of one container instance. */
export interface ProbeView {
  /** True when there is no startup probe or it has succeeded. */
  readonly started: boolean;
  readonly ready: boolean;
  /** Set when a liveness or startup probe has failed for good; the message goes into the Killing event. */
  readonly failed?: "liveness" | "startup";
}
