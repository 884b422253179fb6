// Flow schemas and priority levels, runtime and ingress classes, certificate signing requests: small kinds of the
// cluster's administration. Upstream: pkg/apis/{flowcontrol,node,networking,certificates}/validation.
import { parseSigningRequest } from "#wire/pkcs10.ts";
import type { CertificateSigningRequest } from "../gen/certificates-v1.ts";
import type { FlowSchema, PolicyRulesWithSubjects, PriorityLevelConfiguration } from "../gen/flowcontrol-v1.ts";
import type { IngressClass } from "../gen/networking-v1.ts";
import type { RuntimeClass } from "../gen/node-v1.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldRequired,
  fieldTooLong,
} from "../status.ts";
import { checked, labels, oneOf, quantity, requiredName, unchanged } from "./checks.ts";
import { findings } from "./findings.ts";
import { notSupportedInOrder } from "./go-syntax.ts";
import { dns1123Label, dns1123Subdomain, pathSegment } from "./names.ts";

const maxPrecedence = 10_000;
const flowVerbs = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

export function validateFlowSchema({ metadata, spec }: FlowSchema): FieldError[] {
  const errors = findings();
  const precedence = spec.matchingPrecedence ?? 0;
  const at = "spec.matchingPrecedence";
  if (precedence <= 0) errors.push(fieldInvalid(at, precedence, "must be a positive value"));
  if (precedence > maxPrecedence)
    errors.push(fieldInvalid(at, precedence, `must not be greater than ${maxPrecedence}`));
  if (precedence === 1 && metadata.name !== "exempt") {
    errors.push(fieldInvalid(at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"));
  }
  const type = spec.distinguisherMethod?.type;
  if (spec.distinguisherMethod && type !== "ByNamespace" && type !== "ByUser") {
    errors.push(notSupportedInOrder("spec.distinguisherMethod.type", type ?? "", ["ByNamespace", "ByUser"]));
  }
  const level = spec.priorityLevelConfiguration?.name;
  const path = "spec.priorityLevelConfiguration.name";
  if (!level) errors.push(fieldRequired(path, "must reference a priority level"));
  else errors.push(...checked(path, level, dns1123Subdomain));
  for (const [index, rule] of (spec.rules ?? []).entries())
    errors.push(...validateFlowRule(`spec.rules[${index}]`, rule));
  return errors;
}

function validateFlowRule(at: string, rule: PolicyRulesWithSubjects): FieldError[] {
  const errors = findings();
  const subjects = rule.subjects ?? [];
  if (subjects.length === 0) errors.push(fieldRequired(`${at}.subjects`, "subjects must contain at least one value"));
  for (const [index, subject] of subjects.entries()) {
    const path = `${at}.subjects[${index}]`;
    const field = { User: "user", Group: "group", ServiceAccount: "serviceAccount" }[subject.kind ?? ""] as
      | "user"
      | "group"
      | "serviceAccount"
      | undefined;
    if (!field) {
      errors.push(notSupportedInOrder(`${path}.kind`, subject.kind ?? "", ["Group", "ServiceAccount", "User"]));
      continue;
    }
    const who = subject[field];
    if (!who)
      errors.push(fieldRequired(`${path}.${field}`, `${field} is required when subject kind is '${subject.kind}'`));
    else if (!who.name) errors.push(fieldRequired(`${path}.${field}.name`));
    if (field === "serviceAccount" && subject.serviceAccount && !subject.serviceAccount.namespace) {
      errors.push(fieldRequired(`${path}.serviceAccount.namespace`, "must specify namespace for service account"));
    }
    for (const other of ["user", "group", "serviceAccount"] as const) {
      if (other === field || !subject[other]) continue;
      errors.push(fieldForbidden(`${path}.${other}`, `${other} is forbidden when subject kind is not '${other}'`));
    }
  }
  const resources = rule.resourceRules ?? [];
  const plain = rule.nonResourceRules ?? [];
  if (resources.length + plain.length === 0) {
    errors.push(fieldRequired(at, "at least one of resourceRules and nonResourceRules has to be non-empty"));
  }
  for (const [index, each] of resources.entries()) {
    const path = `${at}.resourceRules[${index}]`;
    errors.push(...starList(`${path}.verbs`, each.verbs, "verbs must contain at least one value", "verbs", flowVerbs));
    errors.push(
      ...starList(
        `${path}.apiGroups`,
        each.apiGroups,
        "resource rules must supply at least one api group",
        "api groups",
      ),
    );
    errors.push(
      ...starList(`${path}.resources`, each.resources, "resource rules must supply at least one resource", "resources"),
    );
    if ((each.namespaces ?? []).length === 0 && !each.clusterScope) {
      const why = "resource rules that are not cluster scoped must supply at least one namespace";
      errors.push(fieldRequired(`${path}.namespaces`, why));
    } else if ((each.namespaces ?? []).length > 1 && each.namespaces.includes("*")) {
      errors.push(
        fieldInvalid(`${path}.namespaces`, each.namespaces, "if '*' is present, must not specify other namespaces"),
      );
    }
  }
  for (const [index, each] of plain.entries()) {
    const path = `${at}.nonResourceRules[${index}]`;
    const verbs = ["delete", "get", "head", "options", "patch", "post", "put"];
    errors.push(...starList(`${path}.verbs`, each.verbs, "verbs must contain at least one value", "verbs", verbs));
    const why = "nonResourceURLs must contain at least one value";
    errors.push(...starList(`${path}.nonResourceURLs`, each.nonResourceURLs, why, "non-resource URLs"));
  }
  return errors;
}

function starList(
  path: string,
  values: readonly string[] | undefined,
  whenEmpty: string,
  what: string,
  known?: readonly string[],
): FieldError[] {
  const list = values ?? [];
  if (list.length === 0) return [fieldRequired(path, whenEmpty)];
  if (list.includes("*")) {
    return list.length === 1 ? [] : [fieldInvalid(path, list, `if '*' is present, must not specify other ${what}`)];
  }
  const odd = known ? list.filter((value) => !known.includes(value)) : [];
  return odd.length === 0 ? [] : [notSupportedInOrder(path, list as never, known!)];
}

export function validatePriorityLevel({ metadata, spec }: PriorityLevelConfiguration): FieldError[] {
  const errors = findings();
  const isExempt = metadata.name === "exempt";
  if (isExempt !== (spec.type === "Exempt")) {
    const why = isExempt ? "must be 'Exempt'" : "must be 'Limited'";
    errors.push(fieldInvalid("spec.type", spec.type, why));
  }
  if (spec.type !== "Exempt" && spec.type !== "Limited") {
    errors.push(notSupportedInOrder("spec.type", spec.type ?? "", ["Exempt", "Limited"]));
    return errors;
  }
  if (spec.type === "Exempt") {
    if (spec.limited) errors.push(fieldForbidden("spec.limited", "must be nil if the type is not Limited"));
    errors.push(...shares("spec.exempt", spec.exempt));
    return errors;
  }
  if (spec.exempt) errors.push(fieldForbidden("spec.exempt", "must be nil if the type is Limited"));
  if (!spec.limited) return [...errors, fieldRequired("spec.limited", "must not be empty when type is Limited")];
  const { limited } = spec;
  errors.push(...shares("spec.limited", limited));
  if (limited.borrowingLimitPercent !== undefined && limited.borrowingLimitPercent < 0) {
    const why = "if specified, must be a non-negative integer";
    errors.push(fieldInvalid("spec.limited.borrowingLimitPercent", limited.borrowingLimitPercent, why));
  }
  const at = "spec.limited.limitResponse";
  const { type, queuing } = limited.limitResponse ?? {};
  if (type === "Reject") {
    if (queuing)
      errors.push(fieldForbidden(`${at}.queuing`, "must be nil if limited.limitResponse.type is not Limited"));
  } else if (type === "Queue") {
    if (!queuing)
      errors.push(fieldRequired(`${at}.queuing`, "must not be empty if limited.limitResponse.type is Limited"));
    else {
      for (const field of ["queueLengthLimit", "queues", "handSize"] as const) {
        if (!(queuing[field] > 0))
          errors.push(fieldInvalid(`${at}.queuing.${field}`, queuing[field], "must be positive"));
      }
      if (queuing.handSize > queuing.queues) {
        const why = `should not be greater than queues (${queuing.queues})`;
        errors.push(fieldInvalid(`${at}.queuing.handSize`, queuing.handSize, why));
      }
    }
  } else errors.push(notSupportedInOrder(`${at}.type`, type ?? "", ["Queue", "Reject"]));
  return errors;
}

function shares(
  at: string,
  level: { readonly nominalConcurrencyShares?: number; readonly lendablePercent?: number } | undefined,
): FieldError[] {
  const errors = findings();
  const { nominalConcurrencyShares: count, lendablePercent: percent } = level ?? {};
  if (count !== undefined && count < 0) {
    errors.push(fieldInvalid(`${at}.nominalConcurrencyShares`, count, "must be a non-negative integer"));
  }
  if (percent !== undefined && (percent < 0 || percent > 100)) {
    errors.push(fieldInvalid(`${at}.lendablePercent`, percent, "must be between 0 and 100, inclusive"));
  }
  return errors;
}

export function validateRuntimeClass({ handler, overhead, scheduling }: RuntimeClass): FieldError[] {
  const errors = findings(checked("handler", handler, dns1123Label));
  for (const [name, amount] of Object.entries(overhead?.podFixed ?? {})) {
    errors.push(...quantity(`overhead.podFixed[${name}]`, amount));
  }
  return [...errors, ...labels("scheduling.nodeSelector", scheduling?.nodeSelector)];
}

export const validateRuntimeClassUpdate = (next: RuntimeClass, old: RuntimeClass): FieldError[] =>
  unchanged("handler", next.handler, old.handler);

const maxController = 250;

export function validateIngressClass({ spec }: IngressClass): FieldError[] {
  const errors = findings();
  const controller = spec?.controller ?? "";
  if (controller.length > maxController) errors.push(fieldTooLong("spec.controller", maxController));
  const [domain = "", ...rest] = controller.split("/");
  if (controller !== "" && (rest.length === 0 || rest[0] === "")) {
    errors.push(fieldInvalid("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")'));
  } else if (controller !== "") errors.push(...checked("spec.controller", domain, dns1123Subdomain));
  const parameters = spec?.parameters;
  if (!parameters) return errors;
  const at = "spec.parameters";
  if (parameters.apiGroup) errors.push(...checked(`${at}.apiGroup`, parameters.apiGroup, dns1123Subdomain));
  errors.push(...requiredName(`${at}.kind`, parameters.kind, pathSegment));
  errors.push(...requiredName(`${at}.name`, parameters.name, pathSegment));
  errors.push(...oneOf(`${at}.scope`, parameters.scope, ["Cluster", "Namespace"]));
  if (parameters.scope === "Namespace" && !parameters.namespace) {
    errors.push(fieldRequired(`${at}.namespace`, "`parameters.scope` is set to 'Namespace'"));
  }
  if (parameters.scope === "Cluster" && parameters.namespace !== undefined) {
    errors.push(fieldForbidden(`${at}.namespace`, "`parameters.scope` is set to 'Cluster'"));
  }
  return errors;
}

export const validateIngressClassUpdate = (next: IngressClass, old: IngressClass): FieldError[] =>
  unchanged("spec.controller", next.spec?.controller, old.spec?.controller);

const usages = [
  "signing",
  "digital signature",
  "content commitment",
  "key encipherment",
  "key agreement",
  "data encipherment",
  "cert sign",
  "crl sign",
  "encipher only",
  "decipher only",
  "any",
  "server auth",
  "client auth",
  "code signing",
  "email protection",
  "s/mime",
  "ipsec end system",
  "ipsec tunnel",
  "ipsec user",
  "timestamping",
  "ocsp signing",
  "microsoft sgc",
  "netscape sgc",
];
const shortestSeconds = 600;

export function validateSigningRequest({ spec }: CertificateSigningRequest): FieldError[] {
  const errors = findings();
  const pem = Buffer.from(spec.request ?? "", "base64").toString("latin1");
  if (!spec.request) errors.push(fieldInvalid("spec.request", [], "PEM block type must be CERTIFICATE REQUEST"));
  else if (!parseSigningRequest(pem)) {
    errors.push(
      fieldInvalid("spec.request", spec.request, "unable to parse csr: PEM block type must be CERTIFICATE REQUEST"),
    );
  }
  if ((spec.usages ?? []).length === 0) errors.push(fieldRequired("spec.usages"));
  const seen = new Set<string>();
  for (const [index, usage] of (spec.usages ?? []).entries()) {
    if (!usages.includes(usage)) errors.push(notSupportedInOrder(`spec.usages[${index}]`, usage, [...usages].sort()));
    if (seen.has(usage)) errors.push(fieldDuplicate(`spec.usages[${index}]`, usage));
    seen.add(usage);
  }
  errors.push(...validateSignerName("spec.signerName", spec.signerName));
  if (spec.signerName === "kubernetes.io/legacy-unknown") {
    errors.push(
      fieldInvalid("spec.signerName", spec.signerName, "the legacy signerName is not allowed via this API version"),
    );
  }
  if (spec.expirationSeconds !== undefined && spec.expirationSeconds < shortestSeconds) {
    const why = "may not specify a duration less than 600 seconds (10 minutes)";
    errors.push(fieldInvalid("spec.expirationSeconds", spec.expirationSeconds, why));
  }
  return errors;
}

function validateSignerName(path: string, name: string | undefined): FieldError[] {
  if (!name) return [fieldRequired(path)];
  const slash = name.indexOf("/");
  if (slash <= 0 || slash === name.length - 1) {
    const why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    return [fieldInvalid(path, name, why)];
  }
  const domain = name.slice(0, slash);
  const errors = findings(checked(path, domain, dns1123Subdomain));
  if (domain.split(".").length < 2) {
    errors.push(fieldInvalid(path, domain, "should be a domain with at least two segments separated by dots"));
  }
  for (const part of name.slice(slash + 1).split(".")) errors.push(...checked(path, part, dns1123Label));
  return errors;
}
