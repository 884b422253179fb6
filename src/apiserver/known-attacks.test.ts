// The classes of upstream's vulnerabilities that an API server can have, each with the test that would notice it here: in
// this file, or in another, whose words are looked for so that a test that goes away is missed.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Namespace, Node, Pod, ServiceAccount } from "#model/gen/core-v1.ts";
import { namespaces, nodes, pods, serviceAccounts } from "#model/resources.ts";
import { rbacPolicy } from "./bootstrap/rbac-policy.ts";
import { openCustomServer } from "./custom-resources/custom-resources.fixture.ts";
import { type Kinds, openKinds, refusal } from "./kinds.fixture.ts";

const here = "src/apiserver";

/** Who, what, the file, words of the test in it. */
const classes: readonly (readonly [string, string, string, string])[] = [
  [
    "CVE-2018-1002105",
    "an upgrade that failed leaves a connection on which the client speaks as the server",
    `${here}/endpoints/backend-proxy.test.ts`,
    "nothing of the client's gets through",
  ],
  [
    "CVE-2019-1002100",
    "a patch of very many operations",
    "src/model/patch/patch.test.ts",
    "maximum operations in a JSON",
  ],
  [
    "CVE-2019-11247",
    "a cluster's object by a namespace's path",
    `${here}/known-attacks.test.ts`,
    "by a namespace's path",
  ],
  ["CVE-2019-11253", "aliases that unfold into gigabytes", "src/wire/yaml.test.ts", "alias bombs are refused"],
  ["CVE-2019-11253", "JSON of great depth", `${here}/hostile.test.ts`, "what is deep"],
  ["CVE-2019-11254", "YAML that takes minutes", "src/wire/yaml.test.ts", "not by its square"],
  ["CVE-2019-9512", "many small frames", "src/wire/http2/server-connection.test.ts", "many small ones"],
  [
    "CVE-2020-8554",
    "addresses of others in services, given out with the role edit",
    `${here}/known-attacks.test.ts`,
    "services/status",
  ],
  [
    "CVE-2020-8555",
    "requests to addresses of the server's own machine",
    `${here}/endpoints/backend-proxy.test.ts`,
    "127.0.0.1",
  ],
  [
    "CVE-2020-8559",
    "a node's redirect is followed with the server's credentials",
    `${here}/direct-node-dialer.test.ts`,
    "a redirect is an answer like any other",
  ],
  [
    "CVE-2021-25735",
    "a policy that sees the new object where it asks for the old one",
    `${here}/known-attacks.test.ts`,
    "what was there before",
  ],
  [
    "CVE-2021-25740",
    "endpoints that lead into other namespaces, with the role edit",
    `${here}/known-attacks.test.ts`,
    "endpointslices",
  ],
  [
    "CVE-2022-3162",
    "custom resources of another type in the same group",
    `${here}/known-attacks.test.ts`,
    "begins like another's",
  ],
  ["CVE-2022-3294", "a node that claims to be somebody else", `${here}/known-attacks.test.ts`, "another's address"],
  [
    "CVE-2023-2727",
    "ephemeral containers go past what pods are held to",
    `${here}/known-attacks.test.ts`,
    "ephemeral containers are held",
  ],
  [
    "CVE-2023-2728",
    "ephemeral containers use secrets that pods may not",
    `${here}/known-attacks.test.ts`,
    "ephemeral container d",
  ],
  [
    "CVE-2023-44487",
    "streams that are reset at once",
    "src/wire/http2/server-connection.test.ts",
    "streams that are reset at once",
  ],
  [
    "CVE-2024-3177",
    "whole environments of secrets that pods may not use",
    `${here}/known-attacks.test.ts`,
    "with envFrom",
  ],
];

test.each(classes)("%s: %s", (_id, _what, file, words) => {
  const text = readFileSync(file, "utf8");
  // In this file what stands below: the table has the words itself.
  expect(text.slice(Math.max(0, text.indexOf("test.each(classes)")))).toContain(words);
});

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
});
afterAll(() => kinds.close());

test("custom resources: a cluster's object by a namespace's path, and a type whose name begins like another's", async () => {
  const server = await openCustomServer();
  const definition = (plural: string, scope: "Cluster" | "Namespaced") =>
    server.define({
      metadata: { name: `${plural}.bears.example` },
      spec: {
        ...{ group: "bears.example", scope },
        names: { plural, singular: plural.slice(0, -1), kind: plural.toUpperCase(), listKind: `${plural}List` },
        versions: [
          {
            ...{ name: "v1", served: true, storage: true },
            schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
          },
        ],
      },
    } as never);
  await definition("dens", "Cluster");
  await definition("cubs", "Namespaced");
  await definition("cubsecrets", "Namespaced");
  const group = "/apis/bears.example/v1";
  const make = (path: string, kind: string, name: string) =>
    server.request("POST", group + path, { apiVersion: "bears.example/v1", kind, metadata: { name } });
  await make("/dens", "DENS", "d");
  await make("/namespaces/default/cubs", "CUBS", "c");
  await make("/namespaces/default/cubsecrets", "CUBSECRETS", "hidden");
  for (const method of ["GET", "PUT", "PATCH", "DELETE"]) {
    const answer = await server.refusal(method, `${group}/namespaces/default/dens/d`, { metadata: { name: "d" } });
    expect(answer, method).toContain("could not find the requested resource");
  }
  for (const path of ["/cubs", "/namespaces/default/cubs"]) {
    const list = await server.request("GET", group + path);
    expect((list["items"] as { metadata: { name: string } }[]).map(({ metadata }) => metadata.name)).toEqual(["c"]);
  }
  for (const path of ["/namespaces/default/cubs/../cubsecrets", "/namespaces/../cubsecrets", "/cubs/..%2fcubsecrets"]) {
    expect(await server.refusal("GET", group + path), path).toMatch(/could not find|page not found/);
  }
  await server.close();
});

describe("the role edit", () => {
  const rules = rbacPolicy()
    .clusterRoles.filter(({ metadata }) => metadata.labels?.["rbac.authorization.k8s.io/aggregate-to-edit"] === "true")
    .flatMap((role) => role.rules ?? []);

  test.each([
    ["", "endpoints"],
    ["discovery.k8s.io", "endpointslices"],
    ["", "services/status"],
    ["", "nodes"],
    ["", "pods/status"],
  ])("does not write %s %s", (group, resource) => {
    const writing = rules.filter(
      ({ apiGroups = [], resources = [], verbs }) =>
        (apiGroups.includes(group) || apiGroups.includes("*")) &&
        (resources.includes(resource) || resources.includes("*")) &&
        verbs.some((verb) => ["*", "create", "update", "patch"].includes(verb)),
    );
    expect(writing).toEqual([]);
    // And the question is asked right: services themselves are written.
    expect(rules.some(({ resources, verbs }) => resources?.includes("services") && verbs.includes("create"))).toBe(
      true,
    );
  });
});

test("a policy about nodes is asked about what was there before, not about what a client says of it", async () => {
  const policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
  const rule = { apiGroups: [""], apiVersions: ["v1"], operations: ["UPDATE"], resources: ["nodes", "nodes/status"] };
  const { transport } = kinds.client;
  const validations = [
    { expression: "oldObject.metadata.labels['zone'] == object.metadata.labels['zone']", message: "the zone stays" },
  ];
  const matchConstraints = { resourceRules: [rule] };
  await transport.request({
    ...{ method: "POST", path: policies },
    body: { metadata: { name: "zone" }, spec: { matchConstraints, validations } },
  });
  await transport.request({
    ...{ method: "POST", path: policies.replace("policies", "policybindings") },
    body: { metadata: { name: "zone" }, spec: { policyName: "zone", validationActions: ["Deny"] } },
  });
  const made = await kinds.client.create(nodes, { metadata: { name: "n", labels: { zone: "a" } } } as unknown as Node);
  const moved = { ...made, metadata: { ...made.metadata, labels: { zone: "b" } } };
  expect(await refusal(kinds.client.update(nodes, moved))).toContain("the zone stays");
  expect(await refusal(kinds.client.patch(nodes, { name: "n" }, { metadata: { labels: { zone: "b" } } }))).toContain(
    "the zone stays",
  );
  expect(await refusal(kinds.client.update(nodes, moved, { subresource: "status" }))).toContain("the zone stays");
  expect(await refusal(kinds.client.patch(nodes, { name: "n" }, { metadata: { labels: { b: "c" } } }))).toBe(
    "accepted",
  );
});

describe("secrets that a service account does not name", () => {
  const why = 'secret.secretName="other" is not allowed because service account strict does not reference that secret';
  const env = [{ name: "E", valueFrom: { secretKeyRef: { name: "other", key: "k" } } }];
  const envFrom = [{ secretRef: { name: "other" } }];
  const container = (more: object = {}) => ({ name: "c", image: "x", ...more });
  const make = (name: string, spec: object, account = "strict"): Promise<Pod> =>
    kinds.client.create(pods, {
      metadata: { name, namespace: "default" },
      spec: { serviceAccountName: account, automountServiceAccountToken: false, containers: [container()], ...spec },
    } as Pod);

  beforeAll(async () => {
    const account = (name: string, annotations: Record<string, string>) =>
      kinds.client.create(serviceAccounts, {
        metadata: { name, namespace: "default", annotations },
        ...{ secrets: [{ name: "own" }], imagePullSecrets: [{ name: "pull" }] },
      } as ServiceAccount);
    await account("strict", { "kubernetes.io/enforce-mountable-secrets": "true" });
    await account("loose", { "kubernetes.io/enforce-mountable-secrets": "false" });
  });

  test.each<[string, object, string]>([
    ["volume", { volumes: [{ name: "v", secret: { secretName: "other" } }] }, `volume with ${why}`],
    ["variable", { containers: [container({ env })] }, `container c with envVar E referencing ${why}`],
    ["environment", { containers: [container({ envFrom })] }, `container c with envFrom referencing ${why}`],
    [
      "environment of an init container",
      { initContainers: [{ ...container({ envFrom }), name: "i" }] },
      `init container i with envFrom referencing ${why}`,
    ],
    [
      "pull secret",
      { imagePullSecrets: [{ name: "other" }] },
      'imagePullSecrets[0].name="other" is not allowed because service account strict does not reference that imagePullSecret',
    ],
  ])("%s", async (_name, spec, message) => {
    expect(await refusal(make("p", spec))).toBe(`pods "p" is forbidden: ${message}`);
    expect(await refusal(make(`loose-${Math.random()}`.replace(".", ""), spec, "loose"))).toBe("accepted");
  });

  test("its own are used; those of an ephemeral container are looked at as well", async () => {
    const own = { volumes: [{ name: "v", secret: { secretName: "own" } }], imagePullSecrets: [{ name: "pull" }] };
    const pod = await make("own", own);
    const add = (more: object) =>
      kinds.client.update(
        pods,
        { ...pod, spec: { ...pod.spec, ephemeralContainers: [{ name: "d", image: "x", ...more }] } } as Pod,
        { subresource: "ephemeralcontainers" },
      );
    for (const [more, how] of [
      [{ env }, "envVar E"],
      [{ envFrom }, "envFrom"],
    ] as const) {
      expect(await refusal(add(more))).toBe(
        `pods "own" is forbidden: ephemeral container d with ${how} referencing ${why}`,
      );
    }
    expect(await refusal(add({}))).toBe("accepted");
  });
});

test("ephemeral containers are held to the standard of the namespace", async () => {
  const labels = { "pod-security.kubernetes.io/enforce": "baseline" };
  await kinds.client.create(namespaces, { metadata: { name: "held", labels } } as unknown as Namespace);
  await kinds.client.create(serviceAccounts, { metadata: { name: "default", namespace: "held" } } as ServiceAccount);
  const pod = await kinds.client.create(pods, {
    metadata: { name: "p", namespace: "held" },
    spec: { containers: [{ name: "c", image: "x" }] },
  } as Pod);
  const add = (securityContext: object) =>
    kinds.client.update(
      pods,
      { ...pod, spec: { ...pod.spec, ephemeralContainers: [{ name: "d", image: "x", securityContext }] } } as Pod,
      { subresource: "ephemeralcontainers" },
    );
  expect(await refusal(add({ privileged: true }))).toContain('violates PodSecurity "baseline:latest": privileged');
  expect(await refusal(add({}))).toBe("accepted");
});

test("a node changes its own object only: it cannot take another's address", async () => {
  await kinds.client.create(nodes, { metadata: { name: "victim" } } as Node);
  const node = kinds.as({ name: "system:node:n", groups: ["system:nodes", "system:authenticated"] });
  const addresses = { status: { addresses: [{ type: "InternalIP", address: "127.0.0.1" }] } };
  expect(await refusal(node.patch(nodes, { name: "victim" }, addresses, { subresource: "status" }))).toMatch(
    /forbidden|not allowed/,
  );
});
