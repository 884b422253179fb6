// What a job makes of failed pods and of enough succeeded ones: podFailurePolicy, successPolicy, and the fields that go
// with them. Upstream: pkg/apis/batch/validation.
import type { JobSpec, PodFailurePolicyRule } from "../gen/batch-v1.ts";
import { type FieldError, fieldDuplicate, fieldInvalid, fieldRequired, fieldTooMany } from "../status.ts";
import { checked, requiredOneOf } from "./checks.ts";
import { findings } from "./findings.ts";
import { notSupportedInOrder } from "./go-syntax.ts";
import { dns1123Subdomain, qualifiedName } from "./names.ts";

const maxFailureRules = 20;
const maxSuccessRules = 20;
const maxExitCodes = 255;
const maxPatterns = 20;
const maxManagedBy = 63;
const maxIndexed = 100_000;
const maxIndexedParallelism = 10_000;

export function validateJobPolicies(at: string, spec: JobSpec): FieldError[] {
  const errors = findings([...validateIndexed(at, spec), ...validateManagedBy(`${at}.managedBy`, spec.managedBy)]);
  const { podFailurePolicy, successPolicy } = spec;
  if (podFailurePolicy) {
    const path = `${at}.podFailurePolicy.rules`;
    const rules = podFailurePolicy.rules ?? [];
    if (rules.length > maxFailureRules) errors.push(fieldTooMany(path, rules.length, maxFailureRules));
    const containers = [...(spec.template?.spec?.initContainers ?? []), ...(spec.template?.spec?.containers ?? [])];
    const names = new Set(containers.map(({ name }) => name));
    for (const [index, rule] of rules.entries())
      errors.push(...validateFailureRule(`${path}[${index}]`, rule, spec, names));
    if (spec.podReplacementPolicy === "TerminatingOrFailed") {
      errors.push(notSupportedInOrder(`${at}.podReplacementPolicy`, spec.podReplacementPolicy, ["Failed"]));
    }
  }
  if (successPolicy) {
    const path = `${at}.successPolicy`;
    if (spec.completionMode !== "Indexed") {
      errors.push(fieldInvalid(path, successPolicy, "requires indexed completion mode"));
    } else errors.push(...validateSuccess(path, successPolicy.rules ?? [], spec.completions ?? 0));
  }
  return errors;
}

function validateIndexed(at: string, spec: JobSpec): FieldError[] {
  const errors = findings();
  const isIndexed = spec.completionMode === "Indexed";
  const { backoffLimitPerIndex, maxFailedIndexes, completions = 0, parallelism = 0 } = spec;
  if (backoffLimitPerIndex != null && !isIndexed) {
    errors.push(fieldInvalid(`${at}.backoffLimitPerIndex`, backoffLimitPerIndex, "requires indexed completion mode"));
  }
  if (maxFailedIndexes != null) {
    const path = `${at}.maxFailedIndexes`;
    if (backoffLimitPerIndex == null) {
      errors.push(fieldRequired(`${at}.backoffLimitPerIndex`, "when maxFailedIndexes is specified"));
    }
    if (maxFailedIndexes > completions) {
      errors.push(fieldInvalid(path, maxFailedIndexes, "must be less than or equal to completions"));
    }
    if (maxFailedIndexes > maxIndexed) {
      errors.push(fieldInvalid(path, maxFailedIndexes, `must be less than or equal to ${maxIndexed}`));
    }
  }
  if (backoffLimitPerIndex != null && completions > maxIndexed) {
    if (maxFailedIndexes == null) {
      errors.push(fieldRequired(`${at}.maxFailedIndexes`, `must be specified when completions is above ${maxIndexed}`));
    }
    if (parallelism > maxIndexedParallelism) {
      const why = `must be less than or equal to ${maxIndexedParallelism} when completions are above ${maxIndexed} and used with backoff limit per index`;
      errors.push(fieldInvalid(`${at}.parallelism`, parallelism, why));
    }
  }
  return errors;
}

function validateManagedBy(path: string, value: string | undefined): FieldError[] {
  if (value === undefined) return [];
  const [domain = "", ...rest] = value.split("/");
  const errors = findings();
  if (rest.length !== 1 || rest[0] === "") {
    errors.push(fieldInvalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")'));
  } else errors.push(...checked(path, domain, dns1123Subdomain));
  if (value.length > maxManagedBy)
    errors.push(fieldInvalid(path, value, `must be no more than ${maxManagedBy} characters`));
  return errors;
}

const actions = ["Count", "FailIndex", "FailJob", "Ignore"];

function validateFailureRule(
  at: string,
  rule: PodFailurePolicyRule,
  spec: JobSpec,
  containers: ReadonlySet<string>,
): FieldError[] {
  const errors = findings();
  const { action, onExitCodes, onPodConditions = [] } = rule;
  if (!action)
    errors.push(
      fieldRequired(`${at}.action`, `valid values: ${actions.map((each) => JSON.stringify(each)).join(", ")}`),
    );
  else if (!actions.includes(action)) errors.push(notSupportedInOrder(`${at}.action`, action, actions));
  else if (action === "FailIndex" && spec.backoffLimitPerIndex == null) {
    errors.push(fieldInvalid(`${at}.action`, action, "requires the backoffLimitPerIndex to be set"));
  }
  if (onExitCodes) {
    const path = `${at}.onExitCodes`;
    errors.push(...requiredOneOf(`${path}.operator`, onExitCodes.operator, ["In", "NotIn"]));
    if (onExitCodes.containerName !== undefined && !containers.has(onExitCodes.containerName)) {
      const why = "must be one of the container or initContainer names in the pod template";
      errors.push(fieldInvalid(`${path}.containerName`, onExitCodes.containerName, why));
    }
    errors.push(...validateExitCodes(`${path}.values`, onExitCodes.values ?? [], onExitCodes.operator));
  }
  if (onPodConditions.length > maxPatterns) {
    errors.push(fieldTooMany(`${at}.onPodConditions`, onPodConditions.length, maxPatterns));
  }
  for (const [index, pattern] of onPodConditions.entries()) {
    const path = `${at}.onPodConditions[${index}]`;
    errors.push(...checked(`${path}.type`, pattern.type, qualifiedName));
    errors.push(...requiredOneOf(`${path}.status`, pattern.status, ["False", "True", "Unknown"]));
  }
  if (onExitCodes && onPodConditions.length > 0) {
    errors.push(fieldInvalid(at, rule, "specifying both OnExitCodes and OnPodConditions is not supported"));
  }
  if (!onExitCodes && onPodConditions.length === 0) {
    errors.push(fieldInvalid(at, rule, "specifying one of OnExitCodes and OnPodConditions is required"));
  }
  return errors;
}

function validateExitCodes(path: string, values: readonly number[], operator: string | undefined): FieldError[] {
  if (values.length === 0) return [fieldInvalid(path, values, "at least one value is required")];
  if (values.length > maxExitCodes) return [fieldTooMany(path, values.length, maxExitCodes)];
  const errors = findings();
  const seen = new Set<number>();
  for (const [index, value] of values.entries()) {
    if (operator === "In" && value === 0) {
      errors.push(fieldInvalid(`${path}[${index}]`, value, "must not be 0 for the In operator"));
    }
    if (seen.has(value)) errors.push(fieldDuplicate(`${path}[${index}]`, value));
    else if (index > 0 && values[index - 1]! > value) errors.push(fieldInvalid(path, values, "must be ordered"));
    seen.add(value);
  }
  return errors;
}

function validateSuccess(
  path: string,
  rules: readonly { readonly succeededIndexes?: string; readonly succeededCount?: number }[],
  completions: number,
): FieldError[] {
  if (rules.length === 0)
    return [fieldRequired(`${path}.rules`, "at least one rules must be specified when the successPolicy is specified")];
  const errors = findings();
  if (rules.length > maxSuccessRules) errors.push(fieldTooMany(`${path}.rules`, rules.length, maxSuccessRules));
  for (const [index, rule] of rules.entries()) {
    const at = `${path}.rules[${index}]`;
    const { succeededCount, succeededIndexes } = rule;
    if (succeededCount === undefined && succeededIndexes === undefined) {
      errors.push(fieldRequired(at, "at least one of succeededCount or succeededIndexes must be specified"));
    }
    const total = succeededIndexes === undefined ? completions : indexCount(succeededIndexes, completions);
    if (total === undefined) {
      errors.push(fieldInvalid(`${at}.succeededIndexes`, succeededIndexes, "error parsing succeededIndexes"));
    }
    if (succeededCount === undefined) continue;
    if (succeededCount < 0) {
      errors.push(fieldInvalid(`${at}.succeededCount`, succeededCount, "must be greater than or equal to 0"));
    } else if (succeededCount > completions) {
      const why = `must be less than or equal to ${completions} (the number of specified completions)`;
      errors.push(fieldInvalid(`${at}.succeededCount`, succeededCount, why));
    } else if (succeededIndexes !== undefined && total !== undefined && succeededCount > total) {
      const why = `must be less than or equal to ${total} (the number of indexes in the specified succeededIndexes field)`;
      errors.push(fieldInvalid(`${at}.succeededCount`, succeededCount, why));
    }
  }
  return errors;
}

/** `1,3-5` as how many; undefined where it is not ascending or reaches beyond the completions. */
function indexCount(text: string, completions: number): number | undefined {
  if (text === "") return 0;
  let total = 0;
  let last = -1;
  for (const part of text.split(",")) {
    const match = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part);
    if (!match) return undefined;
    const from = Number(match[1]);
    const to = match[2] === undefined ? from : Number(match[2]);
    if (from <= last || to < from || to >= completions || (match[2] !== undefined && to === from)) return undefined;
    total += to - from + 1;
    last = to;
  }
  return total;
}
