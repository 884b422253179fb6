// Deletes finished jobs when their time to live is over. Upstream counterpart: pkg/controller/ttlafterfinished.
import type { Service } from "#base/service.ts";
import type { Job } from "#model/gen/batch-v1.ts";
import { jobs } from "#model/resources.ts";
import type { ControllerDeps } from "../../runtime/controller.ts";
import { createExpiryController } from "../../runtime/object-controller.ts";
import { conditionOf, isFinished } from "./plan.ts";

const finishedMs = (job: Job): number =>
  Date.parse((conditionOf(job, "Complete") ?? conditionOf(job, "Failed"))?.lastTransitionTime ?? "");

/** Upstream's: from 100 ms, doubling, to 14 minutes. */
const secondsBuckets = Array.from({ length: 14 }, (_, i) => 0.1 * 2 ** i);

export function createTtlAfterFinishedController(deps: ControllerDeps): Service {
  const seconds = deps.metrics.histogram(
    "ttl_after_finished_controller_job_deletion_duration_seconds",
    "From when the time of a finished job was over to when it was deleted.",
    secondsBuckets,
  );
  return createExpiryController(
    {
      name: "ttl-after-finished-controller",
      store: deps.informers.informer(jobs),
      propagationPolicy: "Foreground",
      deleted: (lateMs) => seconds.observe(lateMs / 1000),
      leftMs(job, nowMs) {
        const ttl = job.spec.ttlSecondsAfterFinished;
        return ttl === undefined || !isFinished(job) ? undefined : finishedMs(job) + ttl * 1000 - nowMs;
      },
    },
    deps,
  );
}
