// Is a request one that a policy (or later a webhook) wants to be asked about: rules by operation, group, version,
// resource and scope, and selectors of labels. Pure. Upstream: apiserver/pkg/admission/plugin/{policy/matching,webhook/predicates}.
import type { MatchResources, NamedRuleWithOperations } from "#model/gen/admissionregistration-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import type { ApiObject } from "#model/object.ts";
import { allResources } from "#model/resources.ts";
import type { AdmissionRequest } from "../plugin.ts";

export type Matched = Pick<
  AdmissionRequest,
  "operation" | "resource" | "subresource" | "name" | "object" | "oldObject"
>;

/** `namespace` is that of the request; undefined for what has none. An absent list of rules matches everything. */
export function matchesResources(
  match: MatchResources | undefined,
  request: Matched,
  namespace: ApiObject | undefined,
): boolean {
  if (!match) return true;
  const { namespaceSelector, objectSelector, matchPolicy, resourceRules = [], excludeResourceRules = [] } = match;
  const matches = (rule: NamedRuleWithOperations) => matchesRule(rule, request, matchPolicy !== "Exact");
  if (excludeResourceRules.some(matches)) return false;
  if (resourceRules.length > 0 && !resourceRules.some(matches)) return false;
  return matchesNamespace(namespaceSelector, request, namespace) && matchesObject(objectSelector, request);
}

type Selector = MatchResources["objectSelector"];

const isNamespace = ({ resource }: Matched): boolean => resource.group === "" && resource.plural === "namespaces";

function matchesNamespace(selector: Selector, request: Matched, namespace: ApiObject | undefined): boolean {
  if (!selector) return true;
  // A namespace is judged by its own labels; what has no namespace by none.
  const judged = isNamespace(request) ? (request.object ?? request.oldObject) : namespace;
  if (!judged) return true;
  return matchesLabelSelector(selector, judged.metadata.labels);
}

/** Either the new or the old object: nobody slips away by taking a label off. */
function matchesObject(selector: Selector, { object, oldObject }: Matched): boolean {
  if (!selector) return true;
  return [object, oldObject].some((each) => each !== undefined && matchesLabelSelector(selector, each.metadata.labels));
}

const has = (list: readonly string[] | undefined, value: string): boolean =>
  list?.includes("*") === true || list?.includes(value) === true;

function matchesRule(rule: NamedRuleWithOperations, request: Matched, isEquivalent: boolean): boolean {
  const { resource, subresource, operation, name } = request;
  const { scope = "*", resourceNames = [] } = rule;
  if (!has(rule.operations, operation)) return false;
  if (scope === "Cluster" && resource.namespaced) return false;
  // A namespace object lives in no namespace, whatever its path looks like.
  if (scope === "Namespaced" && !resource.namespaced) return false;
  if (resourceNames.length > 0 && !resourceNames.includes(name)) return false;
  if (!(rule.resources ?? []).some((pattern) => matchesResource(pattern, resource.plural, subresource))) return false;
  const versions = isEquivalent ? versionsOf(request) : [resource];
  return versions.some(({ group, version }) => has(rule.apiGroups, group) && has(rule.apiVersions, version));
}

function matchesResource(pattern: string, plural: string, subresource: string): boolean {
  const [resource = "", part = ""] = pattern.split("/");
  return (resource === "*" || resource === plural) && (part === subresource || part === "*");
}

/** The groups and versions under which the same object can be had. */
function versionsOf({ resource }: Matched): readonly { readonly group: string; readonly version: string }[] {
  const rows = allResources.filter(
    (row) => row.plural === resource.plural && row.storageGroup === resource.storageGroup && row.kind === resource.kind,
  );
  return rows.length > 0 ? rows : [resource];
}
