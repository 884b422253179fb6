// Roles and bindings. Upstream: pkg/apis/rbac/validation.
import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject } from "../gen/rbac-v1.ts";
import { type FieldError, fieldForbidden, fieldInvalid, fieldNotSupported, fieldRequired } from "../status.ts";
import { checked, labelSelector, same } from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { invalidGo } from "./go-syntax.ts";
import { dns1123Subdomain } from "./names.ts";

const group = "rbac.authorization.k8s.io";

export const validateRole = (role: Role): FieldError[] => validateRules(role.rules, true);

export function validateClusterRole(role: ClusterRole): FieldError[] {
  const errors = findings(validateRules(role.rules, false));
  if (!role.aggregationRule) return errors;
  const selectors = role.aggregationRule.clusterRoleSelectors ?? [];
  if (selectors.length === 0) {
    errors.push(
      fieldRequired(
        "aggregationRule.clusterRoleSelectors",
        "at least one clusterRoleSelector required if aggregationRule is non-nil",
      ),
    );
  }
  for (const [i, selector] of selectors.entries()) {
    errors.push(...labelSelector(`aggregationRule.clusterRoleSelectors[${i}]`, selector));
  }
  return errors;
}

function validateRules(rules: readonly PolicyRule[] | undefined, isNamespaced: boolean): FieldError[] {
  return eachOf(rules ?? [], (rule, i) => {
    const at = `rules[${i}]`;
    const errors = findings();
    const { verbs = [], nonResourceURLs = [], apiGroups = [], resources = [], resourceNames = [] } = rule;
    if (verbs.length === 0) errors.push(fieldRequired(`${at}.verbs`, "verbs must contain at least one value"));
    if (nonResourceURLs.length > 0) {
      if (isNamespaced) {
        const why = "namespaced rules cannot apply to non-resource URLs";
        errors.push(fieldInvalid(`${at}.nonResourceURLs`, nonResourceURLs, why));
      }
      if (apiGroups.length > 0 || resources.length > 0 || resourceNames.length > 0) {
        const why = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(fieldInvalid(`${at}.nonResourceURLs`, nonResourceURLs, why));
      }
      return errors;
    }
    if (apiGroups.length === 0) {
      errors.push(fieldRequired(`${at}.apiGroups`, "resource rules must supply at least one api group"));
    }
    if (resources.length === 0) {
      errors.push(fieldRequired(`${at}.resources`, "resource rules must supply at least one resource"));
    }
    return errors;
  });
}

export const validateRoleBinding = (binding: RoleBinding): FieldError[] => validateBinding(binding, true);
export const validateClusterRoleBinding = (binding: ClusterRoleBinding): FieldError[] =>
  validateBinding(binding, false);

function validateBinding(binding: RoleBinding | ClusterRoleBinding, isNamespaced: boolean): FieldError[] {
  const errors = findings();
  const { roleRef } = binding;
  if (roleRef?.apiGroup !== group) errors.push(fieldNotSupported("roleRef.apiGroup", roleRef?.apiGroup ?? "", [group]));
  const kinds = isNamespaced ? ["ClusterRole", "Role"] : ["ClusterRole"];
  if (!kinds.includes(roleRef?.kind ?? "")) errors.push(fieldNotSupported("roleRef.kind", roleRef?.kind ?? "", kinds));
  if (!roleRef?.name) errors.push(fieldRequired("roleRef.name"));
  for (const [i, subject] of (binding.subjects ?? []).entries()) {
    errors.push(...validateSubject(`subjects[${i}]`, subject, isNamespaced));
  }
  return errors;
}

function validateSubject(path: string, subject: Subject, isNamespaced: boolean): FieldError[] {
  const errors = findings();
  if (!subject.name) errors.push(fieldRequired(`${path}.name`));
  const apiGroup = subject.apiGroup ?? "";
  switch (subject.kind) {
    case "ServiceAccount":
      if (subject.name) errors.push(...checked(`${path}.name`, subject.name, dns1123Subdomain));
      if (apiGroup !== "") errors.push(fieldNotSupported(`${path}.apiGroup`, apiGroup, [""]));
      if (!isNamespaced && !subject.namespace) errors.push(fieldRequired(`${path}.namespace`));
      break;
    case "User":
    case "Group":
      if (apiGroup !== group) errors.push(fieldNotSupported(`${path}.apiGroup`, apiGroup, [group]));
      if (subject.namespace) errors.push(fieldForbidden(`${path}.namespace`, "may not be set"));
      break;
    default:
      errors.push(fieldNotSupported(`${path}.kind`, subject.kind, ["ServiceAccount", "User", "Group"]));
  }
  return errors;
}

/** Which role a binding grants stays: who may bind one role could otherwise move others to another. */
export function validateRoleBindingUpdate(
  binding: RoleBinding | ClusterRoleBinding,
  old: RoleBinding | ClusterRoleBinding,
): FieldError[] {
  if (same(binding.roleRef, old.roleRef)) return [];
  const { apiGroup, kind, name } = binding.roleRef;
  const shown = `rbac.RoleRef{APIGroup:${JSON.stringify(apiGroup)}, Kind:${JSON.stringify(kind)}, Name:${JSON.stringify(name)}}`;
  return [invalidGo("roleRef", shown, "cannot change roleRef")];
}
