import { describe, expect, test } from "vitest";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { applyDefaults } from "../defaults.ts";
import type { UnknownObject } from "../object.ts";
import { allResources } from "../resources.ts";
import { validateObject, validateObjectUpdate } from "../validate.ts";

const infoOf = (kind: string, group: string) => {
  const info = allResources.find((row) => row.kind === kind && row.group === group);
  if (!info) throw new Error(`no such kind: ${kind}`);
  return info;
};
const objectOf = (body: object, name = "n"): UnknownObject =>
  ({ metadata: { name, namespace: "ns" }, ...structuredClone(body) }) as UnknownObject;
/** What is wrong once defaults are in. */
function wrong(kind: string, group: string, body: object, name = "n"): string[] {
  const info = infoOf(kind, group);
  const object = objectOf(body, name);
  if (!info.namespaced) delete object.metadata.namespace;
  applyDefaults(info, object);
  return validateObject(info, object).map(({ field, message }) => `${field}: ${message}`);
}

describe("resource quotas", () => {
  test.each<[string, object, string[]]>([
    [
      "fine",
      { hard: { pods: "1", "requests.cpu": "1", "count/jobs.batch": "3", "requests.example.com/gpu": "2" } },
      [],
    ],
    [
      "an unknown name",
      { hard: { apples: "1" } },
      [
        'spec.hard[apples]: Invalid value: "apples": must be a standard resource type or fully qualified',
        'spec.hard[apples]: Invalid value: "apples": must be a standard resource for quotas',
      ],
    ],
    ["a part of a pod", { hard: { pods: "500m" } }, ['spec.hard[pods]: Invalid value: "500m": must be an integer']],
    [
      "less than nothing",
      { hard: { pods: "-1" } },
      ['spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0'],
    ],
    [
      "an unknown scope",
      { hard: { pods: "1" }, scopes: ["Blue"] },
      ['spec.scopes: Invalid value: ["Blue"]: unsupported scope'],
    ],
    [
      "scopes that leave nothing",
      { hard: { pods: "1" }, scopes: ["BestEffort", "NotBestEffort"] },
      ['spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes'],
    ],
    [
      "cpu of pods that ask for none",
      { hard: { cpu: "1" }, scopes: ["BestEffort"] },
      ['spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource'],
    ],
    [
      "a selector without values",
      { hard: { pods: "1" }, scopeSelector: { matchExpressions: [{ scopeName: "PriorityClass", operator: "In" }] } },
      [
        "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
      ],
    ],
  ])("%s", (_what, spec, wanted) => {
    expect(wrong("ResourceQuota", "", { spec })).toEqual(wanted);
  });
  test("scopes stay", () => {
    const info = infoOf("ResourceQuota", "");
    const [next, old] = [["Terminating"], ["NotTerminating"]].map((scopes) =>
      objectOf({ spec: { hard: { pods: "1" }, scopes } }),
    );
    expect(validateObjectUpdate(info, next!, old!)[0]?.message).toBe(
      'Invalid value: ["Terminating"]: field is immutable',
    );
  });
});

describe("jobs", () => {
  const group = "batch";
  const template = {
    metadata: { labels: { a: "b" } },
    spec: { restartPolicy: "Never", containers: [{ name: "c", image: "x" }] },
  };
  const job = (spec: object) => ({ spec: { template, selector: { matchLabels: { a: "b" } }, ...spec } });
  const onPodConditions = [{ type: "DisruptionTarget" }];
  const indexed = { completionMode: "Indexed", completions: 5 };
  const rule = (more: object) => job({ podFailurePolicy: { rules: [{ action: "Ignore", ...more }] } });
  const at = "spec.podFailurePolicy.rules[0]";
  test.each<[string, object, string[]]>([
    ["fine", job({ podFailurePolicy: { rules: [{ action: "Ignore", onPodConditions }] } }), []],
    [
      "an unknown action",
      rule({ action: "Wait", onPodConditions }),
      [`${at}.action: Unsupported value: "Wait": supported values: "Count", "FailIndex", "FailJob", "Ignore"`],
    ],
    [
      "an index that cannot fail",
      rule({ action: "FailIndex", onPodConditions }),
      [`${at}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set`],
    ],
    [
      "exit code zero",
      rule({ onExitCodes: { operator: "In", values: [0] } }),
      [`${at}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator`],
    ],
    [
      "exit codes out of order",
      rule({ onExitCodes: { operator: "NotIn", values: [3, 1] } }),
      [`${at}.onExitCodes.values: Invalid value: [3,1]: must be ordered`],
    ],
    [
      "somebody else's container",
      rule({ onExitCodes: { containerName: "d", operator: "In", values: [1] } }),
      [
        `${at}.onExitCodes.containerName: Invalid value: "d": must be one of the container or initContainer names in the pod template`,
      ],
    ],
    [
      "a limit per index without indexes",
      job({ backoffLimitPerIndex: 1 }),
      ["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
    ],
    [
      "success rules",
      job({ ...indexed, successPolicy: { rules: [{ succeededIndexes: "0,2-4", succeededCount: 2 }] } }),
      [],
    ],
    [
      "more than there are",
      job({ ...indexed, successPolicy: { rules: [{ succeededIndexes: "0,2", succeededCount: 3 }] } }),
      [
        "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
      ],
    ],
    [
      "indexes beyond the end",
      job({ ...indexed, successPolicy: { rules: [{ succeededIndexes: "4-5" }] } }),
      ['spec.successPolicy.rules[0].succeededIndexes: Invalid value: "4-5": error parsing succeededIndexes'],
    ],
    [
      "no manager",
      job({ managedBy: "me" }),
      ['spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")'],
    ],
  ])("%s", (_what, body, wanted) => {
    expect(wrong("Job", group, body)).toEqual(wanted);
  });
});

describe("webhooks", () => {
  const group = "admissionregistration.k8s.io";
  const webhook = (more: object = {}) => ({
    name: "a.example.com",
    admissionReviewVersions: ["v1"],
    sideEffects: "None",
    clientConfig: { url: "https://example.com/path" },
    rules: [{ operations: ["CREATE"], apiGroups: [""], apiVersions: ["v1"], resources: ["pods"] }],
    ...more,
  });
  test.each<[string, object[], string[]]>([
    ["fine", [webhook()], []],
    [
      "a short name",
      [webhook({ name: "a.b" })],
      ['webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots'],
    ],
    [
      "no side effects said",
      [webhook({ sideEffects: "" })],
      ["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
    ],
    [
      "nowhere to go",
      [webhook({ clientConfig: {} })],
      ["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
    ],
    [
      "in the open",
      [webhook({ clientConfig: { url: "http://example.com" } })],
      [
        `webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]`,
      ],
    ],
    [
      "too patient",
      [webhook({ timeoutSeconds: 31 })],
      ["webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"],
    ],
    [
      "no rules' resources",
      [webhook({ rules: [{ operations: ["CREATE"], apiGroups: [""], apiVersions: ["v1"] }] })],
      ["webhooks[0].rules[0].resources: Required value"],
    ],
    [
      "conditions",
      [
        webhook({
          matchConditions: [
            { name: "fine", expression: "request.userInfo.username != 'x' && has(object.metadata.labels)" },
            { name: "asks", expression: "!authorizer.group('').resource('pods').check('get').allowed()" },
            { name: "no-bool", expression: "authorizer.path('/x').check('get').reason()" },
            { name: "unknown", expression: "params.x" },
          ],
        }),
      ],
      [
        `webhooks[0].matchConditions[2].expression: Invalid value: "authorizer.path('/x').check('get').reason()": must evaluate to bool`,
        "webhooks[0].matchConditions[3].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x\n | ^",
      ],
    ],
    ["twice", [webhook(), webhook()], ['webhooks[1].name: Duplicate value: "a.example.com"']],
  ])("%s", (_what, webhooks, wanted) => {
    expect(wrong("ValidatingWebhookConfiguration", group, { webhooks })).toEqual(wanted);
  });
  test("defaults", () => {
    const object = objectOf({ webhooks: [webhook({ clientConfig: { service: { namespace: "n", name: "s" } } })] });
    applyDefaults(infoOf("MutatingWebhookConfiguration", group), object);
    expect((object["webhooks"] as object[])[0]).toMatchObject({
      failurePolicy: "Fail",
      matchPolicy: "Equivalent",
      namespaceSelector: {},
      objectSelector: {},
      reinvocationPolicy: "Never",
      timeoutSeconds: 10,
      clientConfig: { service: { port: 443 } },
      rules: [{ scope: "*" }],
    });
  });
});

describe("admission policies", () => {
  const group = "admissionregistration.k8s.io";
  const matchConstraints = {
    resourceRules: [{ operations: ["CREATE"], apiGroups: ["apps"], apiVersions: ["v1"], resources: ["deployments"] }],
  };
  const validations = [{ expression: "true" }];
  test.each<[string, object, string[]]>([
    ["fine", { matchConstraints, validations, variables: [{ name: "v", expression: "1" }] }, []],
    ["about nothing", { validations }, ["spec.matchConstraints: Required value"]],
    [
      "without a word",
      { matchConstraints },
      ["spec.validations: Required value: validations or auditAnnotations must contain at least one item"],
    ],
    [
      "an odd reason",
      { matchConstraints, validations: [{ expression: "true", reason: "No" }] },
      [
        'spec.validations[0].reason: Unsupported value: "No": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"',
      ],
    ],
    [
      "an odd name",
      { matchConstraints, validations, variables: [{ name: "1v", expression: "1" }] },
      ['spec.variables[0].name: Invalid value: "1v": name is not a valid CEL identifier'],
    ],
  ])("%s", (_what, spec, wanted) => {
    expect(wrong("ValidatingAdmissionPolicy", group, { spec })).toEqual(wanted);
  });
  test.each<[string, object, string[]]>([
    ["fine", { policyName: "p", validationActions: ["Deny", "Audit"] }, []],
    [
      "no action",
      { policyName: "p" },
      ["spec.validationActions: Required value: at least one validation action is required"],
    ],
    [
      "no parameter",
      { policyName: "p", validationActions: ["Deny"], paramRef: { parameterNotFoundAction: "Deny" } },
      ["spec.paramRef: Required value: one of name or selector must be specified"],
    ],
  ])("binding: %s", (_what, spec, wanted) => {
    expect(wrong("ValidatingAdmissionPolicyBinding", group, { spec })).toEqual(wanted);
  });
});

describe("flow control", () => {
  const group = "flowcontrol.apiserver.k8s.io";
  const rules = [
    {
      subjects: [{ kind: "User", user: { name: "u" } }],
      resourceRules: [{ verbs: ["get"], apiGroups: [""], resources: ["pods"], namespaces: ["*"] }],
    },
  ];
  const priorityLevelConfiguration = { name: "p" };
  test.each<[string, object, string[]]>([
    ["fine", { priorityLevelConfiguration, rules }, []],
    [
      "first of all",
      { priorityLevelConfiguration, matchingPrecedence: 1 },
      ["spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"],
    ],
    [
      "nobody",
      { priorityLevelConfiguration, rules: [{ ...rules[0], subjects: [] }] },
      ["spec.rules[0].subjects: Required value: subjects must contain at least one value"],
    ],
    ["nowhere", { rules }, ["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"]],
  ])("schema: %s", (_what, spec, wanted) => {
    expect(wrong("FlowSchema", group, { spec })).toEqual(wanted);
  });
  test.each<[string, object, string[]]>([
    ["fine", { type: "Limited", limited: { limitResponse: { type: "Queue", queuing: {} } } }, []],
    ["no limits", { type: "Limited" }, ["spec.limited: Required value: must not be empty when type is Limited"]],
    [
      "a large hand",
      { type: "Limited", limited: { limitResponse: { type: "Queue", queuing: { queues: 2, handSize: 3 } } } },
      ["spec.limited.limitResponse.queuing.handSize: Invalid value: 3: should not be greater than queues (2)"],
    ],
  ])("level: %s", (_what, spec, wanted) => {
    expect(wrong("PriorityLevelConfiguration", group, { spec })).toEqual(wanted);
  });
});

test.each<[string, object, string[]]>([
  ["fine", {}, []],
  [
    "for a moment",
    { expirationSeconds: 60 },
    ["spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds (10 minutes)"],
  ],
  ["for nothing", { usages: [] }, ["spec.usages: Required value"]],
  [
    "by nobody",
    { signerName: "x" },
    [
      `spec.signerName: Invalid value: "x": must be a fully qualified domain and path of the form 'example.com/signer-name'`,
    ],
  ],
  [
    "no request",
    { request: "eA==" },
    ['spec.request: Invalid value: "eA==": unable to parse csr: PEM block type must be CERTIFICATE REQUEST'],
  ],
])("signing request: %s", (_what, more, wanted) => {
  const request = Buffer.from(makeSigningRequest({ commonName: "c" }).request).toString("base64");
  const spec = { request, signerName: "example.com/s", usages: ["client auth"], ...more };
  expect(wrong("CertificateSigningRequest", "certificates.k8s.io", { spec })).toEqual(wanted);
});

test("small kinds", () => {
  expect(wrong("RuntimeClass", "node.k8s.io", { handler: "A" })[0]).toContain(
    'handler: Invalid value: "A": a lowercase RFC 1123 label',
  );
  expect(wrong("IngressClass", "networking.k8s.io", { spec: { controller: "x" } })).toEqual([
    'spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")',
  ]);
  expect(wrong("ControllerRevision", "apps", { revision: 1 })).toEqual(["data: Required value: data is mandatory"]);
  const event = {
    involvedObject: { namespace: "ns" },
    eventTime: "2026-01-01T00:00:00.000000Z",
    action: "a",
    reason: "r",
  };
  expect(wrong("Event", "", event)).toEqual([
    "reportingComponent: Required value",
    "reportingInstance: Required value",
  ]);
});
