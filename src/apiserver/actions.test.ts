import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { Client } from "#client/client.ts";
import type { Backend } from "#datastore/backend.ts";
import type { Namespace, Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import * as resources from "#model/resources.ts";
import { unauthorized } from "#model/status.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createTokenIssuer } from "./authn/token-issuer.ts";
import { openBareServer } from "./bare.fixture.ts";

let backend: Backend;
let client: Client;
const clock = new FakeClock();

beforeAll(async () => {
  const random = seededRandom(3);
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const opened = await openBareServer(
    3,
    {
      authorizer: {
        authorize: ({ user, verb }) => ({
          verdict: user.name === "ann" && verb === "get" ? "allow" : "no-opinion",
          reason: "because",
        }),
      },
      tokenIssuer: createTokenIssuer(
        {
          privateKey: pair.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
          publicKeys: [pair.publicKey.export({ type: "spki", format: "pem" }) as string],
        },
        { clock, random },
      ),
      async reviewToken(token) {
        if (token === "bad") throw unauthorized();
        if (token === "unanswered") throw new AppError("DATASTORE_UNAVAILABLE", "no endpoint");
        return token === "good" ? { user: { name: "bob", groups: ["g"] }, audiences: ["a"] } : undefined;
      },
      rulesFor: () => [
        { verbs: ["get"], apiGroups: [""], resources: ["pods"] },
        { verbs: ["get"], nonResourceURLs: ["/healthz"] },
      ],
    },
    clock,
  );
  const { server } = opened;
  backend = opened.backend;
  client = new Client(server.transport({ name: "admin", groups: ["system:masters"] }));
  await client.create(resources.namespaces, { metadata: { name: "default" } } as Namespace);
  await client.create(resources.serviceAccounts, { metadata: { name: "sa", namespace: "default" } });
});
afterAll(() => backend.close());

const post = (path: string, body: object) => client.transport.request({ method: "POST", path, body });
const newPod = (name: string, labels: Record<string, string> = {}) =>
  client.create(resources.pods, {
    metadata: { name, namespace: "default", labels },
    spec: { serviceAccountName: "sa", containers: [{ name: "main", image: "x" }] },
  } as Pod);

test("binding puts a pod on a node, once", async () => {
  await newPod("bound");
  const path = "/api/v1/namespaces/default/pods/bound/binding";
  const body = { metadata: { name: "bound" }, target: { kind: "Node", name: "n1" } };
  expect(await post(path, body)).toMatchObject({ kind: "Status", status: "Success" });
  const pod = await client.get(resources.pods, "bound", "default");
  expect(pod.spec.nodeName).toBe("n1");
  expect(pod.status?.conditions).toMatchObject([{ type: "PodScheduled", status: "True" }]);
  await expect(post(path, body)).rejects.toMatchObject({ code: 409 });
  await expect(post(path, { target: { kind: "Node" } })).rejects.toMatchObject({ code: 422 });
  await expect(post("/api/v1/namespaces/default/pods/nobody/binding", { target: { name: "n" } })).rejects.toMatchObject(
    {
      code: 404,
    },
  );
});

test("eviction deletes, unless a budget forbids it", async () => {
  const conditions = [{ type: "Ready", status: "True" }];
  for (const name of ["free", "kept"]) {
    await newPod(name, { app: name });
    const pod = await client.get(resources.pods, name, "default");
    await client.updateStatus(resources.pods, { ...pod, status: { ...pod.status, phase: "Running", conditions } });
  }
  const budget = await client.create(resources.podDisruptionBudgets, {
    metadata: { name: "b", namespace: "default" },
    spec: { minAvailable: 1, selector: { matchLabels: { app: "kept" } } },
  } as PodDisruptionBudget);
  const status = {
    observedGeneration: 1,
    disruptionsAllowed: 0,
    currentHealthy: 1,
    desiredHealthy: 1,
    expectedPods: 1,
  };
  const closed = await client.updateStatus(resources.podDisruptionBudgets, { ...budget, status });
  const evict = (name: string) => post(`/api/v1/namespaces/default/pods/${name}/eviction`, { metadata: { name } });
  await evict("free");
  await expect(client.get(resources.pods, "free", "default")).rejects.toMatchObject({ code: 404 });
  await expect(evict("kept")).rejects.toMatchObject({
    code: 429,
    message: "Cannot evict pod as it would violate the pod's disruption budget.",
  });
  await client.updateStatus(resources.podDisruptionBudgets, {
    ...closed,
    status: { ...status, disruptionsAllowed: 1 },
  });
  await evict("kept");
  await expect(client.get(resources.pods, "kept", "default")).rejects.toMatchObject({ code: 404 });
  const after = await client.get(resources.podDisruptionBudgets, "b", "default");
  expect(after.status).toMatchObject({ disruptionsAllowed: 0, disruptedPods: { kept: "2026-01-01T00:00:00Z" } });
});

test("an evicted pod says why it goes; one that does not go says nothing", async () => {
  await client.create(resources.pods, {
    metadata: { name: "going", namespace: "default" },
    spec: { nodeName: "n", containers: [{ name: "main", image: "x" }] },
  } as Pod);
  const evict = (deleteOptions: object) =>
    post("/api/v1/namespaces/default/pods/going/eviction", { metadata: { name: "going" }, deleteOptions });
  const reasons = async () => {
    const { metadata, status } = await client.get(resources.pods, "going", "default");
    return [
      metadata.deletionTimestamp !== undefined,
      ...(status?.conditions ?? []).map((c) => `${c.type} ${c.reason}`),
    ];
  };
  await evict({ dryRun: ["All"] });
  await expect(evict({ preconditions: { uid: "another" } })).rejects.toMatchObject({ code: 409 });
  expect(await reasons()).toEqual([false]);
  const { resourceVersion } = (await client.get(resources.pods, "going", "default")).metadata;
  await evict({ preconditions: { resourceVersion } });
  expect(await reasons()).toEqual([true, "DisruptionTarget EvictionByEvictionAPI"]);
});

test.each([
  ["ill-1", "enough others are ready", undefined, 1, 201],
  ["ill-2", "too few others are ready", undefined, 0, 429],
  ["ill-3", "such may always go", "AlwaysAllow", 0, 201],
])("evicting a pod that is not ready: %s, %s", async (name, _, unhealthyPodEvictionPolicy, currentHealthy, code) => {
  await newPod(name, { app: name });
  const pod = await client.get(resources.pods, name, "default");
  await client.updateStatus(resources.pods, { ...pod, status: { ...pod.status, phase: "Running" } });
  const budget = await client.create(resources.podDisruptionBudgets, {
    metadata: { name, namespace: "default" },
    spec: {
      minAvailable: 1,
      selector: { matchLabels: { app: name } },
      ...(unhealthyPodEvictionPolicy ? { unhealthyPodEvictionPolicy } : {}),
    },
  } as PodDisruptionBudget);
  await client.updateStatus(resources.podDisruptionBudgets, {
    ...budget,
    status: { observedGeneration: 1, disruptionsAllowed: 0, currentHealthy, desiredHealthy: 1, expectedPods: 2 },
  });
  const evicted = post(`/api/v1/namespaces/default/pods/${name}/eviction`, { metadata: { name } });
  if (code === 201) await evicted;
  else await expect(evicted).rejects.toMatchObject({ code });
});

test("tokens, bound to what exists", async () => {
  await newPod("holder");
  const uid = (await client.get(resources.pods, "holder", "default")).metadata.uid;
  const path = "/api/v1/namespaces/default/serviceaccounts/sa/token";
  const ask = (spec: object) => post(path, { spec });
  const answer = await ask({
    audiences: ["x"],
    expirationSeconds: 600,
    boundObjectRef: { kind: "Pod", apiVersion: "v1", name: "holder", uid },
  });
  expect(answer).toMatchObject({ kind: "TokenRequest", status: { expirationTimestamp: "2026-01-01T00:10:00Z" } });
  const [, claims] = (answer["status"] as { token: string }).token.split(".");
  expect(JSON.parse(Buffer.from(claims!, "base64url").toString())).toMatchObject({
    aud: ["x"],
    sub: "system:serviceaccount:default:sa",
    "kubernetes.io": { pod: { name: "holder", uid } },
  });
  await expect(ask({ expirationSeconds: 10 })).rejects.toMatchObject({ code: 422 });
  await expect(
    ask({ boundObjectRef: { kind: "Pod", apiVersion: "v1", name: "holder", uid: "other" } }),
  ).rejects.toMatchObject({ code: 409 });
  await expect(ask({ boundObjectRef: { kind: "Pod", apiVersion: "v1", name: "nobody" } })).rejects.toMatchObject({
    code: 404,
  });
});

const authentication = "/apis/authentication.k8s.io/v1";
const authorization = "/apis/authorization.k8s.io/v1";
test.each([
  [
    `${authentication}/tokenreviews`,
    { token: "good" },
    { authenticated: true, user: { username: "bob", groups: ["g"] }, audiences: ["a"] },
  ],
  [`${authentication}/tokenreviews`, { token: "unknown" }, {}],
  [`${authentication}/tokenreviews`, { token: "bad" }, { error: "Unauthorized" }],
  [`${authentication}/selfsubjectreviews`, {}, { userInfo: { username: "admin", groups: ["system:masters"] } }],
  [`${authorization}/selfsubjectaccessreviews`, { resourceAttributes: { verb: "x" } }, { allowed: true }],
  [
    `${authorization}/subjectaccessreviews`,
    { user: "ann", resourceAttributes: { verb: "get" } },
    { allowed: true, reason: "because" },
  ],
  [
    `${authorization}/subjectaccessreviews`,
    { user: "ann", nonResourceAttributes: { verb: "put", path: "/" } },
    { allowed: false, reason: "because" },
  ],
  [
    `${authorization}/namespaces/default/localsubjectaccessreviews`,
    { user: "ann", resourceAttributes: { verb: "get", namespace: "default" } },
    { allowed: true, reason: "because" },
  ],
  [
    `${authorization}/selfsubjectrulesreviews`,
    { namespace: "default" },
    {
      resourceRules: [{ verbs: ["get"], apiGroups: [""], resources: ["pods"] }],
      nonResourceRules: [{ verbs: ["get"], nonResourceURLs: ["/healthz"] }],
      incomplete: false,
    },
  ],
])("%s %o", async (path, spec, status) => {
  expect((await post(path, { spec }))["status"]).toEqual(status);
});

test.each([
  [`${authorization}/subjectaccessreviews`, { resourceAttributes: {} }, 422],
  [`${authorization}/selfsubjectaccessreviews`, {}, 422],
  [`${authorization}/selfsubjectrulesreviews`, {}, 400],
])("%s %o is refused", async (path, spec, code) => {
  await expect(post(path, { spec })).rejects.toMatchObject({ code });
});

test("a token that nobody could be asked about is a failure, not nobody", async () => {
  const body = { spec: { token: "unanswered" } };
  const asked = post("/apis/authentication.k8s.io/v1/tokenreviews", body);
  await expect(asked).rejects.toMatchObject({ status: { code: 503 } });
});
