// Cluster roles that collect others: their rules are those of the roles whose labels they select, and nothing else. The
// authorizer adds them up by itself; this loop makes the stored object say so too.
// Upstream counterpart: pkg/controller/clusterroleaggregation.
import type { Service } from "#base/service.ts";
import type { ClusterRole, PolicyRule } from "#model/gen/rbac-v1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { clusterRoles } from "#model/resources.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";
import { matcherOf } from "../runtime/selector.ts";

export function aggregatedRules(role: ClusterRole, all: readonly ClusterRole[]): PolicyRule[] {
  const rules: PolicyRule[] = [];
  for (const selector of role.aggregationRule?.clusterRoleSelectors ?? []) {
    const matches = matcherOf(selector);
    const chosen = all.filter((other) => nameOf(other) !== nameOf(role) && matches(other.metadata.labels ?? {}));
    chosen.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
    for (const rule of chosen.flatMap((other) => other.rules ?? [])) {
      if (!rules.some((known) => isEqual(known, rule))) rules.push(rule);
    }
  }
  return rules;
}

export function createClusterRoleAggregation(deps: ControllerDeps): Service {
  const store = deps.informers.informer(clusterRoles);
  /** Any role may be one of those that are collected. */
  const collectors = () => store.list().flatMap((role) => (role.aggregationRule ? [nameOf(role)] : []));
  return createController(
    {
      name: "clusterrole-aggregation-controller",
      workers: 1,
      triggers: [on(store, collectors)],
      async sync(name) {
        const role = store.get(name);
        if (!role?.aggregationRule || isDeleting(role)) return;
        const rules = aggregatedRules(role, store.list());
        if (isEqual(rules, role.rules ?? [])) return;
        await deps.client.update(
          clusterRoles,
          { ...role, rules },
          { fieldManager: "clusterrole-aggregation-controller" },
        );
      },
    },
    deps,
  );
}
