// Label selectors in both of their forms: the query string (`a=b,c in (d,e),!f`) and the LabelSelector object.
// Both become a list of requirements, matched by one function. Texts of errors are upstream's.
// Upstream counterpart: k8s.io/apimachinery/pkg/labels.
import type { LabelSelector } from "./gen/meta-v1.ts";
import { type ApiError, badRequest } from "./status.ts";

export type LabelOperator = "=" | "!=" | "in" | "notin" | "exists" | "!" | "gt" | "lt";
export interface LabelRequirement {
  readonly key: string;
  readonly operator: LabelOperator;
  readonly values: readonly string[];
}
export type Labels = Readonly<Record<string, string>>;

/** Rejects with BadRequest. An empty string selects everything. */
export function parseLabelSelector(text: string): LabelRequirement[] {
  const tokens = tokenize(text);
  const requirements: LabelRequirement[] = [];
  let at = 0;
  if (tokens.length === 0) return requirements;
  for (;;) {
    const [requirement, next] = parseRequirement(tokens, at);
    requirements.push(requirement);
    at = next;
    if (at >= tokens.length) break;
    if (tokens[at] !== ",") throw unparsable(`found '${tokens[at]}', expected: ',' or 'end of string'`);
    at++;
    if (at >= tokens.length) throw unparsable("found '', expected: identifier after ','");
  }
  for (const requirement of requirements) check(requirement);
  return requirements;
}

/** An absent selector matches nothing (undefined), an empty one everything. Rejects with BadRequest. */
export function requirementsOf(selector: LabelSelector | undefined | null): LabelRequirement[] | undefined {
  if (selector === undefined || selector === null) return undefined;
  const operators: Readonly<Record<string, LabelOperator>> = {
    In: "in",
    NotIn: "notin",
    Exists: "exists",
    DoesNotExist: "!",
  };
  const requirements: LabelRequirement[] = Object.entries(selector.matchLabels ?? {}).map(([key, value]) => ({
    key,
    operator: "=",
    values: [value],
  }));
  for (const expression of selector.matchExpressions ?? []) {
    const operator = Object.hasOwn(operators, expression.operator) ? operators[expression.operator] : undefined;
    if (!operator) throw badRequest(`"${expression.operator}" is not a valid label selector operator`);
    requirements.push({ key: expression.key, operator, values: expression.values ?? [] });
  }
  return requirements;
}

export function matchesRequirements(requirements: readonly LabelRequirement[], labels: Labels | undefined): boolean {
  for (const { key, operator, values } of requirements) {
    const value = labels !== undefined && Object.hasOwn(labels, key) ? labels[key] : undefined;
    switch (operator) {
      case "=":
      case "in":
        if (value === undefined || !values.includes(value)) return false;
        break;
      case "!=":
      case "notin":
        if (value !== undefined && values.includes(value)) return false;
        break;
      case "exists":
        if (value === undefined) return false;
        break;
      case "!":
        if (value !== undefined) return false;
        break;
      case "gt":
      case "lt": {
        if (value === undefined || !/^[+-]?\d+$/.test(value)) return false;
        const difference = BigInt(value) - BigInt(values[0]!);
        if (operator === "gt" ? difference <= 0n : difference >= 0n) return false;
        break;
      }
    }
  }
  return true;
}

/** Whether the object form selects these labels; an absent selector selects nothing. */
export function matchesLabelSelector(selector: LabelSelector | undefined | null, labels: Labels | undefined): boolean {
  const requirements = requirementsOf(selector);
  return requirements !== undefined && matchesRequirements(requirements, labels);
}

/** The string form, sorted by key as upstream prints it. */
export function formatRequirements(requirements: readonly LabelRequirement[]): string {
  return [...requirements]
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    .map(requirementText)
    .join(",");
}

function requirementText({ key, operator, values }: LabelRequirement): string {
  if (operator === "exists") return key;
  if (operator === "!") return `!${key}`;
  if (operator === "in" || operator === "notin") return `${key} ${operator} (${[...values].sort().join(",")})`;
  const sign = operator === "gt" ? ">" : operator === "lt" ? "<" : operator;
  return `${key}${sign}${values[0] ?? ""}`;
}

const unparsable = (why: string): ApiError => badRequest(`unable to parse requirement: ${why}`);

function tokenize(text: string): string[] {
  return (
    text.match(/[!=<>]+|[(),]|[^\s!=<>(),]+/g)?.flatMap((token) => (/^!+$/.test(token) ? [...token] : [token])) ?? []
  );
}

const isWord = (token: string | undefined): token is string => token !== undefined && !/^[!=<>(),]/.test(token);

function parseRequirement(tokens: readonly string[], start: number): [LabelRequirement, number] {
  let at = start;
  const negated = tokens[at] === "!";
  if (negated) at++;
  const key = tokens[at];
  if (!isWord(key)) throw unparsable(`found '${key ?? ""}', expected: identifier`);
  at++;
  const operator = tokens[at];
  if (operator === undefined || operator === ",") return [{ key, operator: negated ? "!" : "exists", values: [] }, at];
  if (negated) throw unparsable(`found '${operator}', expected: ',' or 'end of string'`);
  at++;
  if (operator === "in" || operator === "notin") {
    const [values, next] = parseSet(tokens, at);
    return [{ key, operator, values }, next];
  }
  const known = { "=": "=", "==": "=", "!=": "!=", ">": "gt", "<": "lt" } as const;
  if (!Object.hasOwn(known, operator)) {
    throw unparsable(`found '${operator}', expected: in, notin, =, ==, !=, gt, lt`);
  }
  const simple = known[operator as keyof typeof known];
  // `a=` asks for the empty value.
  const value = isWord(tokens[at]) ? tokens[at++]! : "";
  if (tokens[at] !== undefined && tokens[at] !== ",") {
    throw unparsable(`found '${tokens[at]}', expected: ',' or 'end of string'`);
  }
  return [{ key, operator: simple, values: [value] }, at];
}

function parseSet(tokens: readonly string[], start: number): [string[], number] {
  let at = start;
  if (tokens[at] !== "(") throw unparsable(`found '${tokens[at] ?? ""}', expected: '('`);
  at++;
  const values: string[] = [];
  let expectsValue = true;
  for (; tokens[at] !== ")"; at++) {
    const token = tokens[at];
    if (token === undefined) throw unparsable("found '', expected: ',', ')' or identifier");
    if (token === ",") {
      if (expectsValue) values.push("");
      expectsValue = true;
    } else if (isWord(token) && expectsValue) {
      values.push(token);
      expectsValue = false;
    } else throw unparsable(`found '${token}', expected: ',' or ')'`);
  }
  if (expectsValue) values.push("");
  return [[...new Set(values)].sort(), at + 1];
}

const namePart = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
const dnsSubdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const namePartHelp =
  "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const valueHelp =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

function check({ key, operator, values }: LabelRequirement): void {
  const slash = key.indexOf("/");
  const name = key.slice(slash + 1);
  const prefix = slash < 0 ? undefined : key.slice(0, slash);
  const badPrefix = prefix !== undefined && (prefix.length > 253 || !dnsSubdomain.test(prefix));
  if (badPrefix || name.length > 63 || !namePart.test(name)) {
    throw unparsable(
      `<nil>: Invalid value: ${JSON.stringify(key)}: ${badPrefix ? "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')" : namePartHelp}`,
    );
  }
  if (operator === "gt" || operator === "lt") {
    if (!/^[+-]?\d+$/.test(values[0] ?? "")) {
      throw unparsable(
        `values[0][${key}]: Invalid value: ${JSON.stringify(values[0])}: for 'Gt', 'Lt' operators, the value must be an integer`,
      );
    }
  }
  for (const [index, value] of values.entries()) {
    if (value === "" || (value.length <= 63 && namePart.test(value))) continue;
    throw unparsable(
      `values[${index}][${key}]: Invalid value: ${JSON.stringify(value)}: ${value.length > 63 ? "must be no more than 63 bytes" : valueHelp}`,
    );
  }
}
