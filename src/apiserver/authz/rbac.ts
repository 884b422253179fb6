// Role-based access control: who may do what is the sum of the roles bound to a user and its groups; there is no "deny".
// Roles come from a RbacSource, whose own RbacCache is filled by whoever watches the four kinds. Upstream counterpart:
// plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac/validation.
import type {
  ClusterRole,
  ClusterRoleBinding,
  PolicyRule,
  Role,
  RoleBinding,
  RoleRef,
  Subject,
} from "#model/gen/rbac-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import type { ApiObject } from "#model/object.ts";
import type { UserInfo } from "../authn/user.ts";
import type { Attributes, Authorizer, Decision } from "./authorizer.ts";

/** What the authorizer reads; answers come from memory. Objects are shared: never changed. */
export interface RbacSource {
  role(namespace: string, name: string): Role | undefined;
  clusterRole(name: string): ClusterRole | undefined;
  roleBindings(namespace: string): Iterable<RoleBinding>;
  clusterRoleBindings(): Iterable<ClusterRoleBinding>;
}

/**
 * A RbacSource that is told of every change, e.g. by four informers. Cluster roles with an aggregation rule answer with
 * the rules of those they select as well, so that no controller has to copy them (upstream's does; the stored object
 * there shows the copies).
 */
export class RbacCache implements RbacSource {
  readonly #clusterRoles = new Map<string, ClusterRole>();
  readonly #clusterRoleBindings = new Map<string, ClusterRoleBinding>();
  /** Aggregated roles as last put together; at most as many as there are cluster roles. */
  readonly #aggregated = new Map<string, ClusterRole>();
  /** By namespace, then by name. */
  readonly #roles = new Map<string, Map<string, Role>>();
  readonly #roleBindings = new Map<string, Map<string, RoleBinding>>();

  /** `kind` is Role, ClusterRole, RoleBinding or ClusterRoleBinding; others are ignored. */
  upsert(kind: string, object: ApiObject): void {
    const name = object.metadata.name ?? "";
    const namespace = object.metadata.namespace ?? "";
    if (kind === "ClusterRole") this.#aggregated.clear();
    if (kind === "ClusterRole") this.#clusterRoles.set(name, object as ClusterRole);
    else if (kind === "ClusterRoleBinding") this.#clusterRoleBindings.set(name, object as ClusterRoleBinding);
    else if (kind === "Role") folder(this.#roles, namespace).set(name, object as Role);
    else if (kind === "RoleBinding") folder(this.#roleBindings, namespace).set(name, object as RoleBinding);
  }

  remove(kind: string, object: ApiObject): void {
    const name = object.metadata.name ?? "";
    const namespace = object.metadata.namespace ?? "";
    if (kind === "ClusterRole") this.#aggregated.clear();
    if (kind === "ClusterRole") this.#clusterRoles.delete(name);
    else if (kind === "ClusterRoleBinding") this.#clusterRoleBindings.delete(name);
    else if (kind === "Role") drop(this.#roles, namespace, name);
    else if (kind === "RoleBinding") drop(this.#roleBindings, namespace, name);
  }

  role(namespace: string, name: string): Role | undefined {
    return this.#roles.get(namespace)?.get(name);
  }
  clusterRole(name: string): ClusterRole | undefined {
    const role = this.#clusterRoles.get(name);
    if (!role?.aggregationRule) return role;
    let whole = this.#aggregated.get(name);
    if (!whole) {
      const distinct = new Map(this.#collect(role, new Set([name])).map((rule) => [JSON.stringify(rule), rule]));
      whole = { ...role, rules: [...distinct.values()] };
      this.#aggregated.set(name, whole);
    }
    return whole;
  }
  roleBindings(namespace: string): Iterable<RoleBinding> {
    return this.#roleBindings.get(namespace)?.values() ?? [];
  }
  clusterRoleBindings(): Iterable<ClusterRoleBinding> {
    return this.#clusterRoleBindings.values();
  }

  /** Each role once: roles may select each other. */
  #collect(role: ClusterRole, seen: Set<string>): PolicyRule[] {
    const rules = [...(role.rules ?? [])];
    for (const selector of role.aggregationRule?.clusterRoleSelectors ?? []) {
      for (const [name, other] of this.#clusterRoles) {
        if (seen.has(name) || !matchesLabelSelector(selector, other.metadata.labels)) continue;
        seen.add(name);
        rules.push(...this.#collect(other, seen));
      }
    }
    return rules;
  }
}

export interface RbacAuthorizer extends Authorizer {
  authorize(attributes: Attributes): Decision;
  /** All rules that hold for `user` in `namespace` (SelfSubjectRulesReview). */
  rulesFor(user: UserInfo, namespace: string): PolicyRule[];
  /** The rules that a role reference stands for. */
  rulesOf(ref: RoleRef, namespace: string): readonly PolicyRule[] | undefined;
}

export function createRbacAuthorizer(dependencies: { readonly source: RbacSource }): RbacAuthorizer {
  const { source } = dependencies;

  const rulesOf = (ref: RoleRef, namespace: string): readonly PolicyRule[] | undefined =>
    (ref.kind === "ClusterRole" ? source.clusterRole(ref.name) : source.role(namespace, ref.name))?.rules ?? undefined;

  /** Every rule with where it comes from, until `visit` returns true. */
  const visitRules = (
    user: UserInfo,
    namespace: string,
    visit: (rule: PolicyRule, from: () => string) => boolean,
  ): boolean => {
    for (const binding of source.clusterRoleBindings()) {
      const subject = binding.subjects?.find((s) => appliesTo(user, s, ""));
      if (!subject) continue;
      for (const rule of rulesOf(binding.roleRef, "") ?? []) {
        const from = () =>
          `ClusterRoleBinding "${binding.metadata.name}" of ClusterRole "${binding.roleRef.name}" to ${describe(subject)}`;
        if (visit(rule, from)) return true;
      }
    }
    if (namespace === "") return false;
    for (const binding of source.roleBindings(namespace)) {
      const subject = binding.subjects?.find((s) => appliesTo(user, s, namespace));
      if (!subject) continue;
      for (const rule of rulesOf(binding.roleRef, namespace) ?? []) {
        const from = () =>
          `RoleBinding "${binding.metadata.name}/${namespace}" of ${binding.roleRef.kind} "${binding.roleRef.name}" to ${describe(subject)}`;
        if (visit(rule, from)) return true;
      }
    }
    return false;
  };

  return {
    authorize(attributes) {
      if (attributes.user.groups.includes(masters)) return { verdict: "allow", reason: "" };
      let reason = "";
      const allowed = visitRules(attributes.user, attributes.namespace, (rule, from) => {
        if (!ruleAllows(rule, attributes)) return false;
        reason = `RBAC: allowed by ${from()}`;
        return true;
      });
      return allowed ? { verdict: "allow", reason } : { verdict: "no-opinion", reason: "" };
    },
    rulesFor(user, namespace) {
      if (user.groups.includes(masters)) return [...fullAuthority];
      const rules: PolicyRule[] = [];
      visitRules(user, namespace, (rule) => {
        rules.push(rule);
        return false;
      });
      return rules;
    },
    rulesOf,
  };
}

/** Does one rule answer the question? Exported for escalation checks and tests. */
export function ruleAllows(rule: PolicyRule, attributes: Attributes): boolean {
  if (!matches(rule.verbs, attributes.verb)) return false;
  if (!attributes.resourceRequest) {
    return (rule.nonResourceURLs ?? []).some(
      (url) =>
        url === "*" ||
        url === attributes.path ||
        (url.endsWith("*") && attributes.path.startsWith(url.replace(/\*+$/, ""))),
    );
  }
  if (!matches(rule.apiGroups, attributes.group)) return false;
  if (!(rule.resources ?? []).some((pattern) => resourceMatches(pattern, attributes))) return false;
  const names = rule.resourceNames ?? [];
  return names.length === 0 || names.includes(attributes.name);
}

/**
 * The wanted rules that `held` does not cover, one verb, group, resource and name at a time: nobody may hand out more
 * than they have. Empty means fine.
 */
export function uncoveredRules(held: readonly PolicyRule[], wanted: readonly PolicyRule[]): PolicyRule[] {
  const uncovered: PolicyRule[] = [];
  for (const rule of wanted)
    for (const part of breakDown(rule)) if (!held.some((h) => covers(h, part))) uncovered.push(part);
  return uncovered;
}

/** As upstream prints a rule in "attempting to grant RBAC permissions not currently held". */
export function compactRule(rule: PolicyRule): string {
  const parts: string[] = [];
  const add = (name: string, values: readonly string[] | undefined) => {
    if (values && values.length > 0) parts.push(`${name}:[${values.map((v) => JSON.stringify(v)).join(" ")}]`);
  };
  add("APIGroups", rule.apiGroups);
  add("Resources", rule.resources);
  add("ResourceNames", rule.resourceNames);
  add("NonResourceURLs", rule.nonResourceURLs);
  add("Verbs", rule.verbs);
  return `{${parts.join(", ")}}`;
}

const masters = "system:masters";
/** What only a cluster administrator holds. */
export const fullAuthority: readonly PolicyRule[] = [
  { verbs: ["*"], apiGroups: ["*"], resources: ["*"] },
  { verbs: ["*"], nonResourceURLs: ["*"] },
];

const matches = (allowed: readonly string[] | undefined, asked: string): boolean =>
  allowed !== undefined && (allowed.includes("*") || allowed.includes(asked));

function resourceMatches(pattern: string, asked: Attributes): boolean {
  if (pattern === "*") return true;
  if (asked.subresource === "") return pattern === asked.resource;
  return pattern === `${asked.resource}/${asked.subresource}` || pattern === `*/${asked.subresource}`;
}

function appliesTo(user: UserInfo, subject: Subject, bindingNamespace: string): boolean {
  switch (subject.kind) {
    case "User":
      return user.name === subject.name;
    case "Group":
      return user.groups.includes(subject.name);
    case "ServiceAccount": {
      const namespace = subject.namespace || bindingNamespace;
      return namespace !== "" && user.name === `system:serviceaccount:${namespace}:${subject.name}`;
    }
    default:
      return false;
  }
}

function describe(subject: Subject): string {
  const name = subject.kind === "ServiceAccount" ? `${subject.name}/${subject.namespace ?? ""}` : subject.name;
  return `${subject.kind} "${name}"`;
}

/** Rules with one verb, one group, one resource and at most one name each. */
function* breakDown(rule: PolicyRule): Generator<PolicyRule> {
  for (const verb of rule.verbs ?? []) {
    for (const url of rule.nonResourceURLs ?? []) yield { verbs: [verb], nonResourceURLs: [url] };
    for (const group of rule.apiGroups ?? []) {
      for (const resource of rule.resources ?? []) {
        const names = rule.resourceNames ?? [];
        if (names.length === 0) yield { verbs: [verb], apiGroups: [group], resources: [resource] };
        for (const name of names) {
          yield { verbs: [verb], apiGroups: [group], resources: [resource], resourceNames: [name] };
        }
      }
    }
  }
}

/** `part` comes from breakDown. */
function covers(held: PolicyRule, part: PolicyRule): boolean {
  if (!matches(held.verbs, part.verbs[0] ?? "")) return false;
  const url = part.nonResourceURLs?.[0];
  if (url !== undefined) {
    return (held.nonResourceURLs ?? []).some(
      (own) => own === "*" || own === url || (own.endsWith("*") && url.startsWith(own.replace(/\*+$/, ""))),
    );
  }
  if (!matches(held.apiGroups, part.apiGroups?.[0] ?? "")) return false;
  const [resource = "", subresource] = (part.resources?.[0] ?? "").split("/");
  const hasResource = (held.resources ?? []).some(
    (own) =>
      own === "*" ||
      own === part.resources?.[0] ||
      (subresource !== undefined && resource !== "" && own === `*/${subresource}`),
  );
  if (!hasResource) return false;
  const heldNames = held.resourceNames ?? [];
  return heldNames.length === 0 || (part.resourceNames?.[0] !== undefined && heldNames.includes(part.resourceNames[0]));
}

function folder<T>(folders: Map<string, Map<string, T>>, name: string): Map<string, T> {
  let found = folders.get(name);
  if (!found) {
    found = new Map();
    folders.set(name, found);
  }
  return found;
}

function drop<T>(folders: Map<string, Map<string, T>>, namespace: string, name: string): void {
  const found = folders.get(namespace);
  found?.delete(name);
  if (found?.size === 0) folders.delete(namespace);
}
