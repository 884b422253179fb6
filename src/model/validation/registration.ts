// Webhook configurations and admission policies: what can be said of them without evaluating an expression. Upstream:
// pkg/apis/admissionregistration/validation and kube-aggregator/pkg/apis/apiregistration/validation.

import type { ApiService } from "../api-services.ts";
import { compileExpression } from "../cel/expression.ts";
import { type Environment, policyEnvironment, webhookEnvironment } from "../cel/policy-environment.ts";
import { boolType, type CelType, dynType, stringType } from "../cel/types.ts";
import type {
  MatchResources,
  MutatingWebhookConfiguration,
  RuleWithOperations,
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
  ValidatingWebhook,
  WebhookClientConfig,
} from "../gen/admissionregistration-v1.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
  fieldTooMany,
} from "../status.ts";
import { labelSelector, oneOf, portNumber, requiredOneOf } from "./checks.ts";
import { findings } from "./findings.ts";
import { dns1123Subdomain, qualifiedName } from "./names.ts";

const operations = ["CONNECT", "CREATE", "DELETE", "UPDATE", "*"];
const scopes = ["*", "Cluster", "Namespaced"];
const failurePolicies = ["Fail", "Ignore"];
const matchPolicies = ["Equivalent", "Exact"];
const reviewVersions = ["v1", "v1beta1"];
const maxConditions = 64;

export const validateWebhookConfiguration = (configuration: MutatingWebhookConfiguration): FieldError[] => {
  const errors = findings();
  const seen = new Set<string>();
  for (const [index, webhook] of (configuration.webhooks ?? []).entries()) {
    const at = `webhooks[${index}]`;
    errors.push(...validateWebhook(at, webhook));
    if (seen.has(webhook.name)) errors.push(fieldDuplicate(`${at}.name`, webhook.name));
    seen.add(webhook.name);
  }
  return errors;
};

function validateWebhook(at: string, webhook: ValidatingWebhook & { reinvocationPolicy?: string }): FieldError[] {
  const errors = findings(fullyQualified(`${at}.name`, webhook.name));
  const versions = webhook.admissionReviewVersions ?? [];
  if (versions.length === 0) {
    errors.push(fieldRequired(`${at}.admissionReviewVersions`, `must specify one of ${reviewVersions.join(", ")}`));
  } else if (!versions.some((version) => reviewVersions.includes(version))) {
    const why = `must include at least one of ${reviewVersions.join(", ")}`;
    errors.push(fieldInvalid(`${at}.admissionReviewVersions`, versions, why));
  }
  for (const [index, rule] of (webhook.rules ?? []).entries())
    errors.push(...validateRule(`${at}.rules[${index}]`, rule));
  errors.push(
    ...oneOf(`${at}.failurePolicy`, webhook.failurePolicy, failurePolicies),
    ...oneOf(`${at}.matchPolicy`, webhook.matchPolicy, matchPolicies),
    ...oneOf(`${at}.reinvocationPolicy`, webhook.reinvocationPolicy, ["IfNeeded", "Never"]),
  );
  if (webhook.sideEffects) errors.push(...oneOf(`${at}.sideEffects`, webhook.sideEffects, ["None", "NoneOnDryRun"]));
  else errors.push(fieldRequired(`${at}.sideEffects`, "must specify one of None, NoneOnDryRun"));
  const seconds = webhook.timeoutSeconds;
  if (seconds !== undefined && (seconds < 1 || seconds > 30)) {
    errors.push(fieldInvalid(`${at}.timeoutSeconds`, seconds, "the timeout value must be between 1 and 30 seconds"));
  }
  errors.push(
    ...labelSelector(`${at}.namespaceSelector`, webhook.namespaceSelector),
    ...labelSelector(`${at}.objectSelector`, webhook.objectSelector),
    ...validateClient(`${at}.clientConfig`, webhook.clientConfig),
    ...validateConditions(`${at}.matchConditions`, webhook.matchConditions),
  );
  for (const [index, { expression }] of (webhook.matchConditions ?? []).entries()) {
    if (!expression?.trim()) continue;
    const path = `${at}.matchConditions[${index}].expression`;
    errors.push(...compileErrors(path, expression, boolType, webhookEnvironment()));
  }
  return errors;
}

function fullyQualified(path: string, name: string): FieldError[] {
  if (!name) return [fieldRequired(path)];
  const wrong = dns1123Subdomain(name);
  if (wrong.length > 0) return wrong.map((why) => fieldInvalid(path, name, why));
  const isDeep = name.split(".").length >= 3;
  return isDeep ? [] : [fieldInvalid(path, name, "should be a domain with at least three segments separated by dots")];
}

function validateClient(at: string, client: WebhookClientConfig | undefined): FieldError[] {
  const { url, service } = client ?? {};
  if ((url === undefined) === (service === undefined)) {
    return [fieldRequired(at, "exactly one of url or service is required")];
  }
  if (service) {
    const errors = findings();
    if (!service.name) errors.push(fieldRequired(`${at}.service.name`, "service name is required"));
    if (!service.namespace) errors.push(fieldRequired(`${at}.service.namespace`, "service namespace is required"));
    if (service.port !== undefined && portNumber("", service.port).length > 0) {
      errors.push(
        fieldInvalid(`${at}.service.port`, service.port, "port is not valid: must be between 1 and 65535, inclusive"),
      );
    }
    if (service.path !== undefined && !service.path.startsWith("/")) {
      errors.push(fieldInvalid(`${at}.service.path`, service.path, "must start with a '/'"));
    }
    return errors;
  }
  return validateUrl(`${at}.url`, url!);
}

function validateUrl(path: string, url: string): FieldError[] {
  const form = "; desired format: https://host[/path]";
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    // The URL class says only that it cannot read it.
    return [fieldRequired(path, `url must be a valid URL${form}`)];
  }
  const errors = findings();
  const refuse = (value: string, why: string) => errors.push(fieldInvalid(path, value, `${why}${form}`));
  if (parsed.protocol !== "https:") refuse(parsed.protocol.slice(0, -1), "'https' is the only allowed URL scheme");
  if (parsed.hostname === "") refuse("", "host must be specified");
  if (parsed.username !== "" || parsed.password !== "")
    refuse(parsed.username, "user information is not permitted in the URL");
  if (parsed.hash !== "") refuse(parsed.hash.slice(1), "fragments are not permitted in the URL");
  if (parsed.search !== "") refuse(parsed.search.slice(1), "query parameters are not permitted in the URL");
  return errors;
}

function validateRule(at: string, rule: RuleWithOperations): FieldError[] {
  const errors = findings(oneOrStar(`${at}.operations`, rule.operations, "operations"));
  for (const [index, operation] of (rule.operations ?? []).entries()) {
    errors.push(...oneOf(`${at}.operations[${index}]`, operation, operations));
  }
  errors.push(...oneOrStar(`${at}.apiGroups`, rule.apiGroups, "API groups"));
  errors.push(...oneOrStar(`${at}.apiVersions`, rule.apiVersions, "API versions"));
  for (const [index, version] of (rule.apiVersions ?? []).entries()) {
    if (version === "") errors.push(fieldRequired(`${at}.apiVersions[${index}]`));
  }
  errors.push(...oneOf(`${at}.scope`, rule.scope, scopes));
  if ((rule.resources ?? []).length === 0) errors.push(fieldRequired(`${at}.resources`));
  const resources = new Set(rule.resources);
  for (const [index, resource] of (rule.resources ?? []).entries()) {
    if (resource === "") errors.push(fieldRequired(`${at}.resources[${index}]`));
  }
  for (const whole of ["*", "*/*"]) {
    const isBeside = (other: string) => other !== whole && !(whole === "*" && other.includes("/"));
    if (!resources.has(whole) || ![...resources].some(isBeside)) continue;
    const why = `if '${whole}' is present, must not specify other resources`;
    errors.push(fieldInvalid(`${at}.resources`, rule.resources, why));
  }
  return errors;
}

function oneOrStar(path: string, values: readonly string[] | undefined, what: string): FieldError[] {
  if (!values || values.length === 0) return [fieldRequired(path)];
  if (values.length > 1 && values.includes("*")) {
    return [fieldInvalid(path, values, `if '*' is present, must not specify other ${what}`)];
  }
  return [];
}

function validateConditions(
  path: string,
  conditions: readonly { readonly name: string; readonly expression: string }[] | undefined,
): FieldError[] {
  const errors = findings();
  const all = conditions ?? [];
  if (all.length > maxConditions) errors.push(fieldTooMany(path, all.length, maxConditions));
  const seen = new Set<string>();
  for (const [index, { name, expression }] of all.entries()) {
    const at = `${path}[${index}]`;
    if (!expression?.trim()) errors.push(fieldRequired(`${at}.expression`));
    if (!name) errors.push(fieldRequired(`${at}.name`));
    else errors.push(...qualifiedName(name).map((why) => fieldInvalid(`${at}.name`, name, why)));
    if (name && seen.has(name)) errors.push(fieldDuplicate(`${at}.name`, name));
    seen.add(name);
  }
  return errors;
}

export function validateApiService({ metadata, spec }: ApiService): FieldError[] {
  const {
    group = "",
    version = "",
    service,
    groupPriorityMinimum: groupPriority = 0,
    versionPriority = 0,
  } = spec ?? {};
  const errors = findings();
  const wanted = `${version}.${group}`;
  if (metadata.name !== wanted) {
    errors.push(
      fieldInvalid(
        "metadata.name",
        metadata.name,
        `must be \`spec.version+"."+spec.group\`: ${JSON.stringify(wanted)}`,
      ),
    );
  }
  if (version === "") errors.push(fieldRequired("spec.version"));
  if (group === "" && version !== "v1")
    errors.push(fieldRequired("spec.group", "only v1 may have an empty group and it better be legacy kube"));
  if (groupPriority <= 0 || groupPriority > 20_000) {
    errors.push(fieldInvalid("spec.groupPriorityMinimum", groupPriority, "must be positive and less than 20000"));
  }
  if (versionPriority <= 0 || versionPriority > 1000) {
    errors.push(fieldInvalid("spec.versionPriority", versionPriority, "must be positive and less than 1000"));
  }
  if (!service) {
    if (spec?.caBundle)
      errors.push(fieldInvalid("spec.caBundle", "<bytes>", "local APIServices may not have a caBundle"));
    if (spec?.insecureSkipTLSVerify) {
      errors.push(
        fieldInvalid("spec.insecureSkipTLSVerify", true, "local APIServices may not have insecureSkipTLSVerify"),
      );
    }
    return errors;
  }
  if (!service.namespace) errors.push(fieldRequired("spec.service.namespace"));
  if (!service.name) errors.push(fieldRequired("spec.service.name"));
  if (service.port !== undefined && portNumber("", service.port).length > 0) {
    errors.push(
      fieldInvalid("spec.service.port", service.port, "port is not valid: must be between 1 and 65535, inclusive"),
    );
  }
  if (spec?.insecureSkipTLSVerify && spec.caBundle) {
    errors.push(fieldInvalid("spec.insecureSkipTLSVerify", true, "may not be true if caBundle is present"));
  }
  return errors;
}

const reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

export function validatePolicy({ spec }: ValidatingAdmissionPolicy): FieldError[] {
  const errors = findings();
  if (spec.paramKind) {
    const { apiVersion, kind } = spec.paramKind;
    if (!apiVersion) errors.push(fieldRequired("spec.paramKind.apiVersion"));
    else if (apiVersion.split("/").length > 2) {
      errors.push(
        fieldInvalid("spec.paramKind.apiVersion", apiVersion, `unexpected GroupVersion string: ${apiVersion}`),
      );
    }
    if (!kind) errors.push(fieldRequired("spec.paramKind.kind"));
  }
  if (!spec.matchConstraints) errors.push(fieldRequired("spec.matchConstraints"));
  else {
    errors.push(...validateMatch("spec.matchConstraints", spec.matchConstraints));
    if ((spec.matchConstraints.resourceRules ?? []).length === 0) {
      errors.push(fieldRequired("spec.matchConstraints.resourceRules"));
    }
  }
  errors.push(...requiredOneOf("spec.failurePolicy", spec.failurePolicy, failurePolicies));
  errors.push(...validateConditions("spec.matchConditions", spec.matchConditions));
  const environment = policyEnvironment(spec.paramKind !== undefined);
  const compiled = (path: string, text: string | undefined, type: CelType): FieldError[] =>
    text?.trim() ? compileErrors(path, text, type, environment) : [];
  for (const [index, { expression }] of (spec.matchConditions ?? []).entries()) {
    errors.push(...compiled(`spec.matchConditions[${index}].expression`, expression, boolType));
  }
  const variables = new Set<string>();
  for (const [index, { name, expression }] of (spec.variables ?? []).entries()) {
    const at = `spec.variables[${index}]`;
    if (!name?.trim()) errors.push(fieldRequired(`${at}.name`, "name is not specified"));
    else if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      errors.push(fieldInvalid(`${at}.name`, name, "name is not a valid CEL identifier"));
    } else if (variables.has(name)) errors.push(fieldDuplicate(`${at}.name`, name));
    if (!expression?.trim()) errors.push(fieldRequired(`${at}.expression`, "expression is not specified"));
    errors.push(...compiled(`${at}.expression`, expression, dynType));
    variables.add(name);
  }
  const validations = spec.validations ?? [];
  const annotations = spec.auditAnnotations ?? [];
  if (validations.length === 0 && annotations.length === 0) {
    errors.push(fieldRequired("spec.validations", "validations or auditAnnotations must contain at least one item"));
  }
  for (const [index, { expression, message, messageExpression, reason }] of validations.entries()) {
    const at = `spec.validations[${index}]`;
    if (!expression?.trim()) errors.push(fieldRequired(`${at}.expression`, "expression is not specified"));
    if (message?.includes("\n"))
      errors.push(fieldInvalid(`${at}.message`, message, "message must not contain line breaks"));
    if (message === "" || (message !== undefined && message.trim() === "")) {
      errors.push(fieldInvalid(`${at}.message`, message, "message must be non-empty if specified"));
    }
    if (messageExpression !== undefined && messageExpression.trim() === "") {
      errors.push(fieldInvalid(`${at}.messageExpression`, messageExpression, "must be non-empty if specified"));
    }
    errors.push(...oneOf(`${at}.reason`, reason, reasons));
    errors.push(...compiled(`${at}.expression`, expression, boolType));
    errors.push(...compiled(`${at}.messageExpression`, messageExpression, stringType));
  }
  const keys = new Set<string>();
  for (const [index, { key, valueExpression }] of annotations.entries()) {
    const at = `spec.auditAnnotations[${index}]`;
    if (!key?.trim()) errors.push(fieldRequired(`${at}.key`, "key is not specified"));
    else if (keys.has(key)) errors.push(fieldDuplicate(`${at}.key`, key));
    if (!valueExpression?.trim())
      errors.push(fieldRequired(`${at}.valueExpression`, "valueExpression is not specified"));
    errors.push(...compiled(`${at}.valueExpression`, valueExpression, dynType));
    keys.add(key);
  }
  return errors;
}

function compileErrors(path: string, text: string, type: CelType, environment: Environment): FieldError[] {
  const made = compileExpression({ text, ...environment });
  if ("problem" in made) return [fieldInvalid(path, text, `compilation failed: ${made.problem}`)];
  const { type: result } = made.program;
  if (type.kind === "dyn" || result.kind === "dyn" || result.kind === type.kind) return [];
  return [fieldInvalid(path, text, `must evaluate to ${type.name}`)];
}

function validateMatch(at: string, match: MatchResources): FieldError[] {
  const errors = findings([
    ...requiredOneOf(`${at}.matchPolicy`, match.matchPolicy, matchPolicies),
    ...labelSelector(`${at}.namespaceSelector`, match.namespaceSelector),
    ...labelSelector(`${at}.objectSelector`, match.objectSelector),
  ]);
  for (const field of ["resourceRules", "excludeResourceRules"] as const) {
    for (const [index, rule] of (match[field] ?? []).entries())
      errors.push(...validateRule(`${at}.${field}[${index}]`, rule));
  }
  return errors;
}

export function validatePolicyBinding({ spec }: ValidatingAdmissionPolicyBinding): FieldError[] {
  const errors = findings();
  if (!spec.policyName) errors.push(fieldRequired("spec.policyName"));
  else
    errors.push(
      ...dns1123Subdomain(spec.policyName).map((why) => fieldInvalid("spec.policyName", spec.policyName, why)),
    );
  if (spec.paramRef) {
    const { name, selector, parameterNotFoundAction } = spec.paramRef;
    if (name && selector) {
      errors.push(fieldForbidden("spec.paramRef.name", "name and selector are mutually exclusive"));
      errors.push(fieldForbidden("spec.paramRef.selector", "name and selector are mutually exclusive"));
    } else if (!name && !selector) {
      errors.push(fieldRequired("spec.paramRef", "one of name or selector must be specified"));
    }
    const path = "spec.paramRef.parameterNotFoundAction";
    if (!parameterNotFoundAction) errors.push(fieldRequired(path));
    else errors.push(...oneOf(path, parameterNotFoundAction, ["Allow", "Deny"]));
  }
  if (spec.matchResources) errors.push(...validateMatch("spec.matchResources", spec.matchResources));
  const actions = spec.validationActions ?? [];
  if (actions.length === 0)
    errors.push(fieldRequired("spec.validationActions", "at least one validation action is required"));
  const seen = new Set<string>();
  for (const [index, action] of actions.entries()) {
    const path = `spec.validationActions[${index}]`;
    if (!["Audit", "Deny", "Warn"].includes(action))
      errors.push(fieldNotSupported(path, action, ["Audit", "Deny", "Warn"]));
    if (seen.has(action)) errors.push(fieldDuplicate(path, action));
    seen.add(action);
  }
  if (seen.has("Deny") && seen.has("Warn")) {
    const why =
      "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
    errors.push(fieldInvalid("spec.validationActions", actions, why));
  }
  return errors;
}
