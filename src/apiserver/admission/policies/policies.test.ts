import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AuthorizerValue } from "#model/cel/library-authorizer.ts";
import type {
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
} from "#model/gen/admissionregistration-v1.ts";
import type { Deployment } from "#model/gen/apps-v1.ts";
import type { ConfigMap, Namespace } from "#model/gen/core-v1.ts";
import type { ClusterRole, ClusterRoleBinding } from "#model/gen/rbac-v1.ts";
import * as resources from "#model/resources.ts";
import { ApiError } from "#model/status.ts";
import { type Kinds, openKinds, refusal } from "../../kinds.fixture.ts";
import { type Matched, matchesResources } from "./match.ts";
import { compilePolicy } from "./program.ts";

describe("in the API", () => {
  let kinds: Kinds;
  beforeAll(async () => {
    kinds = await openKinds();
    await kinds.client.create(resources.namespaces, {
      metadata: { name: "shop", labels: { shop: "yes" } },
      spec: {},
    } as Namespace);
  });
  afterAll(() => kinds.close());
  beforeEach(async () => {
    await kinds.client.deleteCollection(resources.validatingAdmissionPolicyBindings, {});
    await kinds.client.deleteCollection(resources.validatingAdmissionPolicies, {});
  });

  const deployments = {
    operations: ["CREATE", "UPDATE"],
    apiGroups: ["apps"],
    apiVersions: ["v1"],
    resources: ["deployments"],
  };
  async function policy(spec: object, binding: object = {}): Promise<void> {
    await kinds.client.create(resources.validatingAdmissionPolicies, {
      metadata: { name: "p" },
      spec: { matchConstraints: { resourceRules: [deployments] }, ...spec },
    } as ValidatingAdmissionPolicy);
    await kinds.client.create(resources.validatingAdmissionPolicyBindings, {
      metadata: { name: "b" },
      spec: { policyName: "p", validationActions: ["Deny"], ...binding },
    } as ValidatingAdmissionPolicyBinding);
  }
  let count = 0;
  const deploy = (replicas: number, namespace = "shop", as = kinds.client) =>
    as.create(resources.deployments, {
      metadata: { name: `d${++count}`, namespace },
      spec: {
        replicas,
        selector: { matchLabels: { a: "b" } },
        template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "x" }] } },
      },
    } as unknown as Deployment);

  test("what a rule forbids is refused with its words", async () => {
    await policy({
      validations: [
        {
          expression: "object.spec.replicas > 1",
          messageExpression: "'wants replicas > 1, got ' + string(object.spec.replicas)",
        },
      ],
    });
    expect(await refusal(deploy(1))).toBe(
      `deployments.apps "d${count}" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: wants replicas > 1, got 1`,
    );
    const error = (await deploy(1).catch((thrown: unknown) => thrown)) as ApiError;
    expect(error).toBeInstanceOf(ApiError);
    expect([error.code, error.reason]).toEqual([422, "Invalid"]);
    expect(await refusal(deploy(2))).toBe("accepted");
    // Another kind is not its business.
    const map = { metadata: { name: "m", namespace: "shop" } } as ConfigMap;
    expect(await refusal(kinds.client.create(resources.configMaps, map))).toBe("accepted");
  });

  test("variables, the old object and who asks", async () => {
    await policy({
      variables: [
        { name: "replicas", expression: "object.spec.replicas" },
        { name: "isOdd", expression: "variables.replicas % 2 == 1" },
        { name: "broken", expression: "object.spec.nothing.at.all" },
      ],
      validations: [
        { expression: "!variables.isOdd", message: "odd", reason: "Forbidden" },
        { expression: "oldObject == null || variables.replicas >= oldObject.spec.replicas", message: "no shrinking" },
        { expression: "request.userInfo.username == 'system:apiserver' && namespaceObject.metadata.name == 'shop'" },
      ],
    });
    const error = (await deploy(3).catch((thrown: unknown) => thrown)) as ApiError;
    expect([error.code, error.reason]).toEqual([403, "Forbidden"]);
    expect(error.message).toContain("denied request: odd");
    const made = await deploy(4);
    expect(
      await refusal(kinds.client.update(resources.deployments, { ...made, spec: { ...made.spec, replicas: 2 } })),
    ).toContain("no shrinking");
    expect(await refusal(deploy(2, "default"))).toContain("failed expression: request.userInfo.username");
  });

  test("selectors of policy and binding, conditions, actions", async () => {
    const validations = [{ expression: "false", message: "never" }];
    const namespaceSelector = { matchLabels: { shop: "yes" } };
    await policy(
      { validations, matchConditions: [{ name: "large", expression: "object.spec.replicas > 5" }] },
      { matchResources: { namespaceSelector } },
    );
    expect(await refusal(deploy(6))).toContain("never");
    expect(await refusal(deploy(5))).toBe("accepted");
    expect(await refusal(deploy(6, "default"))).toBe("accepted");
    await kinds.client.patch(
      resources.validatingAdmissionPolicyBindings,
      { name: "b" },
      { spec: { validationActions: ["Warn"] } },
    );
    expect(await refusal(deploy(6))).toBe("accepted");
  });

  test("what cannot be evaluated counts as the policy says", async () => {
    await policy({ validations: [{ expression: "object.spec.nothing.at.all" }] });
    expect(await refusal(deploy(1))).toContain(
      "expression 'object.spec.nothing.at.all' resulted in error: no such key: nothing",
    );
    await kinds.client.patch(
      resources.validatingAdmissionPolicies,
      { name: "p" },
      { spec: { failurePolicy: "Ignore" } },
    );
    expect(await refusal(deploy(1))).toBe("accepted");
  });

  test("parameters", async () => {
    const paramRef = { name: "limits", namespace: "default", parameterNotFoundAction: "Deny" };
    await policy(
      {
        paramKind: { apiVersion: "v1", kind: "ConfigMap" },
        validations: [{ expression: "object.spec.replicas <= int(params.data.most)" }],
      },
      { paramRef },
    );
    expect(await refusal(deploy(1))).toContain(
      "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
    );
    await kinds.client.create(resources.configMaps, {
      metadata: { name: "limits", namespace: "default" },
      data: { most: "3" },
    } as ConfigMap);
    expect(await refusal(deploy(3))).toBe("accepted");
    expect(await refusal(deploy(4))).toContain("failed expression: object.spec.replicas <= int(params.data.most)");
  });

  test("parameters of a kind that is off by default are not found", async () => {
    await policy(
      {
        paramKind: { apiVersion: "networking.k8s.io/v1beta1", kind: "ServiceCIDR" },
        validations: [{ expression: "true" }],
      },
      { paramRef: { name: "kubernetes", parameterNotFoundAction: "Deny" } },
    );
    expect(await refusal(deploy(1))).toContain(
      "failed to find resource referenced by paramKind: 'networking.k8s.io/v1beta1, Kind=ServiceCIDR'",
    );
  });

  test("what else the one who asks may do", async () => {
    const jane = { name: "jane", groups: ["system:authenticated"] };
    const roleRef = { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "deployer" };
    await kinds.client.create(resources.clusterRoles, {
      metadata: { name: "deployer" },
      rules: [
        { apiGroups: ["apps"], resources: ["deployments"], verbs: ["create"] },
        { apiGroups: ["example.com"], resources: ["budgets"], resourceNames: ["large"], verbs: ["use"] },
        { nonResourceURLs: ["/large"], verbs: ["get"] },
      ],
    } as ClusterRole);
    await kinds.client.create(resources.clusterRoleBindings, {
      metadata: { name: "deployer" },
      roleRef,
      subjects: [
        { kind: "User", name: "jane" },
        { kind: "ServiceAccount", name: "robot", namespace: "shop" },
      ],
    } as ClusterRoleBinding);
    await kinds.syncRbac();
    const asked = async (expression: string, as = kinds.as(jane)): Promise<string> => {
      await kinds.client.deleteCollection(resources.validatingAdmissionPolicyBindings, {});
      await kinds.client.deleteCollection(resources.validatingAdmissionPolicies, {});
      await policy({ validations: [{ expression }] });
      return refusal(deploy(1, "shop", as));
    };
    const budget = "authorizer.group('example.com').resource('budgets')";
    expect(await asked(`${budget}.name('large').check('use').allowed()`)).toBe("accepted");
    expect(await asked(`${budget}.name('small').check('use').allowed()`)).toContain("failed expression");
    expect(await asked(`${budget}.name('small').check('use').allowed()`, kinds.client)).toBe("accepted");
    expect(await asked("authorizer.path('/large').check('get').allowed()")).toBe("accepted");
    expect(await asked("authorizer.path('/small').check('get').reason() == 'never'")).toContain("failed expression");
    expect(await asked("authorizer.requestResource.check('create').allowed()")).toBe("accepted");
    expect(await asked("authorizer.requestResource.check('delete').allowed()")).toContain("failed expression");
    const robot = (name: string) =>
      `authorizer.serviceAccount('shop', '${name}').path('/large').check('get').allowed()`;
    expect(await asked(robot("robot"))).toBe("accepted");
    expect(await asked(robot("other"))).toContain("failed expression");
    expect(await asked(robot("No!"))).toContain("Invalid service account name");
  });

  test("a policy that does not compile is not taken", async () => {
    expect(await refusal(policy({ validations: [{ expression: "object.spec.replicas >" }] }))).toContain(
      'spec.validations[0].expression: Invalid value: "object.spec.replicas >": compilation failed: ERROR: <input>:1:',
    );
    expect(await refusal(policy({ validations: [{ expression: "1 + 1" }] }))).toContain("must evaluate to bool");
  });
});

test("others have their turn where many parameters or costly expressions are asked", () => {
  const expression = "object.list.all(a, object.list.all(b, a + b >= 0))";
  const spec = { paramKind: { apiVersion: "v1", kind: "ConfigMap" }, validations: [{ expression }] };
  const program = compilePolicy({ metadata: { name: "p" }, spec } as ValidatingAdmissionPolicy);
  const object = { list: Array.from({ length: 100 }, (_, at) => at) };
  const authorizer = new AuthorizerValue(() => ({ allowed: true, reason: "" }));
  const input = { object, oldObject: undefined, request: {}, namespaceObject: undefined, authorizer };
  const turns = (params: number): number => {
    const work = program.evaluate(input, new Array(params).fill({}));
    for (let count = 0; ; count++) {
      const step = work.next();
      if (!step.done) continue;
      expect(step.value.denials).toEqual([]);
      return count;
    }
  };
  // Within each, which costs between three and four turns, and between them.
  expect([turns(1), turns(10)]).toEqual([3, 39]);
});

test("others have their turn while a variable is evaluated, which then goes on", () => {
  const costly = "object.list.map(a, object.list.map(b, a * b).size()).size()";
  const spec = {
    variables: [
      { name: "one", expression: costly },
      { name: "two", expression: `variables.one + ${costly}` },
    ],
    validations: [
      { expression: "object.list.all(a, a >= 0) && variables.two + variables.one == 600" },
      { expression: "variables.two == 0", messageExpression: "'two is ' + string(variables.two)" },
    ],
  };
  const program = compilePolicy({ metadata: { name: "p" }, spec } as ValidatingAdmissionPolicy);
  const object = { list: Array.from({ length: 200 }, (_, at) => at) };
  const authorizer = new AuthorizerValue(() => ({ allowed: true, reason: "" }));
  const work = program.evaluate({ object, oldObject: undefined, request: {}, namespaceObject: undefined, authorizer }, [
    {},
  ]);
  for (let turns = 0; ; turns++) {
    const step = work.next();
    if (!step.done) continue;
    expect(step.value.denials.map(({ message }) => message)).toEqual(["two is 400"]);
    // Each variable is evaluated once, in some thirty turns, however often and by whom it is read.
    expect(turns).toBeGreaterThan(50);
    expect(turns).toBeLessThan(75);
    return;
  }
});

test("a variable that pauses while all of them are looked at is found once", () => {
  const costly = "object.list.map(a, object.list.map(b, a * b).size()).size()";
  const spec = {
    variables: [
      { name: "one", expression: "1" },
      { name: "two", expression: costly },
    ],
    validations: [{ expression: "[0].transformMapEntry(i, v, variables) == {'one': 1, 'two': 200}" }],
  };
  const program = compilePolicy({ metadata: { name: "p" }, spec } as ValidatingAdmissionPolicy);
  const object = { list: Array.from({ length: 200 }, (_, at) => at) };
  const authorizer = new AuthorizerValue(() => ({ allowed: true, reason: "" }));
  const input = { object, oldObject: undefined, request: {}, namespaceObject: undefined, authorizer };
  const work = program.evaluate(input, [{}]);
  for (let turns = 0; ; turns++) {
    const step = work.next();
    if (!step.done) continue;
    expect(turns).toBeGreaterThan(10);
    expect(step.value.denials).toEqual([]);
    return;
  }
});

describe("rules", () => {
  const requestFor = (plural: string, more: Partial<Matched> = {}): Matched => ({
    operation: "CREATE",
    resource: resources.allResources.find((row) => row.plural === plural)!,
    subresource: "",
    name: "n",
    object: { metadata: { name: "n", labels: { a: "new" } } },
    oldObject: undefined,
    ...more,
  });
  const rule = { operations: ["*"], apiGroups: ["*"], apiVersions: ["*"], resources: ["*"] };
  test.each<[string, object, Matched, boolean]>([
    ["everything", rule, requestFor("pods"), true],
    ["another operation", { ...rule, operations: ["DELETE"] }, requestFor("pods"), false],
    ["a star has no subresources", rule, requestFor("pods", { subresource: "status" }), false],
    ["a star of stars has", { ...rule, resources: ["*/*"] }, requestFor("pods", { subresource: "status" }), true],
    [
      "all of one subresource",
      { ...rule, resources: ["*/status"] },
      requestFor("pods", { subresource: "status" }),
      true,
    ],
    ["the cluster's", { ...rule, scope: "Cluster" }, requestFor("nodes"), true],
    ["a namespace is the cluster's", { ...rule, scope: "Namespaced" }, requestFor("namespaces"), false],
    ["by name", { ...rule, resourceNames: ["m"] }, requestFor("pods"), false],
    [
      "another version of the same",
      { ...rule, apiGroups: ["autoscaling"], apiVersions: ["v1"] },
      requestFor("horizontalpodautoscalers"),
      true,
    ],
  ])("%s", (_what, each, request, wanted) => {
    expect(matchesResources({ resourceRules: [each] }, request, undefined)).toBe(wanted);
    expect(matchesResources({ resourceRules: [rule], excludeResourceRules: [each] }, request, undefined)).toBe(
      !wanted && matchesResources({ resourceRules: [rule] }, request, undefined),
    );
  });
  test("the old object's labels count too", () => {
    const request = requestFor("pods", { oldObject: { metadata: { name: "n", labels: { a: "old" } } } });
    const by = (a: string) => matchesResources({ objectSelector: { matchLabels: { a } } }, request, undefined);
    expect([by("new"), by("old"), by("none")]).toEqual([true, true, false]);
  });
});
