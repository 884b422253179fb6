// The kinds that make pods. Upstream: pkg/apis/apps/validation, pkg/apis/batch/validation, pkg/apis/policy/validation.

import { cronProblem } from "../cron.ts";
import type { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet } from "../gen/apps-v1.ts";
import type { CronJob, Job, JobSpec } from "../gen/batch-v1.ts";
import type { PodTemplate, PodTemplateSpec, ReplicationController } from "../gen/core-v1.ts";
import type { LabelSelector } from "../gen/meta-v1.ts";
import type { PodDisruptionBudget } from "../gen/policy-v1.ts";
import { matchesLabelSelector } from "../label-selector.ts";
import { type FieldError, fieldForbidden, fieldInvalid, fieldNotSupported, fieldRequired } from "../status.ts";
import {
  intOrPercent,
  labelSelector,
  labels,
  notNegative,
  oneOf,
  requiredOneOf,
  same,
  selectorIsEmpty,
  unchanged,
} from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { goMap, goSelector, invalidGo, notSupportedInOrder } from "./go-syntax.ts";
import { validateJobPolicies } from "./job-policies.ts";
import { validatePodTemplate } from "./pod.ts";

interface Selecting {
  readonly selector?: LabelSelector;
  readonly template?: PodTemplateSpec | undefined;
  readonly replicas?: number;
  readonly minReadySeconds?: number;
}

/** Selector and template belong together, and such pods run for ever. `name` is as upstream's sentence has it. */
function validateSelecting(spec: Selecting, name: string): FieldError[] {
  const errors = findings([
    ...notNegative("spec.replicas", spec.replicas),
    ...notNegative("spec.minReadySeconds", spec.minReadySeconds),
  ]);
  if (!spec.selector) errors.push(fieldRequired("spec.selector"));
  else {
    errors.push(...labelSelector("spec.selector", spec.selector));
    if (selectorIsEmpty(spec.selector)) {
      errors.push(invalidGo("spec.selector", goSelector(spec.selector), `empty selector is invalid for ${name}`));
    }
  }
  errors.push(...validateTemplate(spec.template, spec.selector));
  errors.push(...onlyRestartsAlways(spec.template));
  return errors;
}

function validateTemplate(template: PodTemplateSpec | undefined, selector: LabelSelector | undefined): FieldError[] {
  const errors = findings();
  const own = template?.metadata?.labels ?? {};
  if (selector && !selectorIsEmpty(selector) && !matchesLabelSelector(selector, own)) {
    const why = "`selector` does not match template `labels`";
    errors.push(invalidGo("spec.template.metadata.labels", goMap(template?.metadata?.labels), why));
  }
  return [...errors, ...validatePodTemplate("spec.template", template)];
}

function onlyRestartsAlways(template: PodTemplateSpec | undefined): FieldError[] {
  const errors = findings();
  const policy = template?.spec?.restartPolicy;
  if (policy && policy !== "Always")
    errors.push(fieldNotSupported("spec.template.spec.restartPolicy", policy, ["Always"]));
  if (template?.spec?.activeDeadlineSeconds != null) {
    const why = "activeDeadlineSeconds in ReplicaSet is not Supported";
    errors.push(fieldForbidden("spec.template.spec.activeDeadlineSeconds", why));
  }
  return errors;
}

const isZero = (value: number | string | undefined): boolean => value === 0 || value === "0%";

function validateRolling(
  path: string,
  rolling: { readonly maxSurge?: number | string; readonly maxUnavailable?: number | string },
): FieldError[] {
  const errors = findings([
    ...intOrPercent(`${path}.maxUnavailable`, rolling.maxUnavailable),
    ...intOrPercent(`${path}.maxSurge`, rolling.maxSurge),
  ]);
  if (isZero(rolling.maxUnavailable) && isZero(rolling.maxSurge)) {
    errors.push(fieldInvalid(`${path}.maxUnavailable`, rolling.maxUnavailable, "may not be 0 when `maxSurge` is 0"));
  }
  if (typeof rolling.maxUnavailable === "string" && Number.parseInt(rolling.maxUnavailable, 10) > 100) {
    errors.push(fieldInvalid(`${path}.maxUnavailable`, rolling.maxUnavailable, "must not be greater than 100%"));
  }
  return errors;
}

export function validateDeployment({ spec }: Deployment): FieldError[] {
  if (!spec) return [fieldRequired("spec.selector")];
  const errors = findings(validateSelecting(spec, "deployment"));
  const { strategy = {} } = spec;
  const at = "spec.strategy";
  if (strategy.type === "Recreate" && strategy.rollingUpdate) {
    errors.push(fieldForbidden(`${at}.rollingUpdate`, "may not be specified when strategy `type` is 'Recreate'"));
  } else if (strategy.type === "RollingUpdate") {
    if (!strategy.rollingUpdate) errors.push(fieldRequired(`${at}.rollingUpdate`));
    else errors.push(...validateRolling(`${at}.rollingUpdate`, strategy.rollingUpdate));
  } else if (strategy.type !== "Recreate") {
    errors.push(fieldNotSupported(at, strategy.type ?? "", ["Recreate", "RollingUpdate"]));
  }
  errors.push(
    ...notNegative("spec.revisionHistoryLimit", spec.revisionHistoryLimit),
    ...notNegative("spec.progressDeadlineSeconds", spec.progressDeadlineSeconds),
  );
  if (spec.progressDeadlineSeconds != null && spec.progressDeadlineSeconds <= (spec.minReadySeconds ?? 0)) {
    const why = "must be greater than minReadySeconds";
    errors.push(fieldInvalid("spec.progressDeadlineSeconds", spec.progressDeadlineSeconds, why));
  }
  return errors;
}

export const validateReplicaSet = ({ spec }: ReplicaSet): FieldError[] =>
  spec ? validateSelecting(spec, "deployment") : [fieldRequired("spec.selector")];

export function validateDaemonSet({ spec }: DaemonSet): FieldError[] {
  if (!spec) return [fieldRequired("spec.selector")];
  const errors = findings(validateSelecting(spec, "daemonset"));
  const { updateStrategy = {} } = spec;
  const at = "spec.updateStrategy";
  if (updateStrategy.type === "RollingUpdate") {
    if (!updateStrategy.rollingUpdate) errors.push(fieldRequired(`${at}.rollingUpdate`));
    else {
      const { maxSurge, maxUnavailable } = updateStrategy.rollingUpdate;
      errors.push(...intOrPercent(`${at}.rollingUpdate.maxUnavailable`, maxUnavailable));
      errors.push(...intOrPercent(`${at}.rollingUpdate.maxSurge`, maxSurge));
      if (isZero(maxUnavailable) && isZero(maxSurge)) {
        errors.push(fieldRequired(`${at}.rollingUpdate.maxUnavailable`, "cannot be 0 when maxSurge is 0"));
      } else if (!isZero(maxUnavailable) && !isZero(maxSurge)) {
        const why = "may not be set when maxUnavailable is non-zero";
        errors.push(fieldInvalid(`${at}.rollingUpdate.maxSurge`, maxSurge, why));
      }
    }
  } else if (updateStrategy.type !== "OnDelete") {
    errors.push(fieldNotSupported(at, updateStrategy.type ?? "", ["OnDelete", "RollingUpdate"]));
  }
  return [...errors, ...notNegative("spec.revisionHistoryLimit", spec.revisionHistoryLimit)];
}

export function validateStatefulSet({ spec }: StatefulSet): FieldError[] {
  if (!spec) return [fieldRequired("spec.selector")];
  const errors = findings();
  const policy = spec.podManagementPolicy;
  if (!policy) errors.push(fieldRequired("spec.podManagementPolicy"));
  else if (policy !== "OrderedReady" && policy !== "Parallel") {
    errors.push(fieldInvalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"));
  }
  const type = spec.updateStrategy?.type;
  if (!type) errors.push(fieldRequired("spec.updateStrategy"));
  else if (type === "OnDelete" && spec.updateStrategy?.rollingUpdate) {
    const why = "only allowed for updateStrategy 'RollingUpdate'";
    errors.push(fieldInvalid("spec.updateStrategy.rollingUpdate", spec.updateStrategy.rollingUpdate, why));
  } else if (type !== "OnDelete" && type !== "RollingUpdate") {
    errors.push(fieldInvalid("spec.updateStrategy", spec.updateStrategy, "must be 'RollingUpdate' or 'OnDelete'"));
  }
  errors.push(
    ...notNegative("spec.updateStrategy.rollingUpdate.partition", spec.updateStrategy?.rollingUpdate?.partition),
  );
  const retention = spec.persistentVolumeClaimRetentionPolicy;
  for (const field of ["whenDeleted", "whenScaled"] as const) {
    const path = `spec.persistentVolumeClaimRetentionPolicy.${field}`;
    errors.push(...oneOf(path, retention?.[field], ["Delete", "Retain"]));
  }
  errors.push(...validateSelecting({ ...spec, template: withClaims(spec) }, "statefulset"));
  return errors;
}

/** The template as its pods will be: the claims of the set are volumes that containers may mount. */
function withClaims({ template, volumeClaimTemplates }: StatefulSet["spec"] & object): PodTemplateSpec {
  if (!template?.spec || !volumeClaimTemplates || volumeClaimTemplates.length === 0) return template;
  const claims = volumeClaimTemplates.map(({ metadata }) => {
    const name = metadata?.name ?? "";
    return { name, persistentVolumeClaim: { claimName: name } };
  });
  const names = new Set(claims.map(({ name }) => name));
  const others = (template.spec.volumes ?? []).filter(({ name }) => !names.has(name));
  return { ...template, spec: { ...template.spec, volumes: [...others, ...claims] } };
}

/** A selector cannot change: pods made under the old one would be nobody's. */
export function validateSelectorUpdate(
  object: Deployment | ReplicaSet | DaemonSet,
  old: Deployment | ReplicaSet | DaemonSet,
): FieldError[] {
  if (same(object.spec?.selector, old.spec?.selector)) return [];
  return [invalidGo("spec.selector", goSelector(object.spec?.selector), "field is immutable")];
}

const statefulSetFields = [
  "replicas",
  "ordinals",
  "template",
  "updateStrategy",
  "persistentVolumeClaimRetentionPolicy",
  "minReadySeconds",
];

export function validateStatefulSetUpdate(object: StatefulSet, old: StatefulSet): FieldError[] {
  const fixed = (spec: object) =>
    Object.fromEntries(Object.entries(spec).filter(([field]) => !statefulSetFields.includes(field)));
  if (same(fixed(object.spec), fixed(old.spec))) return [];
  const list = statefulSetFields.map((field) => `'${field}'`);
  const why = `updates to statefulset spec for fields other than ${list.slice(0, -1).join(", ")} and ${list.at(-1)} are forbidden`;
  return [fieldForbidden("spec", why)];
}

export function validateControllerRevision({ data, revision }: ControllerRevision): FieldError[] {
  const errors = findings(data === undefined ? [fieldRequired("data", "data is mandatory")] : []);
  if (revision < 0) errors.push(fieldInvalid("revision", revision, "must be greater than or equal to 0"));
  return errors;
}

export function validateControllerRevisionUpdate(object: ControllerRevision, old: ControllerRevision): FieldError[] {
  return unchanged("data", object.data, old.data);
}

export function validateReplicationController({ spec }: ReplicationController): FieldError[] {
  if (!spec) return [fieldRequired("spec.selector")];
  const errors = findings([
    ...notNegative("spec.replicas", spec.replicas),
    ...notNegative("spec.minReadySeconds", spec.minReadySeconds),
    ...labels("spec.selector", spec.selector),
  ]);
  if (Object.keys(spec.selector ?? {}).length === 0) errors.push(fieldRequired("spec.selector"));
  if (!spec.template) return [...errors, fieldRequired("spec.template")];
  errors.push(...validateTemplate(spec.template, { matchLabels: spec.selector ?? {} }));
  return [...errors, ...onlyRestartsAlways(spec.template)];
}

export const validatePodTemplateObject = (object: PodTemplate): FieldError[] =>
  validatePodTemplate("template", object.template);

const jobRestartPolicies = ["OnFailure", "Never"];

export function validateJob(job: Job): FieldError[] {
  const { spec } = job;
  if (!spec) return [fieldRequired("spec.template")];
  const errors = findings(validateJobSpec("spec", spec));
  if (!spec.selector) errors.push(fieldRequired("spec.selector"));
  else {
    errors.push(...labelSelector("spec.selector", spec.selector));
    const own = spec.template?.metadata?.labels;
    if (!matchesLabelSelector(spec.selector, own ?? {})) {
      const why = "`selector` does not match template `labels`";
      errors.push(invalidGo("spec.template.metadata.labels", goMap(own), why));
    }
  }
  return errors;
}

/** The largest completion index has room in a pod's host name and in the annotation's bitmap. */
const maxIndexedParallelism = 100_000;

function validateJobSpec(path: string, spec: JobSpec): FieldError[] {
  const counts = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "ttlSecondsAfterFinished",
  ] as const;
  const errors = eachOf(counts, (field) => notNegative(`${path}.${field}`, spec[field]));
  errors.push(...oneOf(`${path}.completionMode`, spec.completionMode, ["Indexed", "NonIndexed"]));
  errors.push(...oneOf(`${path}.podReplacementPolicy`, spec.podReplacementPolicy, ["Failed", "TerminatingOrFailed"]));
  if (spec.completionMode === "Indexed") {
    if (spec.completions == null) {
      errors.push(fieldRequired(`${path}.completions`, "when completion mode is Indexed"));
    }
    if ((spec.parallelism ?? 0) > maxIndexedParallelism) {
      const why = `must be less than or equal to ${maxIndexedParallelism} when completion mode is Indexed`;
      errors.push(fieldInvalid(`${path}.parallelism`, spec.parallelism, why));
    }
  }
  errors.push(...validateJobPolicies(path, spec));
  errors.push(...validatePodTemplate(`${path}.template`, spec.template));
  const policy = spec.template?.spec?.restartPolicy;
  const at = `${path}.template.spec.restartPolicy`;
  if (policy === "Always" || policy === undefined) {
    errors.push({
      reason: "FieldValueRequired",
      field: at,
      message: `Required value: valid values: ${jobRestartPolicies.map((p) => JSON.stringify(p)).join(", ")}`,
    });
  } else if (!jobRestartPolicies.includes(policy)) errors.push(notSupportedInOrder(at, policy, jobRestartPolicies));
  else if (spec.podFailurePolicy && policy !== "Never") {
    errors.push(fieldInvalid(at, policy, 'only "Never" is supported when podFailurePolicy is specified'));
  }
  return errors;
}

export function validateJobUpdate(job: Job, old: Job): FieldError[] {
  const errors = findings();
  const next = job.spec;
  const before = old.spec;
  const isIndexed = next.completionMode === "Indexed";
  // An indexed job may grow and shrink if parallelism goes along.
  const isElastic = isIndexed && next.completions === next.parallelism;
  if (!isElastic) errors.push(...unchanged("spec.completions", next.completions, before.completions));
  if (!same(next.selector, before.selector)) {
    errors.push(invalidGo("spec.selector", goSelector(next.selector), "field is immutable"));
  }
  const hasStarted = before.suspend !== true || old.status?.startTime !== undefined;
  const template = hasStarted ? next.template : withSchedulingOf(next.template, before.template);
  errors.push(...unchanged("spec.template", template, before.template));
  for (const field of [
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
  ] as const) {
    errors.push(...unchanged(`spec.${field}`, next[field], before[field]));
  }
  return errors;
}

/** What may still be decided of a suspended job: where its pods go. */
function withSchedulingOf(template: PodTemplateSpec, old: PodTemplateSpec): PodTemplateSpec {
  if (!template.spec || !old.spec) return template;
  const { nodeSelector, affinity, tolerations, schedulingGates } = old.spec;
  return {
    ...template,
    metadata: { ...template.metadata, ...pick(old.metadata, ["labels", "annotations"]) },
    spec: { ...template.spec, ...({ nodeSelector, affinity, tolerations, schedulingGates } as object) },
  };
}

function pick(from: object | undefined, fields: readonly string[]): object {
  return Object.fromEntries(fields.map((field) => [field, (from as Record<string, unknown> | undefined)?.[field]]));
}

/** The controller appends eleven characters: a dash and the minute. */
const maxCronJobName = 52;

export function validateCronJob({ metadata, spec }: CronJob): FieldError[] {
  if (!spec) return [fieldRequired("spec.schedule")];
  const errors = findings();
  if ((metadata.name ?? "").length > maxCronJobName) {
    errors.push(fieldInvalid("metadata.name", metadata.name, `must be no more than ${maxCronJobName} characters`));
  }
  if (!spec.schedule) errors.push(fieldRequired("spec.schedule"));
  else {
    const problem = cronProblem(spec.schedule.replace(/^(?:CRON_)?TZ=\S* +/, ""));
    if (problem !== undefined) errors.push(fieldInvalid("spec.schedule", spec.schedule, problem));
    if (spec.schedule.includes("TZ=")) {
      const why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
      errors.push(fieldInvalid("spec.schedule", spec.schedule, why));
    }
  }
  errors.push(
    ...requiredOneOf("spec.concurrencyPolicy", spec.concurrencyPolicy, ["Allow", "Forbid", "Replace"]),
    ...notNegative("spec.startingDeadlineSeconds", spec.startingDeadlineSeconds),
    ...notNegative("spec.successfulJobsHistoryLimit", spec.successfulJobsHistoryLimit),
    ...notNegative("spec.failedJobsHistoryLimit", spec.failedJobsHistoryLimit),
  );
  if (spec.timeZone !== undefined && !isTimeZone(spec.timeZone)) {
    errors.push(fieldInvalid("spec.timeZone", spec.timeZone, `unknown time zone ${spec.timeZone}`));
  }
  const jobSpec = spec.jobTemplate?.spec;
  if (!jobSpec) return [...errors, fieldRequired("spec.jobTemplate.spec.template")];
  if (jobSpec.manualSelector) {
    errors.push(fieldNotSupported("spec.jobTemplate.spec.manualSelector", true, ["nil", "false"]));
  }
  return [...errors, ...validateJobSpec("spec.jobTemplate.spec", jobSpec)];
}

function isTimeZone(name: string): boolean {
  if (name === "" || name.toLowerCase() === "local") return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    // The runtime's way of saying that it does not know the zone.
    return false;
  }
}

export function validateDisruptionBudget({ spec }: PodDisruptionBudget): FieldError[] {
  const errors = findings([
    ...intOrPercent("spec.minAvailable", spec?.minAvailable),
    ...intOrPercent("spec.maxUnavailable", spec?.maxUnavailable),
    ...labelSelector("spec.selector", spec?.selector),
    ...oneOf("spec.unhealthyPodEvictionPolicy", spec?.unhealthyPodEvictionPolicy, ["AlwaysAllow", "IfHealthyBudget"]),
  ]);
  if (spec?.minAvailable !== undefined && spec.maxUnavailable !== undefined) {
    errors.push(fieldInvalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
  }
  return errors;
}
