// Pods that were said to go (condition DisruptionTarget) and did not: after two minutes the condition is taken back, so
// that whoever reads it, as a job's failure policy does, is not told of what did not happen. What a node said of its own
// pods stands: it may take as long as it likes. Upstream counterpart: syncStalePodDisruption in pkg/controller/disruption.
import { rfc3339 } from "#base/clock.ts";
import type { Service } from "#base/service.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { pods } from "#model/resources.ts";
import type { ControllerDeps } from "../runtime/controller.ts";
import { createObjectController } from "../runtime/object-controller.ts";
import { isPodFinished, podCondition } from "../runtime/pods.ts";

const staleAfterMs = 120_000;
const byNode = "TerminationByKubelet";

/** Milliseconds until the condition is stale; undefined where it cannot become so. */
export function staleInMs(pod: Pod, nowMs: number): number | undefined {
  const condition = podCondition(pod, "DisruptionTarget");
  if (condition?.status !== "True" || condition.reason === byNode || isPodFinished(pod)) return undefined;
  return (Date.parse(condition.lastTransitionTime ?? "") || 0) + staleAfterMs - nowMs;
}

export const createStaleDisruptionController = (deps: ControllerDeps): Service =>
  createObjectController(
    {
      name: "stale-pod-disruption",
      workers: 1,
      store: deps.informers.informer(pods),
      async sync(pod, again) {
        const nowMs = deps.clock.now();
        const leftMs = staleInMs(pod, nowMs);
        if (leftMs === undefined) return;
        if (leftMs > 0) {
          again(leftMs);
          return;
        }
        const conditions = (pod.status?.conditions ?? []).map((condition) =>
          condition.type === "DisruptionTarget"
            ? { ...condition, status: "False", lastTransitionTime: rfc3339(nowMs) }
            : condition,
        );
        await deps.client.updateStatus(pods, { ...pod, status: { ...pod.status, conditions } });
      },
    },
    deps,
  );
