// Which requests the audit log tells of, and how much: a policy made ready to be asked. The first rule that fits a request
// counts; where none does nothing is told. Pure, and cheap to ask: every answer is made beforehand.
// Upstream counterpart: apiserver/pkg/audit/policy.
import type { UserInfo } from "../authn/user.ts";
import type { RequestInfo } from "../endpoints/request-info.ts";

/** By how much they tell. */
export const levels = ["None", "Metadata", "Request", "RequestResponse"] as const;
export type Level = (typeof levels)[number];
export const stages = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"] as const;
export type Stage = (typeof stages)[number];

export interface GroupResources {
  /** "" is the core group. */
  readonly group: string;
  /** Empty: all. `pods`, `pods/log`, `pods/*`, `*` + `/status`, `*`. */
  readonly resources: readonly string[];
  /** Empty: all. */
  readonly resourceNames: readonly string[];
}

/** An empty list asks for nothing. */
export interface PolicyRule {
  readonly level: Level;
  readonly users: readonly string[];
  readonly userGroups: readonly string[];
  readonly verbs: readonly string[];
  readonly resources: readonly GroupResources[];
  /** "" is the cluster scope. */
  readonly namespaces: readonly string[];
  readonly nonResourceURLs: readonly string[];
  readonly omitStages: readonly Stage[];
  /** Undefined: as the policy says. */
  readonly omitManagedFields: boolean | undefined;
}

export interface Policy {
  readonly rules: readonly PolicyRule[];
  readonly omitStages: readonly Stage[];
  readonly omitManagedFields: boolean;
}

/** What is done about one request. */
export interface Choice {
  readonly level: Level;
  readonly omitStages: ReadonlySet<Stage>;
  readonly omitManagedFields: boolean;
  /** Told of only where it was refused or broke. */
  readonly onlyFailures: boolean;
}

/** `user` undefined: nobody that is known. */
export type Decide = (info: RequestInfo, user: UserInfo | undefined) => Choice;

export function decideBy(policy: Policy): Decide {
  const choiceOf = (level: Level, omitStages: readonly Stage[], omitManagedFields: boolean): Choice => ({
    level,
    omitStages: new Set([...policy.omitStages, ...omitStages]),
    omitManagedFields,
    onlyFailures: false,
  });
  const rules = policy.rules.map((rule) => ({
    fits: fitOf(rule),
    choice: choiceOf(rule.level, rule.omitStages, rule.omitManagedFields ?? policy.omitManagedFields),
  }));
  const nothing = choiceOf("None", [], policy.omitManagedFields);
  return (info, user) => {
    for (const { fits, choice } of rules) if (fits(info, user)) return choice;
    return nothing;
  };
}

type Fits = (info: RequestInfo, user: UserInfo | undefined) => boolean;

function fitOf(rule: PolicyRule): Fits {
  const [users, groups, verbs] = [new Set(rule.users), new Set(rule.userGroups), new Set(rule.verbs)];
  const target = targetOf(rule);
  return (info, user) => {
    if (users.size > 0 && !(user && users.has(user.name))) return false;
    if (groups.size > 0 && !user?.groups.some((group) => groups.has(group))) return false;
    if (verbs.size > 0 && !verbs.has(info.verb)) return false;
    return target?.(info) ?? true;
  };
}

/** Undefined: whatever it is about. */
function targetOf(rule: PolicyRule): ((info: RequestInfo) => boolean) | undefined {
  if (rule.namespaces.length > 0 || rule.resources.length > 0) {
    const namespaces = new Set(rule.namespaces);
    return (info) => {
      if (!info.isResource) return false;
      if (namespaces.size > 0 && !namespaces.has(info.namespace)) return false;
      return rule.resources.length === 0 || rule.resources.some((each) => fitsResource(each, info));
    };
  }
  if (rule.nonResourceURLs.length > 0) {
    return (info) => !info.isResource && rule.nonResourceURLs.some((url) => fitsPath(url, info.path));
  }
  return undefined;
}

function fitsResource({ group, resources, resourceNames }: GroupResources, info: RequestInfo): boolean {
  if (group !== info.group) return false;
  if (resources.length === 0) return true;
  if (resourceNames.length > 0 && !resourceNames.includes(info.name)) return false;
  const { resource, subresource } = info;
  const whole = subresource === "" ? resource : `${resource}/${subresource}`;
  return resources.some(
    (pattern) =>
      pattern === "*" ||
      pattern === whole ||
      (subresource !== "" && pattern === `*/${subresource}`) ||
      pattern === `${resource}/*`,
  );
}

const fitsPath = (pattern: string, path: string): boolean =>
  pattern === "*" || pattern === path || (pattern.endsWith("*") && path.startsWith(pattern.replace(/\*+$/, "")));
