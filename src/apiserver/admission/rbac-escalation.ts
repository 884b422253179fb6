// Nobody may write a role that allows more than they may do themselves, or bind one: unless they hold the verbs
// `escalate` or `bind`. Upstream does this inside the RBAC registry (policybased storage); here it is admission, because
// it needs the authorizer.
import type { ClusterRole, PolicyRule, Role, RoleBinding } from "#model/gen/rbac-v1.ts";
import { forbidden, notFound } from "#model/status.ts";
import type { Attributes } from "../authz/authorizer.ts";
import { compactRule, fullAuthority, type RbacAuthorizer, uncoveredRules } from "../authz/rbac.ts";
import type { StrategyContext } from "../strategy.ts";
import type { AdmissionPlugin, AdmissionRequest } from "./plugin.ts";

const group = "rbac.authorization.k8s.io";

export function createRbacEscalation(dependencies: { readonly rbac: RbacAuthorizer }): AdmissionPlugin {
  const { rbac } = dependencies;

  const mayDo = (
    request: AdmissionRequest,
    context: StrategyContext,
    verb: string,
    about: Partial<Attributes>,
  ): boolean =>
    rbac.authorize({
      user: context.user,
      verb,
      resourceRequest: true,
      group,
      version: request.resource.version,
      resource: request.resource.plural,
      subresource: "",
      namespace: request.namespace,
      name: request.name,
      path: "",
      ...about,
    }).verdict === "allow";

  const refuse = (request: AdmissionRequest, context: StrategyContext, missing: readonly PolicyRule[]): never => {
    const { user } = context;
    const list = missing.map(compactRule).join("\n");
    const why = `user ${JSON.stringify(user.name)} (groups=[${user.groups.map((g) => JSON.stringify(g)).join(" ")}]) is attempting to grant RBAC permissions not currently held:\n${list}`;
    throw forbidden({ group, resource: request.resource.plural }, request.name, why);
  };

  return {
    name: "RbacEscalation",
    handles: ({ operation, resource, subresource }) =>
      resource.group === group && subresource === "" && (operation === "CREATE" || operation === "UPDATE"),
    async validate(request, context) {
      if (context.user.groups.includes("system:masters") || !request.object) return;
      if (request.resource.plural.endsWith("roles")) {
        const { rules } = request.object as Role | ClusterRole;
        const old = request.oldObject as Role | ClusterRole | undefined;
        const collects = aggregationOf(request.object);
        if (old && JSON.stringify([old.rules, aggregationOf(old)]) === JSON.stringify([rules, collects])) return;
        if (mayDo(request, context, "escalate", {})) return;
        // It may come to collect anything.
        if (collects && uncoveredRules(rbac.rulesFor(context.user, ""), fullAuthority).length > 0) {
          const why = "must have cluster-admin privileges to use the aggregationRule";
          throw forbidden({ group, resource: request.resource.plural }, request.name, why);
        }
        const missing = uncoveredRules(rbac.rulesFor(context.user, request.namespace), rules ?? []);
        if (missing.length > 0) refuse(request, context, missing);
        return;
      }
      const binding = request.object as RoleBinding;
      const old = request.oldObject as RoleBinding | undefined;
      if (old && JSON.stringify([old.roleRef, old.subjects]) === JSON.stringify([binding.roleRef, binding.subjects])) {
        return;
      }
      const { kind, name } = binding.roleRef;
      const resource = kind === "ClusterRole" ? "clusterroles" : "roles";
      if (mayDo(request, context, "bind", { resource, name })) return;
      const wanted = rbac.rulesOf(binding.roleRef, request.namespace);
      if (wanted === undefined) throw notFound({ group, resource }, name);
      const missing = uncoveredRules(rbac.rulesFor(context.user, request.namespace), wanted);
      if (missing.length > 0) refuse(request, context, missing);
    },
  };
}

const aggregationOf = (role: object): ClusterRole["aggregationRule"] => (role as ClusterRole).aggregationRule;
