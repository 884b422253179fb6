// Resource quotas: names of resources, amounts, and which scopes go with which. Upstream:
// ValidateResourceQuota in pkg/apis/core/validation.
import type { ResourceQuota } from "../gen/core-v1.ts";
import { isStandardQuotaResource, isWholeQuotaResource, podComputeResources } from "../quota/resources.ts";
import { type FieldError, fieldInvalid, fieldRequired } from "../status.ts";
import { isWhole, nanoOf } from "./amount.ts";
import { checked, quantity, same } from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { qualifiedName } from "./names.ts";

const scopes = [
  "BestEffort",
  "CrossNamespacePodAffinity",
  "NotBestEffort",
  "NotTerminating",
  "PriorityClass",
  "Terminating",
];
const opposites: readonly (readonly [string, string])[] = [
  ["BestEffort", "NotBestEffort"],
  ["Terminating", "NotTerminating"],
];

export function validateResourceQuota({ spec, status }: ResourceQuota): FieldError[] {
  const hard = Object.keys(spec?.hard ?? {});
  return [
    ...amounts("spec.hard", spec?.hard),
    ...amounts("status.hard", status?.hard),
    ...amounts("status.used", status?.used),
    ...validateScopes("spec.scopes", spec?.scopes ?? [], hard, spec?.scopes),
    ...validateSelector(spec?.scopeSelector?.matchExpressions ?? [], hard),
  ];
}

function amounts(at: string, list: Readonly<Record<string, string | number>> | undefined): FieldError[] {
  return eachOf(Object.entries(list ?? {}), ([name, amount]) => {
    const path = `${at}[${name}]`;
    const errors = findings(checked(path, name, qualifiedName));
    if (!name.includes("/") && !isStandardQuotaResource(name)) {
      // Of a single container, not of a namespace.
      if (name !== "storage")
        errors.push(fieldInvalid(path, name, "must be a standard resource type or fully qualified"));
      errors.push(fieldInvalid(path, name, "must be a standard resource for quotas"));
    }
    errors.push(...quantity(path, amount));
    const nano = nanoOf(amount);
    if (isWholeQuotaResource(name) && nano !== undefined && !isWhole(nano)) {
      errors.push(fieldInvalid(path, String(amount), "must be an integer"));
    }
    return errors;
  });
}

function validateScopes(path: string, used: readonly string[], hard: readonly string[], value: unknown): FieldError[] {
  const errors = findings();
  const known = new Set(used);
  for (const scope of known) {
    if (!scopes.includes(scope)) errors.push(fieldInvalid(path, value, "unsupported scope"));
    else if (hard.some((name) => isStandardQuotaResource(name) && !isLimitedBy(scope, name))) {
      errors.push(fieldInvalid(path, value, "unsupported scope applied to resource"));
    }
  }
  if (opposites.some(([a, b]) => known.has(a) && known.has(b))) {
    errors.push(fieldInvalid(path, value, "conflicting scopes"));
  }
  return errors;
}

/** Pods that ask for nothing can only be counted. */
const isLimitedBy = (scope: string, name: string): boolean =>
  scope === "BestEffort" ? name === "pods" : podComputeResources.has(name);

interface Expression {
  readonly scopeName?: string;
  readonly operator?: string;
  readonly values?: readonly string[];
}

function validateSelector(expressions: readonly Expression[], hard: readonly string[]): FieldError[] {
  const path = "spec.scopeSelector.matchExpressions";
  const errors = findings();
  for (const { scopeName = "", operator = "", values = [] } of expressions) {
    if (scopeName === "") errors.push(fieldRequired(`${path}.scopeName`));
    else if (!scopes.includes(scopeName))
      errors.push(fieldInvalid(`${path}.scopeName`, scopeName, "unsupported scope"));
    const needsExists = scopeName !== "PriorityClass" && scopes.includes(scopeName);
    if (needsExists && operator !== "Exists") {
      const why = `must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity`;
      errors.push(fieldInvalid(`${path}.operator`, operator, why));
    }
    if (operator === "In" || operator === "NotIn") {
      if (values.length === 0) {
        const why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
        errors.push(fieldRequired(`${path}.values`, why));
      }
    } else if (operator === "Exists" || operator === "DoesNotExist") {
      if (values.length > 0) {
        const why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
        errors.push(fieldInvalid(`${path}.values`, values, why));
      }
    } else errors.push(fieldInvalid(`${path}.operator`, operator, "not a valid selector operator"));
  }
  const names = expressions.map(({ scopeName }) => scopeName ?? "").filter((name) => scopes.includes(name));
  return [...errors, ...validateScopes(path, names, hard, expressions)];
}

/** Scopes stay: what was counted under others would be wrong. */
export function validateResourceQuotaUpdate(quota: ResourceQuota, old: ResourceQuota): FieldError[] {
  const errors = findings();
  const set = (list: readonly string[] | undefined) => [...(list ?? [])].sort();
  if (!same(set(quota.spec?.scopes), set(old.spec?.scopes))) {
    errors.push(fieldInvalid("spec.scopes", quota.spec?.scopes, "field is immutable"));
  }
  if (!same(quota.spec?.scopeSelector, old.spec?.scopeSelector)) {
    errors.push(fieldInvalid("spec.scopeSelector", quota.spec?.scopeSelector, "field is immutable"));
  }
  return errors;
}
