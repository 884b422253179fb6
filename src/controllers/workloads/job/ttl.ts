// Deletes finished jobs when their time to live is over. Upstream counterpart: pkg/controller/ttlafterfinished.
import type { Service } from "#base/service.ts";
import type { Job } from "#model/gen/batch-v1.ts";
import { jobs } from "#model/resources.ts";
import type { ControllerDeps } from "../../runtime/controller.ts";
import { createExpiryController } from "../../runtime/object-controller.ts";
import { conditionOf, isFinished } from "./plan.ts";

const finishedMs = (job: Job): number =>
  Date.parse((conditionOf(job, "Complete") ?? conditionOf(job, "Failed"))?.lastTransitionTime ?? "");

export const createTtlAfterFinishedController = (deps: ControllerDeps): Service =>
  createExpiryController(
    {
      name: "ttl-after-finished-controller",
      store: deps.informers.informer(jobs),
      propagationPolicy: "Foreground",
      leftMs(job, nowMs) {
        const ttl = job.spec.ttlSecondsAfterFinished;
        return ttl === undefined || !isFinished(job) ? undefined : finishedMs(job) + ttl * 1000 - nowMs;
      },
    },
    deps,
  );
