// Defaults of the kinds that make pods: apps/v1, batch/v1, autoscaling/v2 and replication controllers.
import type { DaemonSet, Deployment, ReplicaSet, StatefulSet } from "../gen/apps-v1.ts";
import type { CronJob, Job } from "../gen/batch-v1.ts";
import type { ReplicationController } from "../gen/core-v1.ts";
import type { ApiObject } from "../object.ts";
import { fill } from "./fill.ts";
import { defaultPodTemplate } from "./pod.ts";

export function defaultDeployment({ spec }: Deployment): void {
  if (!spec) return;
  defaultPodTemplate(spec.template);
  fill(spec, { progressDeadlineSeconds: 600, replicas: 1, revisionHistoryLimit: 10, strategy: {} });
  const strategy = spec.strategy ?? {};
  fill(strategy, { type: "RollingUpdate" });
  if (strategy.type === "RollingUpdate") {
    fill(strategy, { rollingUpdate: {} });
    fill(strategy.rollingUpdate ?? {}, { maxSurge: "25%", maxUnavailable: "25%" });
  }
}

export function defaultReplicaSet({ spec }: ReplicaSet): void {
  if (!spec) return;
  defaultPodTemplate(spec.template);
  fill(spec, { replicas: 1 });
}

export function defaultStatefulSet({ spec }: StatefulSet): void {
  if (!spec) return;
  defaultPodTemplate(spec.template);
  fill(spec, {
    persistentVolumeClaimRetentionPolicy: {},
    podManagementPolicy: "OrderedReady",
    replicas: 1,
    revisionHistoryLimit: 10,
    updateStrategy: {},
  });
  fill(spec.persistentVolumeClaimRetentionPolicy ?? {}, { whenDeleted: "Retain", whenScaled: "Retain" });
  const strategy = spec.updateStrategy ?? {};
  fill(strategy, { type: "RollingUpdate" });
  if (strategy.type === "RollingUpdate") {
    fill(strategy, { rollingUpdate: {} });
    fill(strategy.rollingUpdate ?? {}, { partition: 0 });
  }
  for (const claim of spec.volumeClaimTemplates ?? []) {
    fill(claim, { apiVersion: "v1", kind: "PersistentVolumeClaim", status: {} });
    if (claim.spec) fill(claim.spec, { volumeMode: "Filesystem" });
    if (claim.status) fill(claim.status, { phase: "Pending" });
  }
}

export function defaultDaemonSet({ spec }: DaemonSet): void {
  if (!spec) return;
  defaultPodTemplate(spec.template);
  fill(spec, { revisionHistoryLimit: 10, updateStrategy: {} });
  const strategy = spec.updateStrategy ?? {};
  fill(strategy, { type: "RollingUpdate" });
  if (strategy.type === "RollingUpdate") {
    fill(strategy, { rollingUpdate: {} });
    fill(strategy.rollingUpdate ?? {}, { maxSurge: 0, maxUnavailable: 1 });
  }
}

export function defaultReplicationController(object: ReplicationController): void {
  const spec = object.spec;
  if (!spec) return;
  defaultPodTemplate(spec.template);
  fill(spec, { replicas: 1 });
  const labels = spec.template?.metadata?.labels;
  if (!labels || Object.keys(labels).length === 0) return;
  if (Object.keys(spec.selector ?? {}).length === 0) spec.selector = { ...labels };
  if (Object.keys(object.metadata.labels ?? {}).length === 0) object.metadata.labels = { ...labels };
}

/** No per-index limit: the whole job may fail six times. With one: as often as an int32 can count. */
const backoffLimit = 6;
const unlimitedBackoff = 2 ** 31 - 1;

export function defaultJob(job: Job): void {
  const spec = job.spec;
  if (!spec) return;
  defaultPodTemplate(spec.template);
  // A fixed completion count of one, unless the client thinks of a work queue (parallelism alone).
  if (spec.completions == null && spec.parallelism == null) fill(spec, { completions: 1 });
  fill(spec, {
    backoffLimit: spec.backoffLimitPerIndex == null ? backoffLimit : unlimitedBackoff,
    completionMode: "NonIndexed",
    parallelism: 1,
    podReplacementPolicy: spec.podFailurePolicy ? "Failed" : "TerminatingOrFailed",
    suspend: false,
  });
  for (const rule of spec.podFailurePolicy?.rules ?? []) {
    for (const pattern of rule.onPodConditions ?? []) fill(pattern, { status: "True" });
  }
  const labels = spec.template?.metadata?.labels;
  if (labels && Object.keys(labels).length > 0 && Object.keys(job.metadata.labels ?? {}).length === 0) {
    job.metadata.labels = { ...labels };
  }
}

export function defaultCronJob({ spec }: CronJob): void {
  if (!spec) return;
  fill(spec, {
    concurrencyPolicy: "Allow",
    failedJobsHistoryLimit: 1,
    successfulJobsHistoryLimit: 3,
    suspend: false,
  });
  defaultPodTemplate(spec.jobTemplate?.spec?.template);
}

interface ScalingRules {
  selectPolicy?: string;
  stabilizationWindowSeconds?: number;
  policies?: { type: string; value: number; periodSeconds: number }[];
}
interface Autoscaler extends ApiObject {
  spec?: {
    minReplicas?: number;
    metrics?: unknown[];
    behavior?: { scaleUp?: ScalingRules; scaleDown?: ScalingRules };
  };
}

export function defaultHorizontalPodAutoscaler({ spec }: Autoscaler): void {
  if (!spec) return;
  fill(spec, { minReplicas: 1 });
  if ((spec.metrics ?? []).length === 0) {
    const target = { type: "Utilization", averageUtilization: 80 };
    spec.metrics = [{ type: "Resource", resource: { name: "cpu", target } }];
  }
  if (!spec.behavior) return;
  spec.behavior.scaleUp = {
    stabilizationWindowSeconds: 0,
    selectPolicy: "Max",
    policies: [
      { type: "Pods", value: 4, periodSeconds: 15 },
      { type: "Percent", value: 100, periodSeconds: 15 },
    ],
    ...spec.behavior.scaleUp,
  };
  spec.behavior.scaleDown = {
    selectPolicy: "Max",
    policies: [{ type: "Percent", value: 100, periodSeconds: 15 }],
    ...spec.behavior.scaleDown,
  };
}

export function defaultHorizontalPodAutoscalerV1({ spec }: ApiObject & { spec?: { minReplicas?: number } }): void {
  if (spec) fill(spec, { minReplicas: 1 });
}
