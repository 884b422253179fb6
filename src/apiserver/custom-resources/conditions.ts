// The state of a definition: are its names free, may it be served, who approved its group. Pure.
// Upstream counterpart: apiextensions controllers status (naming), establish, apiapproval.
import type { CustomResourceDefinition, DefinitionCondition, DefinitionNames } from "#model/custom-resources.ts";
import { equalJson } from "#model/patch/json-value.ts";
import { approvalAnnotation, approvalState, isProtectedGroup } from "./definition-validation.ts";

type Status = NonNullable<CustomResourceDefinition["status"]>;

/** The status with the condition; the time moves only where its status does. */
export function withCondition(
  status: Status | undefined,
  now: string,
  condition: Omit<DefinitionCondition, "lastTransitionTime">,
): Status {
  const conditions = status?.conditions ?? [];
  const old = conditions.find(({ type }) => type === condition.type);
  const lastTransitionTime = old?.status === condition.status && old.lastTransitionTime ? old.lastTransitionTime : now;
  const { type, ...rest } = condition;
  const made: DefinitionCondition = {
    type,
    status: rest.status,
    lastTransitionTime,
    reason: rest.reason ?? "",
    message: rest.message ?? "",
  };
  const next = old ? conditions.map((item) => (item === old ? made : item)) : [...conditions, made];
  return { ...status, conditions: next };
}

/** What the status should be; `others` are the accepted names of other definitions of the group. */
export function planStatus(
  definition: CustomResourceDefinition,
  others: readonly DefinitionNames[],
  now: string,
): Status | undefined {
  const { names, conflict } = acceptNames(definition, others);
  let status: Status = { ...definition.status, acceptedNames: names };
  status = withCondition(status, now, {
    type: "NamesAccepted",
    ...(conflict ?? { status: "True", reason: "NoConflicts", message: "no conflicts found" }),
  });
  const wasEstablished = definition.status?.conditions?.find(({ type }) => type === "Established")?.status === "True";
  if (!wasEstablished) {
    status = withCondition(
      status,
      now,
      conflict
        ? { type: "Established", status: "False", reason: "NotAccepted", message: "not all names are accepted" }
        : {
            type: "Established",
            status: "True",
            reason: "InitialNamesAccepted",
            message: "the initial names have been accepted",
          },
    );
  }
  status = withApproval(definition, status, now);
  return equalJson(status, definition.status) ? undefined : status;
}

function withApproval(definition: CustomResourceDefinition, status: Status, now: string): Status {
  if (!isProtectedGroup(definition.spec.group)) return status;
  const type = "KubernetesAPIApprovalPolicyConformant";
  const annotation = definition.metadata.annotations?.[approvalAnnotation] ?? "";
  const quoted = JSON.stringify(approvalAnnotation);
  const link = "https://github.com/kubernetes/enhancements/pull/1111";
  switch (approvalState(annotation)) {
    case "approved":
      return withCondition(status, now, {
        type,
        status: "True",
        reason: "ApprovedAnnotation",
        message: `approved in ${annotation}`,
      });
    case "bypassed":
      return withCondition(status, now, {
        type,
        status: "False",
        reason: "UnapprovedAnnotation",
        message: `not approved: ${JSON.stringify(annotation)}`,
      });
    case "invalid":
      return withCondition(status, now, {
        type,
        status: "False",
        reason: "InvalidAnnotation",
        message: `protected groups must have approval annotation ${quoted} with either a URL or a reason starting with "unapproved", see ${link}`,
      });
    default:
      return withCondition(status, now, {
        type,
        status: "False",
        reason: "MissingAnnotation",
        message: `protected groups must have approval annotation ${quoted}, see ${link}`,
      });
  }
}

type Conflict = Omit<DefinitionCondition, "type" | "lastTransitionTime">;

/** Names that are taken keep what was accepted before. */
function acceptNames(
  definition: CustomResourceDefinition,
  others: readonly DefinitionNames[],
): { readonly names: DefinitionNames; readonly conflict: Conflict | undefined } {
  const wanted = definition.spec.names;
  const accepted: DefinitionNames = definition.status?.acceptedNames ?? { plural: "", kind: "" };
  const resources = new Set(others.flatMap((n) => [n.plural, n.singular ?? "", ...(n.shortNames ?? [])]));
  const kinds = new Set(others.flatMap((n) => [n.kind, n.listKind ?? ""]));
  resources.delete("");
  kinds.delete("");
  let conflict: Conflict | undefined;
  const clash = (reason: string, name: string) => {
    conflict = { status: "False", reason, message: `${JSON.stringify(name)} is already in use` };
  };
  const names: DefinitionNames = { ...accepted };
  if (resources.has(wanted.plural)) clash("PluralConflict", wanted.plural);
  else names.plural = wanted.plural;
  if (wanted.singular !== undefined) {
    if (resources.has(wanted.singular)) clash("SingularConflict", wanted.singular);
    else names.singular = wanted.singular;
  }
  const taken = (wanted.shortNames ?? []).filter((name) => resources.has(name));
  if (taken.length > 0) clash("ShortNamesConflict", taken.join(","));
  else if (wanted.shortNames && wanted.shortNames.length > 0) names.shortNames = wanted.shortNames;
  else delete names.shortNames;
  if (kinds.has(wanted.kind)) clash("KindConflict", wanted.kind);
  else names.kind = wanted.kind;
  if (wanted.listKind !== undefined) {
    if (kinds.has(wanted.listKind)) clash("ListKindConflict", wanted.listKind);
    else names.listKind = wanted.listKind;
  }
  if (wanted.categories && wanted.categories.length > 0) names.categories = wanted.categories;
  else delete names.categories;
  return { names, conflict };
}
