// A policy file of audit.k8s.io/v1, read strictly: a rule that is misspelt would silently tell of nothing. Pure; every
// mistake names the file, the place in it and what is allowed there. Upstream counterpart: audit/policy/reader.go with
// the validation of apis/audit.
import { AppError, messageOf } from "#base/errors.ts";
import { dns1123Subdomain } from "#model/validation/names.ts";
import { parseYaml } from "#wire/yaml.ts";
import { type GroupResources, type Level, levels, type Policy, type PolicyRule, type Stage, stages } from "./policy.ts";

const apiVersion = "audit.k8s.io/v1";
/** Every rule may be looked at with every request. */
const maxRules = 1000;

const policyFields = ["apiVersion", "kind", "metadata", "omitManagedFields", "omitStages", "rules"];
const ruleFields = [
  ...["level", "namespaces", "nonResourceURLs", "omitManagedFields", "omitStages"],
  ...["resources", "userGroups", "users", "verbs"],
];
const resourceFields = ["group", "resourceNames", "resources"];

/** `file` is for the messages. */
export function parsePolicy(text: string, file: string): Policy {
  const read = new Reader(file);
  let document: unknown;
  try {
    document = parseYaml(text);
  } catch (error) {
    throw read.wrong("", `not readable as YAML or JSON: ${messageOf(error)}`);
  }
  const policy = read.members(document, "", policyFields);
  read.oneOf(policy["apiVersion"], "apiVersion", [apiVersion]);
  read.oneOf(policy["kind"], "kind", ["Policy"]);
  const omitStages = read.stages(policy["omitStages"], "omitStages");
  const omitManagedFields = read.flag(policy["omitManagedFields"], "omitManagedFields") ?? false;
  const rules = read.list(policy["rules"], "rules");
  if (rules.length === 0)
    throw read.wrong("rules", "at least one rule is needed; without any nothing would be told of");
  if (rules.length > maxRules) throw read.wrong("rules", `at most ${maxRules} rules are allowed`);
  return { omitStages, omitManagedFields, rules: rules.map((each, index) => ruleOf(read, each, `rules[${index}]`)) };
}

function ruleOf(read: Reader, value: unknown, at: string): PolicyRule {
  const rule = read.members(value, at, ruleFields);
  const texts = (field: string) => read.texts(rule[field], `${at}.${field}`);
  const out: PolicyRule = {
    level: read.oneOf(rule["level"], `${at}.level`, levels) as Level,
    users: texts("users"),
    userGroups: texts("userGroups"),
    verbs: texts("verbs"),
    namespaces: texts("namespaces"),
    nonResourceURLs: texts("nonResourceURLs"),
    resources: read
      .list(rule["resources"], `${at}.resources`)
      .map((each, index) => resourcesOf(read, each, `${at}.resources[${index}]`)),
    omitStages: read.stages(rule["omitStages"], `${at}.omitStages`),
    omitManagedFields: read.flag(rule["omitManagedFields"], `${at}.omitManagedFields`),
  };
  for (const [index, url] of out.nonResourceURLs.entries()) {
    const place = `${at}.nonResourceURLs[${index}]`;
    if (url === "*") continue;
    if (!url.startsWith("/")) throw read.wrong(place, `${JSON.stringify(url)} must begin with "/", or be "*"`);
    if (url.slice(0, -1).includes("*")) {
      throw read.wrong(place, `${JSON.stringify(url)} may have a "*" as its last character only`);
    }
  }
  if (out.nonResourceURLs.length > 0 && out.resources.length + out.namespaces.length > 0) {
    throw read.wrong(`${at}.nonResourceURLs`, "one rule cannot be about paths and about resources or namespaces");
  }
  return out;
}

function resourcesOf(read: Reader, value: unknown, at: string): GroupResources {
  const fields = read.members(value, at, resourceFields);
  const group = read.text(fields["group"], `${at}.group`);
  const [problem] = group === "" ? [] : dns1123Subdomain(group);
  if (problem !== undefined) {
    const why = group.includes("/") ? "is a group with a version; only the group is wanted" : problem;
    throw read.wrong(`${at}.group`, `${JSON.stringify(group)}: ${why}`);
  }
  const resources = read.texts(fields["resources"], `${at}.resources`);
  const resourceNames = read.texts(fields["resourceNames"], `${at}.resourceNames`);
  if (resourceNames.length > 0 && resources.length === 0) {
    throw read.wrong(`${at}.resourceNames`, "needs at least one resource beside it");
  }
  return { group, resources, resourceNames };
}

class Reader {
  readonly #file: string;
  constructor(file: string) {
    this.#file = file;
  }

  wrong(at: string, why: string): AppError {
    const place = at === "" ? "" : `${at}: `;
    return new AppError("APISERVER_AUDIT_POLICY", `audit-policy-file ${this.#file}: ${place}${why}`, { at });
  }

  members(value: unknown, at: string, allowed: readonly string[]): Readonly<Record<string, unknown>> {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw this.wrong(at, `a map with ${allowed.join(", ")} is expected`);
    }
    for (const name of Object.keys(value)) {
      if (!allowed.includes(name)) {
        throw this.wrong(
          at === "" ? name : `${at}.${name}`,
          `there is no such field; these are: ${allowed.join(", ")}`,
        );
      }
    }
    return value as Readonly<Record<string, unknown>>;
  }

  list(value: unknown, at: string): readonly unknown[] {
    if (value === undefined || value === null) return [];
    if (!Array.isArray(value)) throw this.wrong(at, "a list is expected");
    return value;
  }

  text(value: unknown, at: string): string {
    if (value === undefined || value === null) return "";
    if (typeof value !== "string") throw this.wrong(at, `text is expected, and not ${JSON.stringify(value)}`);
    return value;
  }

  texts(value: unknown, at: string): readonly string[] {
    return this.list(value, at).map((each, index) => {
      if (each === null) throw this.wrong(`${at}[${index}]`, "text is expected, and not null");
      return this.text(each, `${at}[${index}]`);
    });
  }

  flag(value: unknown, at: string): boolean | undefined {
    if (value === undefined || value === null) return undefined;
    if (typeof value !== "boolean") throw this.wrong(at, "true or false is expected");
    return value;
  }

  oneOf(value: unknown, at: string, allowed: readonly string[]): string {
    const said = value === undefined || value === null ? "it is missing" : `${JSON.stringify(value)} is not allowed`;
    if (typeof value !== "string" || !allowed.includes(value)) {
      throw this.wrong(at, `${said}; use ${allowed.length === 1 ? allowed[0] : `one of ${allowed.join(", ")}`}`);
    }
    return value;
  }

  stages(value: unknown, at: string): readonly Stage[] {
    return this.list(value, at).map((each, index) => this.oneOf(each, `${at}[${index}]`, stages) as Stage);
  }
}
