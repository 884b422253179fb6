import { describe, expect, test } from "vitest";
import type { UserInfo } from "../authn/user.ts";
import { parseRequest } from "../endpoints/request-info.ts";
import { builtInPolicy, isFailure } from "./built-in-policy.ts";
import { decideBy } from "./policy.ts";
import { parsePolicy } from "./policy-file.ts";

const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
const ann: UserInfo = { name: "ann", groups: ["dev", "system:authenticated"] };

function asked(line: string) {
  const [method = "", target = ""] = line.split(" ");
  const [path = "", query = ""] = target.split("?");
  return parseRequest(method, path, new URLSearchParams(query))!;
}

describe("rules", () => {
  // Each rule is followed by a catch-all, so that "Request" means that it fitted.
  test.each<[string, string, string, boolean]>([
    ["a user", "users: [ann]", "GET /api/v1/pods", true],
    ["another user", "users: [bob]", "GET /api/v1/pods", false],
    ["a group", "userGroups: [ops, dev]", "GET /api/v1/pods", true],
    ["another group", "userGroups: [ops]", "GET /api/v1/pods", false],
    ["a verb", "verbs: [list]", "GET /api/v1/pods", true],
    ["another verb", "verbs: [get]", "GET /api/v1/pods", false],
    ["a watch is no list", "verbs: [list]", "GET /api/v1/pods?watch=1", false],
    ["user and verb, one of them wrong", "{users: [ann], verbs: [get]}", "GET /api/v1/pods", false],
    ["a resource", 'resources: [{group: "", resources: [pods]}]', "GET /api/v1/pods", true],
    ["the core group without saying so", "resources: [{resources: [pods]}]", "GET /api/v1/pods", true],
    ["another group", "resources: [{group: apps, resources: [pods]}]", "GET /api/v1/pods", false],
    ["a whole group", "resources: [{group: apps}]", "GET /apis/apps/v1/deployments", true],
    [
      "a whole group, with subresources",
      "resources: [{group: apps}]",
      "GET /apis/apps/v1/namespaces/a/deployments/x/scale",
      true,
    ],
    [
      "a resource is not its subresource",
      "resources: [{resources: [pods]}]",
      "GET /api/v1/namespaces/a/pods/x/log",
      false,
    ],
    ["a subresource", "resources: [{resources: [pods/log]}]", "GET /api/v1/namespaces/a/pods/x/log", true],
    ["another subresource", "resources: [{resources: [pods/log]}]", "GET /api/v1/namespaces/a/pods/x/exec", false],
    ["all subresources", "resources: [{resources: [pods/*]}]", "GET /api/v1/namespaces/a/pods/x/exec", true],
    [
      "all subresources and the resource",
      "resources: [{resources: [pods/*]}]",
      "GET /api/v1/namespaces/a/pods/x",
      true,
    ],
    ["a subresource of all", 'resources: [{resources: ["*/status"]}]', "PUT /api/v1/namespaces/a/pods/x/status", true],
    [
      "a subresource of all, not the resource",
      'resources: [{resources: ["*/status"]}]',
      "PUT /api/v1/namespaces/a/pods/x",
      false,
    ],
    ["everything", 'resources: [{resources: ["*"]}]', "PUT /api/v1/namespaces/a/pods/x/status", true],
    ["a name", "resources: [{resources: [pods], resourceNames: [x]}]", "GET /api/v1/namespaces/a/pods/x", true],
    ["another name", "resources: [{resources: [pods], resourceNames: [z]}]", "GET /api/v1/namespaces/a/pods/x", false],
    ["no name", "resources: [{resources: [pods], resourceNames: [x]}]", "GET /api/v1/pods", false],
    ["a namespace", "namespaces: [a]", "GET /api/v1/namespaces/a/pods", true],
    ["another namespace", "namespaces: [b]", "GET /api/v1/namespaces/a/pods", false],
    ["the cluster scope", 'namespaces: [""]', "GET /api/v1/nodes", true],
    ["not the cluster scope", 'namespaces: [""]', "GET /api/v1/namespaces/a/pods", false],
    ["a namespace is no path", 'namespaces: [""]', "GET /version", false],
    ["a path", "nonResourceURLs: [/version]", "GET /version", true],
    ["a path below", "nonResourceURLs: [/healthz*]", "GET /healthz/etcd", true],
    ["another path", "nonResourceURLs: [/healthz/*]", "GET /livez", false],
    ["all paths", 'nonResourceURLs: ["*"]', "GET /openapi/v3", true],
    ["all paths are no resources", 'nonResourceURLs: ["*"]', "GET /api/v1/pods", false],
  ])("%s", (_name, rule, line, fits) => {
    const fields = rule.startsWith("{") ? rule.slice(1, -1) : rule;
    const policy = parsePolicy(`${head}rules: [{level: Request, ${fields}}, {level: Metadata}]`, "p");
    expect(decideBy(policy)(asked(line), ann).level).toBe(fits ? "Request" : "Metadata");
  });

  test("the first that fits counts, and where none does nothing is told", () => {
    const rules = "rules: [{level: None, verbs: [get]}, {level: Request, users: [ann], verbs: [get, list]}]";
    const decide = decideBy(parsePolicy(`${head}${rules}`, "p"));
    expect(decide(asked("GET /api/v1/nodes/x"), ann).level).toBe("None");
    expect(decide(asked("GET /api/v1/nodes"), ann).level).toBe("Request");
    expect(decide(asked("GET /api/v1/nodes"), undefined).level).toBe("None");
    expect(decide(asked("POST /api/v1/nodes"), ann).level).toBe("None");
  });

  test("stages and managed fields: what the policy leaves out, and what a rule does", () => {
    const text = `${head}
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: Request, users: [ann], omitStages: [Panic], omitManagedFields: false}
- {level: Metadata}`;
    const decide = decideBy(parsePolicy(text, "p"));
    const [own, other] = [decide(asked("GET /version"), ann), decide(asked("GET /version"), undefined)];
    expect([[...own.omitStages], own.omitManagedFields]).toEqual([["RequestReceived", "Panic"], false]);
    expect([[...other.omitStages], other.omitManagedFields]).toEqual([["RequestReceived"], true]);
  });
});

test("JSON is YAML", () => {
  const text = JSON.stringify({ apiVersion: "audit.k8s.io/v1", kind: "Policy", rules: [{ level: "Metadata" }] });
  expect(parsePolicy(text, "p").rules).toHaveLength(1);
});

test.each<[string, string, string]>([
  ["no YAML", "a: [", "not readable as YAML or JSON: "],
  ["nothing", "", "a map with apiVersion, kind,"],
  ["a list", "[]", "a map with apiVersion, kind,"],
  [
    "another version",
    "apiVersion: audit.k8s.io/v1beta1",
    'apiVersion: "audit.k8s.io/v1beta1" is not allowed; use audit.k8s.io/v1',
  ],
  ["no kind", "apiVersion: audit.k8s.io/v1", "kind: it is missing; use Policy"],
  ["an unknown field", `${head}rule: []`, "rule: there is no such field; these are: apiVersion, kind,"],
  ["a field twice", `${head}rules: []\nrules: []`, "not readable as YAML or JSON: "],
  ["no rules", head, "rules: at least one rule is needed"],
  [
    "no level",
    `${head}rules: [{users: [a]}]`,
    "rules[0].level: it is missing; use one of None, Metadata, Request, RequestResponse",
  ],
  [
    "a wrong level",
    `${head}rules: [{level: None}, {level: metadata}]`,
    'rules[1].level: "metadata" is not allowed; use one of None,',
  ],
  [
    "an unknown field of a rule",
    `${head}rules: [{level: None, user: [a]}]`,
    "rules[0].user: there is no such field; these are: level,",
  ],
  ["text for a list", `${head}rules: [{level: None, verbs: get}]`, "rules[0].verbs: a list is expected"],
  ["a number for text", `${head}rules: [{level: None, verbs: [1]}]`, "rules[0].verbs[0]: text is expected, and not 1"],
  [
    "a wrong stage",
    `${head}omitStages: [Started]\nrules: [{level: None}]`,
    'omitStages[0]: "Started" is not allowed; use one of RequestReceived, ResponseStarted, ResponseComplete, Panic',
  ],
  [
    "no truth",
    `${head}rules: [{level: None, omitManagedFields: "yes"}]`,
    "rules[0].omitManagedFields: true or false is expected",
  ],
  [
    "a path that is none",
    `${head}rules: [{level: None, nonResourceURLs: [version]}]`,
    'rules[0].nonResourceURLs[0]: "version" must begin with "/"',
  ],
  [
    "a star inside",
    `${head}rules: [{level: None, nonResourceURLs: [/a, "/*/b"]}]`,
    'rules[0].nonResourceURLs[1]: "/*/b" may have a "*" as its last character only',
  ],
  [
    "paths and namespaces",
    `${head}rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]`,
    "rules[0].nonResourceURLs: one rule cannot be about paths",
  ],
  [
    "a group with its version",
    `${head}rules: [{level: None, resources: [{group: apps/v1}]}]`,
    'rules[0].resources[0].group: "apps/v1": is a group with a version',
  ],
  [
    "an unknown field of resources",
    `${head}rules: [{level: None, resources: [{groups: [apps]}]}]`,
    "rules[0].resources[0].groups: there is no such field; these are: group,",
  ],
  [
    "names of nothing",
    `${head}rules: [{level: None, resources: [{group: apps, resourceNames: [a]}]}]`,
    "rules[0].resources[0].resourceNames: needs at least one resource",
  ],
])("a policy with %s is refused, by file and place", (_name, text, message) => {
  expect(() => parsePolicy(text, "/etc/audit.yaml")).toThrow(`audit-policy-file /etc/audit.yaml: ${message}`);
});

describe("the built-in policy", () => {
  test.each<[string, boolean]>([
    ["GET /api/v1/pods", false],
    ["GET /api/v1/namespaces/a/secrets/x", false],
    ["GET /api/v1/pods?watch=1", false],
    ["GET /version", false],
    ["POST /api/v1/namespaces/a/secrets", true],
    ["PATCH /apis/apps/v1/namespaces/a/deployments/x", true],
    ["PATCH /apis/apps/v1/namespaces/a/deployments/x/scale", true],
    ["DELETE /api/v1/namespaces/a/pods", true],
    ["POST /api/v1/namespaces/a/serviceaccounts/x/token", true],
    ["POST /api/v1/namespaces/a/pods/x/exec", true],
    ["GET /api/v1/namespaces/a/pods/x/exec", true],
    ["GET /api/v1/namespaces/a/pods/x/portforward", true],
    ["GET /api/v1/namespaces/a/pods/x/log", false],
    ["GET /api/v1/namespaces/a/services/x/proxy/", false],
    ["POST /api/v1/namespaces/a/services/x/proxy/", true],
    ["PUT /apis/coordination.k8s.io/v1/namespaces/a/leases/x", false],
    ["POST /api/v1/namespaces/a/events", false],
    ["PATCH /apis/example.com/v1/namespaces/a/things/x/status", false],
    ["POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", false],
  ])("%s", (line, isTold) => {
    expect(builtInPolicy(asked(line), ann)).toMatchObject({ level: "Metadata", onlyFailures: !isTold });
  });

  test("failures", () => {
    expect([200, 201, 304, 400, 404, 409, 422].filter(isFailure)).toEqual([]);
    expect([401, 403, 429, 500, 503, 504].map(isFailure)).not.toContain(false);
  });
});
