// ValidatingAdmissionPolicy: rules in CEL that administrators write, put to use by bindings. Policies and bindings are
// read from the store with each write, so a new one counts at once; compiled ones are kept as long as their revision.
// Deny refuses, Warn says so in a Warning header, Audit notes it in the audit log, where a policy's own annotations go too.
// Upstream: apiserver/pkg/admission/plugin/policy/validating.

import type { CustomResourceDefinition } from "#model/custom-resources.ts";
import type {
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
} from "#model/gen/admissionregistration-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import type { ApiObject } from "#model/object.ts";
import { groupVersion, qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import { allResources, customResourceDefinitions, resourceOfKind } from "#model/resources.ts";
import { ApiError, forbidden } from "#model/status.ts";
import { inTurns } from "#platform/turns.ts";
import type { Authorizer } from "../../authz/authorizer.ts";
import type { StrategyContext } from "../../strategy.ts";
import type { AdmissionPlugin, AdmissionRequest } from "../plugin.ts";
import { Access } from "./access.ts";
import { matchesResources } from "./match.ts";
import { compilePolicy, type Denial, type PolicyProgram, type Verdict } from "./program.ts";

const policies = "validatingadmissionpolicies.admissionregistration.k8s.io";
const bindings = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
/** Otherwise a policy could lock its own removal out. */
const exempt = new Set([
  policies,
  bindings,
  "mutatingwebhookconfigurations.admissionregistration.k8s.io",
  "validatingwebhookconfigurations.admissionregistration.k8s.io",
]);
/** Of these the object at hand is the one that clients send; bindings, evictions and scales are another kind there. */
const wholeSubresources = new Set(["", "approval", "ephemeralcontainers", "finalize", "resize", "status"]);

const codes: Readonly<Record<string, number>> = {
  Forbidden: 403,
  Invalid: 422,
  RequestEntityTooLarge: 413,
  Unauthorized: 401,
};

/** `authorizer`: what the variable of that name asks; without it nobody but system:masters may do anything. */
export function createValidatingPolicies(deps: { readonly authorizer: Authorizer | undefined }): AdmissionPlugin {
  const compiled = new WeakMap<ValidatingAdmissionPolicy, PolicyProgram>();
  const programOf = (policy: ValidatingAdmissionPolicy): PolicyProgram => {
    const known = compiled.get(policy) ?? compilePolicy(policy);
    compiled.set(policy, known);
    return known;
  };
  return {
    name: "ValidatingAdmissionPolicy",
    handles: ({ resource, subresource }) =>
      wholeSubresources.has(subresource) && !exempt.has(qualifiedResource(resource)),
    async validate(request, context) {
      const all = await context.list<ValidatingAdmissionPolicyBinding>(bindings);
      if (all.length === 0) return;
      const namespace =
        request.namespace === "" ? undefined : await context.get<ApiObject>("namespaces", "", request.namespace);
      const access = new Access(request, context.user, deps.authorizer);
      const notes = new Notes();
      for (const binding of all) {
        if (binding.metadata.deletionTimestamp !== undefined) continue;
        const policy = await context.get<ValidatingAdmissionPolicy>(policies, "", binding.spec.policyName ?? "");
        if (!policy || policy.metadata.deletionTimestamp !== undefined) continue;
        if (!matchesResources(policy.spec.matchConstraints, request, namespace)) continue;
        if (!matchesResources(binding.spec.matchResources, request, namespace)) continue;
        const verdict = await ask(policy, binding, programOf(policy), request, context, namespace, access);
        for (const { key, value } of verdict.annotations) notes.add(`${policy.metadata.name}/${key}`, value);
        try {
          act(policy, binding, verdict.denials, request, context);
        } catch (refusal) {
          notes.publish(context);
          throw refusal;
        }
      }
      notes.publish(context);
    },
  };
}

/** Annotations of the audit log; several bindings of a policy may say something under one key. */
class Notes {
  readonly #values = new Map<string, Set<string>>();

  add(key: string, value: string): void {
    const values = this.#values.get(key) ?? new Set();
    this.#values.set(key, values.add(value));
  }
  publish(context: StrategyContext): void {
    for (const [key, values] of this.#values) context.annotate?.(key, [...values].join(", "));
  }
}

async function ask(
  policy: ValidatingAdmissionPolicy,
  binding: ValidatingAdmissionPolicyBinding,
  program: PolicyProgram,
  request: AdmissionRequest,
  context: StrategyContext,
  namespace: ApiObject | undefined,
  access: Access,
): Promise<Verdict> {
  const input = {
    authorizer: access.variable,
    object: request.object,
    oldObject: request.oldObject,
    request: requestOf(request, context),
    namespaceObject: namespace,
  };
  const evaluate = (params: readonly unknown[]) => access.settled(() => inTurns(program.evaluate(input, params)));
  if (!policy.spec.paramKind) return evaluate([undefined]);
  const found = await paramsOf(policy, binding, request, context);
  if ("problem" in found) {
    const message = `failed to configure binding: ${found.problem}`;
    const denials = policy.spec.failurePolicy === "Ignore" ? [] : [{ message, reason: "Invalid", index: 0 }];
    return { denials, annotations: [] };
  }
  return evaluate(found.params);
}

function act(
  policy: ValidatingAdmissionPolicy,
  binding: ValidatingAdmissionPolicyBinding,
  denials: readonly Denial[],
  request: AdmissionRequest,
  context: StrategyContext,
): void {
  const names = `ValidatingAdmissionPolicy '${policy.metadata.name}' with binding '${binding.metadata.name}'`;
  const actions = binding.spec.validationActions ?? [];
  if (actions.includes("Warn")) {
    for (const { message } of denials) context.warn(`Validation failed for ${names}: ${message}`);
  }
  const [denial] = denials;
  if (denial && actions.includes("Audit")) {
    const failures = denials.map(({ message, index }) => ({
      message,
      policy: policy.metadata.name,
      binding: binding.metadata.name,
      expressionIndex: index,
      validationActions: actions,
    }));
    context.annotate?.("validation.policy.admission.k8s.io/validation_failure", JSON.stringify(failures));
  }
  if (!denial || !actions.includes("Deny")) return;
  const message = `${names} denied request: ${denial.message}`;
  const { resource } = request;
  const { status } = forbidden({ group: resource.group, resource: resource.plural }, request.name, message);
  throw new ApiError(codes[denial.reason] ?? 422, denial.reason, status.message ?? message, {
    ...status.details,
    causes: [{ message }],
  });
}

/** AdmissionRequest as expressions see it. */
function requestOf(request: AdmissionRequest, { user, dryRun }: StrategyContext): object {
  const { resource, subresource, operation, namespace, name } = request;
  const { group, version } = resource;
  const kind = { group, version, kind: resource.kind };
  const plural = { group, version, resource: resource.plural };
  return {
    kind,
    resource: plural,
    subResource: subresource,
    requestKind: kind,
    requestResource: plural,
    requestSubResource: subresource,
    name,
    namespace,
    operation,
    userInfo: { username: user.name, uid: user.uid ?? "", groups: user.groups, extra: user.extra ?? {} },
    dryRun,
    options: {},
  };
}

type Params = { readonly params: readonly unknown[] } | { readonly problem: string };

async function paramsOf(
  policy: ValidatingAdmissionPolicy,
  binding: ValidatingAdmissionPolicyBinding,
  request: AdmissionRequest,
  context: StrategyContext,
): Promise<Params> {
  const reference = binding.spec.paramRef;
  // Without a reference the policy is asked once, without parameters.
  if (!reference) return { params: [null] };
  const { apiVersion = "", kind = "" } = policy.spec.paramKind!;
  const resource = await resourceOf(apiVersion, kind, context);
  if (!resource) return { problem: `failed to find resource referenced by paramKind: '${apiVersion}, Kind=${kind}'` };
  const namespace = resource.namespaced ? reference.namespace || request.namespace : "";
  if (resource.namespaced && namespace === "") {
    return { problem: "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources" };
  }
  if (!resource.namespaced && reference.namespace) {
    return { problem: "paramRef.namespace must not be provided for a cluster-scoped `paramKind`" };
  }
  const found = reference.name
    ? [await context.get<ApiObject>(qualifiedResource(resource), namespace, reference.name)]
    : (await context.list<ApiObject>(qualifiedResource(resource), namespace)).filter(({ metadata }) =>
        matchesLabelSelector(reference.selector, metadata.labels),
      );
  const params = found.filter((each) => each !== undefined);
  if (params.length > 0 || reference.parameterNotFoundAction === "Allow") return { params };
  return { problem: "no params found for policy binding with `Deny` parameterNotFoundAction" };
}

/** As it is stored; built in, or defined by somebody. */
async function resourceOf(
  apiVersion: string,
  kind: string,
  context: StrategyContext,
): Promise<Pick<ResourceInfo, "group" | "plural" | "namespaced"> | undefined> {
  const slash = apiVersion.indexOf("/");
  const group = slash < 0 ? "" : apiVersion.slice(0, slash);
  const builtIn = resourceOfKind(group, apiVersion.slice(slash + 1), kind);
  // What is off by default is no parameter: nobody here knows whether it is on.
  if (builtIn && allResources.includes(builtIn))
    return groupVersion(builtIn) === builtIn.storageVersion ? builtIn : undefined;
  const definitions = await context.list<CustomResourceDefinition>(qualifiedResource(customResourceDefinitions));
  const definition = definitions.find(
    ({ spec, status }) =>
      spec.group === group &&
      spec.names.kind === kind &&
      status?.conditions?.some(({ type, status: value }) => type === "Established" && value === "True"),
  );
  return (
    definition && { group, plural: definition.spec.names.plural, namespaced: definition.spec.scope === "Namespaced" }
  );
}
