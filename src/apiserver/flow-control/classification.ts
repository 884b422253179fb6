// Which flow a request is of: the first FlowSchema, by matching precedence and then by name, one of whose rules has the
// user among its subjects and the request among its resources or paths. Compiled once per configuration, as every
// request is looked at. Pure. Upstream counterpart: util/flowcontrol/rule.go and formatting of flow distinguishers.
import type {
  FlowSchema,
  NonResourcePolicyRule,
  PolicyRulesWithSubjects,
  ResourcePolicyRule,
  Subject,
} from "#model/gen/flowcontrol-v1.ts";
import type { UserInfo } from "../authn/user.ts";
import type { RequestInfo } from "../endpoints/request-info.ts";

/** What classification looks at of a request. */
export type Asked = Pick<
  RequestInfo,
  "isResource" | "path" | "verb" | "group" | "resource" | "subresource" | "namespace"
>;

export interface CompiledSchema {
  readonly name: string;
  readonly uid: string;
  /** The priority level it is of. */
  readonly level: string;
  readonly precedence: number;
  readonly distinguisher: string;
  readonly rules: readonly CompiledRule[];
}

interface CompiledRule {
  readonly subjects: SubjectSet;
  readonly resources: readonly CompiledResources[];
  readonly paths: readonly CompiledPaths[];
}
interface CompiledResources {
  readonly verbs: Names;
  readonly groups: Names;
  readonly resources: Names;
  readonly namespaces: Names;
  readonly clusterScope: boolean;
}
interface CompiledPaths {
  readonly verbs: Names;
  readonly paths: Names;
  /** Of paths that end in `/*`. */
  readonly prefixes: readonly string[];
}
interface SubjectSet {
  readonly users: Names;
  readonly groups: Names;
  /** User names of all service accounts of a namespace begin so. */
  readonly accountPrefixes: readonly string[];
}

/** Names, or all of them. */
type Names = ReadonlySet<string> | "all";

const accountPrefix = "system:serviceaccount:";

export function compileSchema(schema: FlowSchema): CompiledSchema {
  const { spec, metadata } = schema;
  return {
    name: metadata.name ?? "",
    uid: metadata.uid ?? "",
    level: spec.priorityLevelConfiguration.name,
    precedence: spec.matchingPrecedence,
    distinguisher: spec.distinguisherMethod?.type ?? "",
    rules: (spec.rules ?? []).map(compileRule),
  };
}

/** In the order in which they are asked. */
export function byPrecedence(a: CompiledSchema, b: CompiledSchema): number {
  return a.precedence - b.precedence || (a.name < b.name ? -1 : 1);
}

/** Undefined: none matches, which the catch-all schema prevents. */
export function classify(schemas: readonly CompiledSchema[], user: UserInfo, asked: Asked): CompiledSchema | undefined {
  const resource = asked.subresource === "" ? asked.resource : `${asked.resource}/${asked.subresource}`;
  for (const schema of schemas) {
    for (const rule of schema.rules) {
      if (!isSubject(rule.subjects, user)) continue;
      const matches = asked.isResource
        ? rule.resources.some((each) => coversResource(each, asked, resource))
        : rule.paths.some((each) => coversPath(each, asked));
      if (matches) return schema;
    }
  }
  return undefined;
}

/** What tells flows of one schema apart. */
export function distinguish(schema: CompiledSchema, user: UserInfo, asked: Asked): string {
  if (schema.distinguisher === "ByUser") return user.name;
  return schema.distinguisher === "ByNamespace" ? asked.namespace : "";
}

function isSubject({ users, groups, accountPrefixes }: SubjectSet, user: UserInfo): boolean {
  if (has(users, user.name) || groups === "all") return true;
  for (const group of user.groups) if (groups.has(group)) return true;
  return accountPrefixes.some((prefix) => user.name.startsWith(prefix));
}

function coversResource(rule: CompiledResources, asked: Asked, resource: string): boolean {
  if (!has(rule.verbs, asked.verb) || !has(rule.groups, asked.group) || !has(rule.resources, resource)) return false;
  return asked.namespace === "" ? rule.clusterScope : has(rule.namespaces, asked.namespace);
}

function coversPath(rule: CompiledPaths, asked: Asked): boolean {
  if (!has(rule.verbs, asked.verb)) return false;
  return has(rule.paths, asked.path) || rule.prefixes.some((prefix) => asked.path.startsWith(prefix));
}

const has = (names: Names, name: string): boolean => names === "all" || names.has(name);
const namesOf = (list: readonly string[] | undefined): Names => (list?.includes("*") ? "all" : new Set(list ?? []));

const compileRule = (rule: PolicyRulesWithSubjects): CompiledRule => ({
  subjects: compileSubjects(rule.subjects),
  resources: (rule.resourceRules ?? []).map(compileResources),
  paths: (rule.nonResourceRules ?? []).map(compilePaths),
});

const compileResources = (rule: ResourcePolicyRule): CompiledResources => ({
  verbs: namesOf(rule.verbs),
  groups: namesOf(rule.apiGroups),
  resources: namesOf(rule.resources),
  namespaces: namesOf(rule.namespaces),
  clusterScope: rule.clusterScope ?? false,
});

const compilePaths = (rule: NonResourcePolicyRule): CompiledPaths => ({
  verbs: namesOf(rule.verbs),
  paths: namesOf(rule.nonResourceURLs),
  prefixes: rule.nonResourceURLs.filter((path) => path.endsWith("/*")).map((path) => path.slice(0, -1)),
});

function compileSubjects(subjects: readonly Subject[] = []): SubjectSet {
  const users: string[] = [];
  const groups: string[] = [];
  const accountPrefixes: string[] = [];
  for (const { user, group, serviceAccount } of subjects) {
    if (user) users.push(user.name);
    if (group) groups.push(group.name);
    if (!serviceAccount) continue;
    const prefix = `${accountPrefix}${serviceAccount.namespace}:`;
    if (serviceAccount.name === "*") accountPrefixes.push(prefix);
    else users.push(prefix + serviceAccount.name);
  }
  return { users: namesOf(users), groups: namesOf(groups), accountPrefixes };
}
