// Jobs: unless told otherwise the server makes the selector, from the job's uid, so that no two jobs share pods.
// Upstream: pkg/registry/batch/job.
import type { Job } from "#model/gen/batch-v1.ts";
import type { Strategy, StrategyContext } from "../../strategy.ts";
import { keepStatus } from "./plain.ts";

export const jobs: Strategy = {
  hasGeneration: true,
  prepareForCreate(job: Job, context: StrategyContext) {
    job.status = {};
    if (job.spec && job.spec.manualSelector !== true) generateSelector(job, context);
  },
  prepareForUpdate: keepStatus,
  selectableFields: (job: Job) => ({ "status.successful": String(job.status?.succeeded ?? 0) }),
};

const prefix = "batch.kubernetes.io/";

function generateSelector(job: Job, context: StrategyContext): void {
  job.metadata.uid ??= context.random.uuid();
  const uid = job.metadata.uid;
  const name = job.metadata.name ?? "";
  const template = job.spec.template;
  template.metadata ??= {};
  // The names without prefix are what old clients select by.
  const generated = {
    [`${prefix}controller-uid`]: uid,
    [`${prefix}job-name`]: name,
    "controller-uid": uid,
    "job-name": name,
  };
  template.metadata.labels = { ...template.metadata.labels, ...generated };
  job.spec.selector ??= {};
  job.spec.selector.matchLabels = { ...job.spec.selector.matchLabels, [`${prefix}controller-uid`]: uid };
  if (Object.keys(job.metadata.labels ?? {}).length === 0) job.metadata.labels = { ...template.metadata.labels };
}
