// The machine goes down: pods get their time to end, the important ones last. Pure plan, then one phase after the other.
// Counterpart: the kubelet's nodeshutdown manager; instead of logind's inhibitor, mote's own stop asks whether the system is
// stopping, because pods outlive mote otherwise.

import { type Clock, pause } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import { exists } from "#platform/files.ts";
import type { Commands } from "#platform/processes.ts";
import type { NodeConfiguration } from "./configuration.ts";
import { isCriticalPod } from "./eviction/ranking.ts";
import type { PodFailure } from "./pods/plan.ts";

/** Whether systemd is taking the machine down. */
export async function isSystemStopping(commands: Commands): Promise<boolean> {
  if (!(await exists("/run/systemd/system"))) return false;
  const result = await commands.run("systemctl", ["is-system-running"], { timeoutMs: 5_000 });
  return result.stdout.trim() === "stopping";
}

export interface ShutdownPhase<T> {
  readonly members: readonly T[];
  readonly graceMs: number;
}

/** Ordinary pods first, critical ones after, each with its share of the time. */
export function planShutdown<T extends { readonly pod: Pod }>(
  workers: readonly T[],
  times: Pick<NodeConfiguration, "shutdownGracePeriodMs" | "shutdownGracePeriodCriticalPodsMs">,
): readonly ShutdownPhase<T>[] {
  const critical = times.shutdownGracePeriodCriticalPodsMs;
  return [
    { members: workers.filter((w) => !isCriticalPod(w.pod)), graceMs: times.shutdownGracePeriodMs - critical },
    { members: workers.filter((w) => isCriticalPod(w.pod)), graceMs: critical },
  ];
}

export const shutdownFailure: PodFailure = {
  reason: "Terminated",
  message: "Pod was terminated in response to imminent node shutdown.",
  disruption: "Pod was terminated in response to imminent node shutdown.",
};

export interface ShutdownWorker {
  readonly pod: Pod;
  evict(failure: PodFailure, graceSeconds: number): Promise<void>;
}

/** Ends the pods; returns when they have, or when their time is over. */
export async function shutDownPods(
  workers: readonly ShutdownWorker[],
  times: Pick<NodeConfiguration, "shutdownGracePeriodMs" | "shutdownGracePeriodCriticalPodsMs">,
  deps: { readonly clock: Clock; readonly log: Logger },
): Promise<void> {
  for (const { members, graceMs } of planShutdown(workers, times)) {
    if (members.length === 0) continue;
    deps.log.info("ending pods because the machine goes down", { pods: members.length, graceMs });
    const most = Math.floor(graceMs / 1000);
    const ends = members.map((w) => w.evict(shutdownFailure, Math.min(graceSecondsOf(w.pod), most)));
    const over = new AbortController();
    const all = Promise.all(ends).finally(() => over.abort(new Error("all have ended")));
    await Promise.race([all, pause(deps.clock, graceMs, over.signal)]);
  }
}
