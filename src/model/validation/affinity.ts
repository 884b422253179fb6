// Where a pod may go: affinity, tolerations, topology spread. Upstream: validateAffinity, ValidateTolerations.
import type {
  Affinity,
  NodeSelectorTerm,
  PodAffinityTerm,
  Toleration,
  TopologySpreadConstraint,
} from "../gen/core-v1.ts";
import { type FieldError, fieldInvalid, fieldRequired } from "../status.ts";
import { checked, labelSelector, noDuplicates, requiredOneOf, valuesOfOperator } from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { labelValue, qualifiedName } from "./names.ts";

export function validateTolerations(path: string, tolerations: readonly Toleration[]): FieldError[] {
  return eachOf(tolerations, (toleration, i) => {
    const at = `${path}[${i}]`;
    const { key = "", operator = "", value = "", effect = "", tolerationSeconds } = toleration;
    const errors = findings(key === "" ? [] : checked(`${at}.key`, key, qualifiedName));
    if (key === "" && operator !== "Exists") {
      const why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"';
      errors.push(fieldInvalid(`${at}.operator`, operator, why));
    }
    if (tolerationSeconds != null && effect !== "NoExecute") {
      errors.push(fieldInvalid(`${at}.effect`, effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"));
    }
    if (operator === "Exists") {
      if (value !== "") {
        errors.push(fieldInvalid(`${at}.operator`, toleration, "value must be empty when `operator` is 'Exists'"));
      }
    } else if (operator === "" || operator === "Equal") {
      errors.push(...checked(`${at}.operator`, value, labelValue));
    } else errors.push(...requiredOneOf(`${at}.operator`, operator, ["Equal", "Exists"]));
    if (effect !== "") {
      errors.push(...requiredOneOf(`${at}.effect`, effect, ["NoSchedule", "PreferNoSchedule", "NoExecute"]));
    }
    return errors;
  });
}

export function validateAffinity(path: string, affinity: Affinity | undefined): FieldError[] {
  if (!affinity) return [];
  const errors = findings();
  const node = affinity.nodeAffinity;
  const required = "requiredDuringSchedulingIgnoredDuringExecution";
  const preferred = "preferredDuringSchedulingIgnoredDuringExecution";
  if (node?.[required]) {
    const at = `${path}.nodeAffinity.${required}.nodeSelectorTerms`;
    const terms = node[required].nodeSelectorTerms ?? [];
    if (terms.length === 0) errors.push(fieldRequired(at, "must have at least one node selector term"));
    for (const [i, term] of terms.entries()) errors.push(...validateNodeTerm(`${at}[${i}]`, term));
  }
  for (const [i, entry] of (node?.[preferred] ?? []).entries()) {
    const at = `${path}.nodeAffinity.${preferred}[${i}]`;
    if (entry.weight <= 0 || entry.weight > 100) {
      errors.push(fieldInvalid(`${at}.weight`, entry.weight, "must be in the range 1-100"));
    }
    errors.push(...validateNodeTerm(`${at}.preference`, entry.preference));
  }
  for (const kind of ["podAffinity", "podAntiAffinity"] as const) {
    const pod = affinity[kind];
    for (const [i, term] of (pod?.[required] ?? []).entries()) {
      errors.push(...validatePodTerm(`${path}.${kind}.${required}[${i}]`, term));
    }
    for (const [i, entry] of (pod?.[preferred] ?? []).entries()) {
      const at = `${path}.${kind}.${preferred}[${i}]`;
      if (entry.weight <= 0 || entry.weight > 100) {
        errors.push(fieldInvalid(`${at}.weight`, entry.weight, "must be in the range 1-100"));
      }
      errors.push(...validatePodTerm(`${at}.podAffinityTerm`, entry.podAffinityTerm));
    }
  }
  return errors;
}

export function validateNodeTerm(path: string, term: NodeSelectorTerm | undefined): FieldError[] {
  const errors = findings();
  for (const [i, { key, operator, values = [] }] of (term?.matchExpressions ?? []).entries()) {
    const at = `${path}.matchExpressions[${i}]`;
    const known = valuesOfOperator(at, operator, values);
    if (known) errors.push(...known);
    else if (operator !== "Gt" && operator !== "Lt") {
      errors.push(fieldInvalid(`${at}.operator`, operator, "not a valid selector operator"));
    } else if (values.length !== 1) {
      errors.push(fieldRequired(`${at}.values`, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
    }
    errors.push(...checked(`${at}.key`, key, qualifiedName));
  }
  for (const [i, { key, operator, values = [] }] of (term?.matchFields ?? []).entries()) {
    const at = `${path}.matchFields[${i}]`;
    if (operator !== "In" && operator !== "NotIn") {
      errors.push(fieldInvalid(`${at}.operator`, operator, "not a valid selector operator"));
    } else if (values.length !== 1) {
      errors.push(
        fieldRequired(
          `${at}.values`,
          "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
      );
    }
    if (key !== "metadata.name") errors.push(fieldInvalid(`${at}.key`, key, "not a valid field selector key"));
  }
  return errors;
}

function validatePodTerm(path: string, term: PodAffinityTerm): FieldError[] {
  const errors = findings([
    ...labelSelector(`${path}.labelSelector`, term.labelSelector),
    ...labelSelector(`${path}.namespaceSelector`, term.namespaceSelector),
  ]);
  if (!term.topologyKey) errors.push(fieldRequired(`${path}.topologyKey`, "can not be empty"));
  return [...errors, ...checked(`${path}.topologyKey`, term.topologyKey ?? "", qualifiedName)];
}

export function validateTopologySpread(path: string, constraints: readonly TopologySpreadConstraint[]): FieldError[] {
  const errors = eachOf(constraints, (constraint, i) => {
    const at = `${path}[${i}]`;
    const found: FieldError[] = [];
    if (!(constraint.maxSkew > 0))
      found.push(fieldInvalid(`${at}.maxSkew`, constraint.maxSkew, "must be greater than zero"));
    if (!constraint.topologyKey) found.push(fieldRequired(`${at}.topologyKey`, "can not be empty"));
    found.push(
      ...requiredOneOf(`${at}.whenUnsatisfiable`, constraint.whenUnsatisfiable, ["DoNotSchedule", "ScheduleAnyway"]),
    );
    return [...found, ...labelSelector(`${at}.labelSelector`, constraint.labelSelector)];
  });
  const key = (c: TopologySpreadConstraint) => `{${c.topologyKey}, ${c.whenUnsatisfiable}}`;
  return [...errors, ...noDuplicates(constraints, key, (i) => `${path}[${i}].{topologyKey, whenUnsatisfiable}`)];
}
