// Field selectors: `metadata.name=x,status.phase!=Running`. Only equality, joined by commas; `\` escapes `,`, `=`, `\`.
// Which fields a resource offers is data: fieldsOf(). Upstream counterpart: k8s.io/apimachinery/pkg/fields.
import { qualifiedResource, type ResourceInfo } from "./resource-info.ts";
import { badRequest } from "./status.ts";

export interface FieldRequirement {
  readonly field: string;
  readonly operator: "=" | "!=";
  readonly value: string;
}

/** Selectable fields besides metadata.name and metadata.namespace, by qualified resource. */
const selectable: Readonly<Record<string, readonly string[]>> = {
  pods: [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
  ],
  nodes: ["spec.unschedulable"],
  namespaces: ["status.phase"],
  secrets: ["type"],
  services: ["spec.clusterIP", "spec.type"],
  replicationcontrollers: ["status.replicas"],
  "replicasets.apps": ["status.replicas"],
  "jobs.batch": ["status.successful"],
  "certificatesigningrequests.certificates.k8s.io": ["spec.signerName"],
  events: [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
  ],
  "events.events.k8s.io": [
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
  ],
};
/** Fields whose zero value is compared as this text. */
const zeroTexts: Readonly<Record<string, string>> = {
  "spec.unschedulable": "false",
  "spec.hostNetwork": "false",
  "status.replicas": "0",
  "status.successful": "0",
};

export const selectableFields = (info: ResourceInfo, own: readonly string[] = []): readonly string[] => [
  "metadata.name",
  ...(info.namespaced ? ["metadata.namespace"] : []),
  ...(selectable[qualifiedResource(info)] ?? own),
];

/** Rejects with BadRequest. An empty string selects everything. */
export function parseFieldSelector(text: string): FieldRequirement[] {
  const requirements: FieldRequirement[] = [];
  for (const term of splitTerms(text)) {
    if (term === "") continue;
    const match = /^((?:[^\\=!]|\\.)*?)(==|!=|=)(.*)$/s.exec(term);
    if (!match) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
    requirements.push({
      field: unescapeTerm(match[1]!, text),
      operator: match[2] === "!=" ? "!=" : "=",
      value: unescapeTerm(match[3]!, text),
    });
  }
  return requirements;
}

/** Rejects with BadRequest for a field the resource does not offer. `own`: those of a custom resource. */
export function checkFields(
  info: ResourceInfo,
  requirements: readonly FieldRequirement[],
  own?: readonly string[],
): void {
  const known = selectableFields(info, own);
  for (const { field } of requirements) {
    if (known.includes(field)) continue;
    const specific = selectable[qualifiedResource(info)] ?? (own?.length ? own : undefined);
    throw badRequest(
      specific
        ? `field label not supported: ${field}`
        : `${JSON.stringify(field)} is not a known field selector: only "metadata.name", "metadata.namespace"`,
    );
  }
}

export function matchesFields(requirements: readonly FieldRequirement[], object: object): boolean {
  return requirements.every(
    ({ field, operator, value }) => (fieldText(object, field) === value) === (operator === "="),
  );
}

/** The text a field is compared by; absent is the empty string. */
export function fieldText(object: object, field: string): string {
  if (field === "status.podIPs") {
    const ips = at(object, ["status", "podIPs"]);
    return Array.isArray(ips) ? ips.map((entry: { ip?: string }) => entry.ip ?? "").join(",") : "";
  }
  if (field === "source") {
    const component = at(object, ["source", "component"]);
    return String(component ?? at(object, ["reportingComponent"]) ?? "");
  }
  if (field === "status.successful") return String(at(object, ["status", "succeeded"]) ?? 0);
  const value = at(object, field.split("."));
  return value === undefined || value === null ? (zeroTexts[field] ?? "") : String(value);
}

function at(object: object, path: readonly string[]): unknown {
  let current: unknown = object;
  for (const part of path) {
    if (typeof current !== "object" || current === null || !Object.hasOwn(current, part)) return undefined;
    current = (current as Record<string, unknown>)[part];
  }
  return current;
}

function splitTerms(text: string): string[] {
  const terms: string[] = [];
  let start = 0;
  for (let index = 0; index < text.length; index++) {
    if (text[index] === "\\") index++;
    else if (text[index] === ",") {
      terms.push(text.slice(start, index));
      start = index + 1;
    }
  }
  terms.push(text.slice(start));
  return terms;
}

function unescapeTerm(text: string, whole: string): string {
  return text.replace(/\\(.?)|[=,]/gs, (sequence, escaped: string | undefined) => {
    if (escaped !== undefined && /^[\\,=]$/.test(escaped)) return escaped;
    throw badRequest(
      `invalid field selector: invalid escape sequence ${JSON.stringify(sequence)} in ${JSON.stringify(whole)}`,
    );
  });
}
