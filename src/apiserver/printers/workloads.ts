// Tables of apps/v1, batch/v1, autoscaling, policy and pod templates.
import type { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet } from "#model/gen/apps-v1.ts";
import type { HorizontalPodAutoscaler, MetricSpec, MetricStatus } from "#model/gen/autoscaling-v2.ts";
import type { CronJob, Job } from "#model/gen/batch-v1.ts";
import type { PodTemplate, ReplicationController } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import {
  ageColumn,
  containerImages,
  containerNames,
  count,
  formatLabels,
  formatSelector,
  goBoolean,
  hasCondition,
  nameColumn,
  text,
  wide,
} from "./column-kit.ts";
import type { Column } from "./columns.ts";
import { humanDuration, since } from "./human-duration.ts";

interface Templated {
  metadata: object;
  spec?: { template?: { spec?: Parameters<typeof containerNames>[0] } };
}
const containers = [
  wide(
    text<never>("Containers", "Names of the template's containers.", (o: Templated) =>
      containerNames(o.spec?.template?.spec),
    ),
  ),
  wide(
    text<never>("Images", "Images of the template's containers.", (o: Templated) =>
      containerImages(o.spec?.template?.spec),
    ),
  ),
] as unknown as readonly Column[];

export const deploymentColumns: readonly Column<Deployment>[] = [
  nameColumn,
  text("Ready", "Ready pods, of the desired.", (d) => `${d.status?.readyReplicas ?? 0}/${d.spec?.replicas ?? 0}`),
  count("Up-to-date", "Pods made from the current template.", (d) => d.status?.updatedReplicas),
  count("Available", "Pods ready for at least minReadySeconds.", (d) => d.status?.availableReplicas),
  ageColumn,
  ...containers,
  wide(text("Selector", "Selector of the pods.", (d) => formatSelector(d.spec?.selector))),
];

export const replicaSetColumns: readonly Column<ReplicaSet>[] = [
  nameColumn,
  count("Desired", "Pods wanted.", (r) => r.spec?.replicas),
  count("Current", "Pods there are.", (r) => r.status?.replicas),
  count("Ready", "Pods that are ready.", (r) => r.status?.readyReplicas),
  ageColumn,
  ...containers,
  wide(text("Selector", "Selector of the pods.", (r) => formatSelector(r.spec?.selector))),
];

export const replicationControllerColumns: readonly Column<ReplicationController>[] = [
  nameColumn,
  count("Desired", "Pods wanted.", (r) => r.spec?.replicas),
  count("Current", "Pods there are.", (r) => r.status?.replicas),
  count("Ready", "Pods that are ready.", (r) => r.status?.readyReplicas),
  ageColumn,
  ...containers,
  wide(text("Selector", "Selector of the pods.", (r) => formatLabels(r.spec?.selector))),
];

export const statefulSetColumns: readonly Column<StatefulSet>[] = [
  nameColumn,
  text("Ready", "Ready pods, of the desired.", (s) => `${s.status?.readyReplicas ?? 0}/${s.spec?.replicas ?? 0}`),
  ageColumn,
  ...containers,
];

export const daemonSetColumns: readonly Column<DaemonSet>[] = [
  nameColumn,
  count("Desired", "Nodes that should run the pod.", (d) => d.status?.desiredNumberScheduled),
  count("Current", "Nodes that run it.", (d) => d.status?.currentNumberScheduled),
  count("Ready", "Nodes where it is ready.", (d) => d.status?.numberReady),
  count("Up-to-date", "Nodes that run the current template.", (d) => d.status?.updatedNumberScheduled),
  count("Available", "Nodes where it is available.", (d) => d.status?.numberAvailable),
  text("Node Selector", "Labels a node must have.", (d) => formatLabels(d.spec?.template?.spec?.nodeSelector)),
  ageColumn,
  ...containers,
  wide(text("Selector", "Selector of the pods.", (d) => formatSelector(d.spec?.selector))),
];

export const jobColumns: readonly Column<Job>[] = [
  nameColumn,
  text("Status", "What the job's conditions come down to.", jobStatus),
  text("Completions", "Pods that succeeded, of the wanted.", (job) => {
    const succeeded = job.status?.succeeded ?? 0;
    if (job.spec?.completions !== undefined) return `${succeeded}/${job.spec.completions}`;
    const parallelism = job.spec?.parallelism ?? 0;
    return parallelism > 1 ? `${succeeded}/1 of ${parallelism}` : `${succeeded}/1`;
  }),
  text("Duration", "Time the job has run.", ({ status }, nowMs) => {
    if (!status?.startTime) return "";
    const endMs = status.completionTime ? Date.parse(status.completionTime) : nowMs;
    return humanDuration(endMs - Date.parse(status.startTime));
  }),
  ageColumn,
  ...containers,
  wide(text("Selector", "Selector of the pods.", (job) => formatSelector(job.spec?.selector))),
];

function jobStatus(job: Job): string {
  const is = (type: string) => hasCondition(job.status?.conditions, type);
  if (is("Complete")) return "Complete";
  if (is("Failed")) return "Failed";
  if (job.metadata.deletionTimestamp) return "Terminating";
  for (const type of ["Suspended", "FailureTarget", "SuccessCriteriaMet"]) if (is(type)) return type;
  return "Running";
}

export const cronJobColumns: readonly Column<CronJob>[] = [
  nameColumn,
  text("Schedule", "When it runs, in cron's form.", (c) => c.spec?.schedule),
  text("Timezone", "Time zone of the schedule.", (c) => c.spec?.timeZone ?? "<none>"),
  text("Suspend", "Whether it is paused.", (c) => goBoolean(c.spec?.suspend)),
  count("Active", "Jobs that run now.", (c) => c.status?.active?.length),
  text("Last Schedule", "Time since it last ran.", (c, nowMs) =>
    c.status?.lastScheduleTime ? since(c.status.lastScheduleTime, nowMs) : "<none>",
  ),
  ageColumn,
  wide(
    text("Containers", "Names of the containers.", (c) => containerNames(c.spec?.jobTemplate?.spec?.template?.spec)),
  ),
  wide(text("Images", "Images of the containers.", (c) => containerImages(c.spec?.jobTemplate?.spec?.template?.spec))),
  wide(text("Selector", "Selector of the pods.", (c) => formatSelector(c.spec?.jobTemplate?.spec?.selector))),
];

export const podTemplateColumns: readonly Column<PodTemplate>[] = [
  nameColumn,
  text("Containers", "Names of the containers.", (t) => containerNames(t.template?.spec)),
  text("Images", "Images of the containers.", (t) => containerImages(t.template?.spec)),
  text("Pod Labels", "Labels of the pods.", (t) => formatLabels(t.template?.metadata?.labels)),
];

export const controllerRevisionColumns: readonly Column<ControllerRevision>[] = [
  nameColumn,
  text("Controller", "What the revision belongs to.", (revision) => {
    const owner = revision.metadata.ownerReferences?.find((reference) => reference.controller);
    if (!owner) return "<none>";
    const group = owner.apiVersion.includes("/") ? owner.apiVersion.split("/")[0] : "";
    return `${owner.kind.toLowerCase()}${group ? `.${group}` : ""}/${owner.name}`;
  }),
  count("Revision", "Its number.", (revision) => Number(revision.revision ?? 0)),
  ageColumn,
];

export const podDisruptionBudgetColumns: readonly Column<PodDisruptionBudget>[] = [
  nameColumn,
  text("Min Available", "Pods that must stay.", (p) => String(p.spec?.minAvailable ?? "N/A")),
  text("Max Unavailable", "Pods that may go.", (p) => String(p.spec?.maxUnavailable ?? "N/A")),
  count("Allowed Disruptions", "Pods that may be evicted now.", (p) => p.status?.disruptionsAllowed),
  ageColumn,
];

export const autoscalerColumns: readonly Column<HorizontalPodAutoscaler>[] = [
  nameColumn,
  text(
    "Reference",
    "What is scaled.",
    (h) => `${h.spec?.scaleTargetRef?.kind ?? ""}/${h.spec?.scaleTargetRef?.name ?? ""}`,
  ),
  text("Targets", "Current value and target of each metric.", autoscalerTargets),
  text("MinPods", "Fewest pods.", (h) => String(h.spec?.minReplicas ?? "<unset>")),
  count("MaxPods", "Most pods.", (h) => h.spec?.maxReplicas),
  count("Replicas", "Pods there are.", (h) => h.status?.currentReplicas),
  ageColumn,
];

function autoscalerTargets(autoscaler: HorizontalPodAutoscaler): string {
  const metrics = autoscaler.spec?.metrics ?? [];
  if (metrics.length === 0) return "<none>";
  const shown = metrics
    .slice(0, 2)
    .map((metric, index) => targetText(metric, autoscaler.status?.currentMetrics?.[index]));
  return metrics.length > 2 ? `${shown.join(", ")} + ${metrics.length - 2} more...` : shown.join(", ");
}

function targetText(metric: MetricSpec, now: MetricStatus | undefined): string {
  const known = (value: string | number | undefined) => value ?? "<unknown>";
  switch (metric.type) {
    case "External":
    case "Object": {
      const target = metric.external?.target ?? metric.object?.target;
      const current = now?.external?.current ?? now?.object?.current;
      if (target?.averageValue !== undefined) return `${known(current?.averageValue)}/${target.averageValue} (avg)`;
      return `${known(current?.value)}/${target?.value ?? "<nil>"}`;
    }
    case "Pods":
      return `${known(now?.pods?.current.averageValue)}/${metric.pods?.target.averageValue ?? "<nil>"}`;
    case "Resource":
    case "ContainerResource": {
      const source = metric.resource ?? metric.containerResource;
      const current = now?.resource?.current ?? now?.containerResource?.current;
      const { averageValue, averageUtilization } = source?.target ?? {};
      if (averageValue !== undefined) return `${source?.name}: ${known(current?.averageValue)}/${averageValue}`;
      const used = current?.averageUtilization === undefined ? "<unknown>" : `${current.averageUtilization}%`;
      return `${source?.name}: ${used}/${averageUtilization === undefined ? "<auto>" : `${averageUtilization}%`}`;
    }
    default:
      return "<unknown type>";
  }
}
