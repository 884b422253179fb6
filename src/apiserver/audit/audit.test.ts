// Requests as kubectl sends them, over the port, and what the audit log tells of them.
import { request as httpsRequest } from "node:https";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { acceptWebSocket } from "#platform/websocket.ts";
import type { Connector } from "../endpoints/connect.ts";
import { type Ask, type Audited, openAudited } from "./audit.fixture.ts";
import { Auditor, Losses } from "./auditor.ts";
import { builtInPolicy } from "./built-in-policy.ts";
import { LogWriter } from "./log-writer.ts";

const core = "/api/v1/namespaces/default";
const secretText = "bm9ib2R5LW1heS1zZWUtdGhpcw==";
const secret = (name: string) => ({ apiVersion: "v1", kind: "Secret", metadata: { name }, data: { a: secretText } });
const configMap = (name: string, more: object = {}) => ({
  ...{ apiVersion: "v1", kind: "ConfigMap", metadata: { name } },
  ...more,
});

/** Streams as a node would answer them. */
const connector: Connector = {
  async handle(_request, response) {
    response.head(200, { "content-type": "text/plain" });
    response.write("log\n");
    response.end();
  },
  async upgrade({ subresource }, upgrade) {
    const { socket } = upgrade;
    if (subresource === "attach") {
      acceptWebSocket(upgrade, "v5.channel.k8s.io", (peer) => {
        setImmediate(() => peer.close(1000));
        return { message() {}, close() {} };
      });
      return;
    }
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n");
    socket.end();
  },
};

async function prepare(audited: Audited): Promise<void> {
  for (const [path, body] of [
    ["/api/v1/namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name: "default" } }],
    [`${core}/serviceaccounts`, { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } }],
  ] as const) {
    expect((await audited.ask(path, { method: "POST", body })).status).toBe(201);
  }
}

let count = 0;
/** Asks under an id of its own; the answer and what was told of it once it is over. */
async function told(audited: Audited, path: string, options: Ask = {}, stages = 2) {
  const id = `test-${++count}`;
  const answer = await audited.ask(path, { ...options, headers: { "audit-id": id, ...options.headers } });
  await expect.poll(async () => (await audited.events(id)).length).toBeGreaterThanOrEqual(stages);
  return { answer, id, events: await audited.events(id) };
}

const everything = "rules: [{level: RequestResponse}]";

describe("at the level RequestResponse", () => {
  let audited: Audited;
  beforeAll(async () => {
    audited = await openAudited({ policy: everything, connector });
    await prepare(audited);
  });
  afterAll(() => audited.close());

  test("a creation, field by field", async () => {
    const { answer, events, id } = await told(audited, `${core}/configmaps?fieldManager=kubectl`, {
      method: "POST",
      token: "ops",
      headers: { "user-agent": "kubectl/v1.32.0", "x-forwarded-for": "192.0.2.7, nonsense", "x-real-ip": "192.0.2.8" },
      body: configMap("first", { data: { a: "b" } }),
    });
    expect(answer.headers["audit-id"]).toBe(id);
    const common = {
      kind: "Event",
      apiVersion: "audit.k8s.io/v1",
      level: "RequestResponse",
      auditID: id,
      requestURI: `${core}/configmaps?fieldManager=kubectl`,
      verb: "create",
      user: { username: "ops", uid: "7", groups: ["operators", "system:authenticated"], extra: { team: ["a"] } },
      sourceIPs: ["192.0.2.7", "192.0.2.8", "127.0.0.1"],
      userAgent: "kubectl/v1.32.0",
      requestReceivedTimestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
      stageTimestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
    };
    expect(events).toEqual([
      {
        ...common,
        stage: "RequestReceived",
        objectRef: { resource: "configmaps", namespace: "default", apiVersion: "v1" },
      },
      {
        ...common,
        stage: "ResponseComplete",
        objectRef: { resource: "configmaps", namespace: "default", name: "first", apiVersion: "v1" },
        responseStatus: { metadata: {}, code: 201 },
        requestObject: configMap("first", { data: { a: "b" } }),
        responseObject: JSON.parse(answer.text) as object,
        annotations: {
          "authorization.k8s.io/decision": "allow",
          "authorization.k8s.io/reason": "RBAC: allowed by test",
        },
      },
    ]);
    const [first = "", second = ""] = events.map(
      (event) => (event as unknown as Record<string, string>)["stageTimestamp"],
    );
    expect(first < second).toBe(true);
  });

  test("an id that could be anything is not taken over", async () => {
    const { headers } = await audited.ask("/version", { headers: { "audit-id": "a b\tc" } });
    expect(headers["audit-id"]).toMatch(/^[0-9a-f-]{36}$/);
  });

  test("a body with its defaults, before admission; a name that the server made", async () => {
    const pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { generateName: "web-" },
      spec: { containers: [{ name: "c", image: "x" }] },
    };
    const { events, answer } = await told(audited, `${core}/pods`, { method: "POST", body: pod });
    const { name } = (JSON.parse(answer.text) as { metadata: { name: string } }).metadata;
    const event = events.at(-1)!;
    expect(event.objectRef).toEqual({ resource: "pods", namespace: "default", name, apiVersion: "v1" });
    expect(event.requestObject).toMatchObject({
      metadata: { generateName: "web-" },
      spec: { restartPolicy: "Always" },
    });
    expect(event.requestObject?.["spec"]).not.toHaveProperty("serviceAccountName");
    expect(event.responseObject?.["spec"]).toHaveProperty("serviceAccountName", "default");
    expect(event.annotations).toMatchObject({ "pod-security.kubernetes.io/enforce-policy": "privileged:latest" });
  });

  test.each([
    ["a merge patch", "application/merge-patch+json", '{ "data": {"x": "y"} }', { data: { x: "y" } }],
    [
      "a JSON patch",
      "application/json-patch+json",
      '[{"op":"add","path":"/data","value":{}}]',
      [{ op: "add", path: "/data", value: {} }],
    ],
    [
      "an apply in YAML",
      "application/apply-patch+yaml",
      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: patched}\n",
      configMap("patched"),
    ],
  ])("%s, as it came", async (_name, type, body, expected) => {
    await audited.ask(`${core}/configmaps`, { method: "POST", body: configMap("patched") });
    const path = `${core}/configmaps/patched?fieldManager=m&force=true`.replace(
      type.includes("apply") ? "" : "&force=true",
      "",
    );
    const { events, answer } = await told(audited, path, { method: "PATCH", headers: { "content-type": type }, body });
    expect(answer.status).toBe(200);
    expect(events.at(-1)).toMatchObject({ verb: "patch", responseStatus: { code: 200 } });
    expect(events.at(-1)!.requestObject).toEqual(expected);
    expect(events.at(-1)!.responseObject).toMatchObject({ kind: "ConfigMap" });
  });

  test("a deletion with its options and the Status", async () => {
    await audited.ask(`${core}/configmaps`, { method: "POST", body: configMap("doomed") });
    const body = { kind: "DeleteOptions", apiVersion: "v1", propagationPolicy: "Background" };
    const { events } = await told(audited, `${core}/configmaps/doomed`, { method: "DELETE", body });
    expect(events.at(-1)).toMatchObject({
      requestObject: body,
      responseStatus: { metadata: {}, status: "Success", details: { name: "doomed", kind: "configmaps" }, code: 200 },
      responseObject: { kind: "Status", status: "Success" },
    });
  });

  test("a list that kubectl has as a table is told of as what it is", async () => {
    const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    const { events, answer } = await told(audited, `${core}/secrets`, { headers: { accept } });
    expect(JSON.parse(answer.text)).toHaveProperty("kind", "Table");
    expect(events.at(-1)).toMatchObject({ verb: "list", responseObject: { kind: "SecretList", items: [] } });
  });

  test("what is not found, not understood, and not allowed", async () => {
    const missing = await told(audited, `${core}/configmaps/none`);
    expect(missing.events.at(-1)!.responseStatus).toEqual({
      metadata: {},
      status: "Failure",
      message: 'configmaps "none" not found',
      reason: "NotFound",
      details: { name: "none", kind: "configmaps" },
      code: 404,
    });
    const broken = await told(audited, `${core}/configmaps`, { method: "POST", body: "{" });
    expect(broken.events.at(-1)).toMatchObject({ responseStatus: { code: 400 } });
    expect(broken.events.at(-1)).not.toHaveProperty("requestObject");
    const refused = await told(audited, `${core}/configmaps`, { token: "ann" });
    expect(refused.events.at(-1)).toMatchObject({
      user: { username: "ann" },
      responseStatus: { reason: "Forbidden", code: 403 },
      annotations: { "authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": "" },
    });
  });

  test.each([
    ["no credentials", null, "Authentication failed, no credentials provided"],
    ["credentials that do not hold", "expired", "Authentication failed, attempted: bearer"],
    ["credentials nobody knows", "who", "Authentication failed, attempted: bearer"],
  ])("%s: one event, about nobody", async (_name, token, message) => {
    const { events, answer } = await told(audited, `${core}/configmaps`, { token }, 1);
    expect(answer.status).toBe(401);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({
      stage: "ResponseStarted",
      user: {},
      responseStatus: { metadata: {}, message, code: 401 },
    });
  });

  test("acting as somebody else: who asked, and as whom", async () => {
    const headers = { "impersonate-user": "carl", "impersonate-group": "g" };
    const { events } = await told(audited, `${core}/configmaps`, { token: "ops", headers });
    expect(events[0]).not.toHaveProperty("impersonatedUser");
    expect(events.at(-1)).toMatchObject({
      user: { username: "ops" },
      impersonatedUser: { username: "carl", groups: ["g", "system:authenticated"] },
      responseStatus: { code: 200 },
    });
    const refused = await told(audited, `${core}/configmaps`, { token: "ann", headers });
    expect(refused.events.at(-1)).toMatchObject({ user: { username: "ann" }, responseStatus: { code: 403 } });
    expect(refused.events.at(-1)).not.toHaveProperty("impersonatedUser");
  });

  test("a watch: when it begins, and when it is over", async () => {
    const id = "a-watch";
    const headers = { authorization: "Bearer admin", "audit-id": id };
    await new Promise<void>((resolve, reject) => {
      const asked = httpsRequest(
        {
          host: "127.0.0.1",
          port: audited.port,
          path: `${core}/configmaps?watch=1`,
          headers,
          rejectUnauthorized: false,
        },
        (answer) => {
          answer.resume();
          void expect
            .poll(async () => (await audited.events(id)).map(({ stage }) => stage))
            .toEqual(["RequestReceived", "ResponseStarted"])
            .then(() => {
              asked.destroy();
              resolve();
            }, reject);
        },
      );
      asked.on("error", () => {});
      asked.end();
    });
    await expect
      .poll(async () => (await audited.events(id)).at(-1))
      .toMatchObject({
        stage: "ResponseComplete",
        verb: "watch",
        responseStatus: { code: 200 },
      });
  });

  test("a log and a command in a pod are told of at three stages", async () => {
    const { events } = await told(audited, `${core}/pods/web/log`, {}, 3);
    expect(events.map(({ stage, responseStatus }) => [stage, responseStatus?.code])).toEqual([
      ["RequestReceived", undefined],
      ["ResponseStarted", 200],
      ["ResponseComplete", 200],
    ]);
    expect(events.at(-1)!.objectRef).toMatchObject({ resource: "pods", subresource: "log", name: "web" });
    const id = "a-command";
    const headers = { authorization: "Bearer admin", "audit-id": id, connection: "Upgrade", upgrade: "websocket" };
    const asked = httpsRequest({
      ...{ host: "127.0.0.1", port: audited.port, headers, rejectUnauthorized: false },
      path: `${core}/pods/web/exec?command=id`,
    });
    asked.on("upgrade", (_answer, socket) => socket.destroy());
    asked.on("error", () => {});
    asked.end();
    await expect
      .poll(async () => (await audited.events(id)).map(({ stage, responseStatus }) => [stage, responseStatus?.code]))
      .toEqual([
        ["RequestReceived", undefined],
        ["ResponseStarted", 101],
        ["ResponseComplete", 101],
      ]);
    expect((await audited.events(id))[0]).toMatchObject({ requestURI: `${core}/pods/web/exec?command=id` });
  });

  test("a WebSocket", async () => {
    const headers = { authorization: "Bearer admin", "audit-id": "a-socket" };
    const url = `wss://127.0.0.1:${audited.port}${core}/pods/web/attach`;
    const socket = new WebSocket(url, ["v5.channel.k8s.io"], { headers, rejectUnauthorized: false });
    await new Promise((resolve) => socket.on("close", resolve));
    await expect
      .poll(async () =>
        (await audited.events("a-socket")).map(({ stage, responseStatus }) => [stage, responseStatus?.code]),
      )
      .toEqual([
        ["RequestReceived", undefined],
        ["ResponseStarted", 101],
        ["ResponseComplete", 101],
      ]);
    const refused = new WebSocket(url, {
      headers: { ...headers, authorization: "Bearer ann" },
      rejectUnauthorized: false,
    });
    await new Promise((resolve) => refused.on("error", resolve));
    await expect
      .poll(async () => (await audited.events("a-socket")).filter(({ user }) => user.username === "ann").at(-1))
      .toMatchObject({ stage: "ResponseComplete", responseStatus: { code: 403, reason: "Forbidden" } });
  });

  test("what should not be able to happen", async () => {
    const { events, answer } = await told(audited, "/broken", { token: "ann" });
    expect(answer.status).toBe(500);
    expect(events.map(({ stage }) => stage)).toEqual(["RequestReceived", "Panic"]);
    expect(events[1]).toMatchObject({
      responseStatus: { reason: "InternalError", message: "APIServer panic'd: boom", code: 500 },
    });
  });

  test("old APIs and issued tokens are noted", async () => {
    const old = await told(audited, "/api/v1/componentstatuses");
    expect(old.events.at(-1)!.annotations).toMatchObject({ "k8s.io/deprecated": "true" });
    const body = { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: {} };
    const path = `${core}/serviceaccounts/default/token`;
    const { events, answer } = await told(audited, path, { method: "POST", body });
    const { token } = (JSON.parse(answer.text) as { status: { token: string } }).status;
    const { jti } = JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString()) as { jti: string };
    expect(events.at(-1)!.annotations).toMatchObject({
      "authentication.kubernetes.io/issued-credential-id": `JTI=${jti}`,
    });
  });

  test("what PodSecurity finds", async () => {
    const labels = {
      "pod-security.kubernetes.io/enforce": "baseline",
      "pod-security.kubernetes.io/audit": "restricted",
      "pod-security.kubernetes.io/audit-version": "v1.30",
    };
    const namespace = { apiVersion: "v1", kind: "Namespace", metadata: { name: "guarded", labels } };
    await audited.ask("/api/v1/namespaces", { method: "POST", body: namespace });
    const account = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } };
    await audited.ask("/api/v1/namespaces/guarded/serviceaccounts", { method: "POST", body: account });
    const template = { spec: { containers: [{ name: "c", image: "x" }] } };
    const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "p" }, ...template };
    const made = await told(audited, "/api/v1/namespaces/guarded/pods", { method: "POST", body: pod });
    expect(made.answer.status).toBe(201);
    const violations = expect.stringMatching(
      /^would violate PodSecurity "restricted:v1\.30": .*allowPrivilegeEscalation/,
    );
    expect(made.events.at(-1)!.annotations).toMatchObject({
      "pod-security.kubernetes.io/enforce-policy": "baseline:latest",
      "pod-security.kubernetes.io/audit-violations": violations,
    });
    const deployment = {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "d" },
      spec: { selector: { matchLabels: { a: "b" } }, template: { ...template, metadata: { labels: { a: "b" } } } },
    };
    const path = "/apis/apps/v1/namespaces/guarded/deployments";
    const { events } = await told(audited, path, { method: "POST", body: deployment });
    expect(events.at(-1)!.annotations).toMatchObject({ "pod-security.kubernetes.io/audit-violations": violations });
    expect(events.at(-1)!.annotations).not.toHaveProperty(["pod-security.kubernetes.io/enforce-policy"]);
    const privileged = { ...pod.spec.containers[0], securityContext: { privileged: true } };
    const body = { ...pod, metadata: { name: "q" }, spec: { containers: [privileged] } };
    const refused = await told(audited, "/api/v1/namespaces/guarded/pods", { method: "POST", body });
    expect(refused.answer.status).toBe(403);
    expect(refused.events.at(-1)!.annotations).toMatchObject({
      "pod-security.kubernetes.io/audit-violations": violations,
    });
  });

  test("what policies find, and what they want to have noted", async () => {
    const registration = "/apis/admissionregistration.k8s.io/v1";
    const post = (path: string, body: object) => audited.ask(path, { method: "POST", body });
    const policy = (name: string, spec: object) =>
      post(`${registration}/validatingadmissionpolicies`, {
        apiVersion: "admissionregistration.k8s.io/v1",
        kind: "ValidatingAdmissionPolicy",
        metadata: { name },
        spec: {
          matchConstraints: {
            resourceRules: [
              { apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["configmaps"] },
            ],
          },
          ...spec,
        },
      });
    const binding = (name: string, policyName: string, validationActions: string[]) =>
      post(`${registration}/validatingadmissionpolicybindings`, {
        apiVersion: "admissionregistration.k8s.io/v1",
        kind: "ValidatingAdmissionPolicyBinding",
        metadata: { name },
        spec: { policyName, validationActions },
      });
    const validations = [
      { expression: "true" },
      { expression: "object.metadata.name != 'odd'", message: "odd names are odd" },
    ];
    const auditAnnotations = [
      { key: "name", valueExpression: "'name is ' + object.metadata.name" },
      { key: "none", valueExpression: "null" },
      { key: "blank", valueExpression: "'  '" },
    ];
    expect((await policy("names", { validations, auditAnnotations })).status).toBe(201);
    expect((await binding("watching", "names", ["Audit", "Warn"])).status).toBe(201);
    const fine = await told(audited, `${core}/configmaps`, { method: "POST", body: configMap("even") });
    expect(fine.events.at(-1)!.annotations).toEqual({
      "authorization.k8s.io/decision": "allow",
      "authorization.k8s.io/reason": "",
      "names/name": "name is even",
    });
    const odd = await told(audited, `${core}/configmaps`, { method: "POST", body: configMap("odd") });
    expect(odd.answer.status).toBe(201);
    expect(odd.answer.headers["warning"]).toMatch(/odd names are odd/);
    const failure = odd.events.at(-1)!.annotations!["validation.policy.admission.k8s.io/validation_failure"]!;
    expect(JSON.parse(failure)).toEqual([
      {
        message: "odd names are odd",
        policy: "names",
        binding: "watching",
        expressionIndex: 1,
        validationActions: ["Audit", "Warn"],
      },
    ]);
    // A policy that only notes, and one that cannot: the request is refused, and what was noted before stays.
    const breaks = [{ key: "bad", valueExpression: "string(object.data.missing)" }];
    expect((await policy("sad", { auditAnnotations: breaks })).status).toBe(201);
    expect((await binding("zealous", "sad", ["Deny"])).status).toBe(201);
    const refused = await told(audited, `${core}/configmaps`, { method: "POST", body: configMap("third") });
    expect(refused.answer.status).toBe(422);
    expect(refused.events.at(-1)!.annotations).toMatchObject({ "names/name": "name is third" });
    for (const each of ["watching", "zealous"]) {
      await audited.ask(`${registration}/validatingadmissionpolicybindings/${each}`, { method: "DELETE" });
    }
  });

  test("parts of the same process are told of too", async () => {
    const resources = await import("#model/resources.ts");
    await audited.client.create(resources.configMaps, {
      metadata: { name: "inside", namespace: "default" },
      data: { a: "b" },
    } as never);
    await expect
      .poll(async () => (await audited.events()).filter(({ objectRef }) => objectRef?.["name"] === "inside"))
      .toEqual([
        expect.objectContaining({
          stage: "ResponseComplete",
          user: expect.objectContaining({ username: "system:apiserver" }),
          userAgent: "kube-controller-manager",
          sourceIPs: ["127.0.0.1"],
          responseStatus: { metadata: {}, code: 201 },
          requestObject: expect.objectContaining({ data: { a: "b" } }),
        }),
      ]);
  });

  test("metrics", async () => {
    const text = audited.metrics.render();
    expect(text).toMatch(/^apiserver_audit_event_total [1-9]\d+$/m);
    expect(text).toMatch(/^apiserver_audit_level_total\{level="RequestResponse"\} [1-9]\d+$/m);
    expect(text).toMatch(/^apiserver_audit_error_total\{plugin="log"\} 0$/m);
    expect(text).toMatch(/^apiserver_audit_requests_rejected_total 0$/m);
  });
});

test("bodies of secrets: at Metadata nowhere, at RequestResponse there", async () => {
  for (const [level, isThere] of [
    ["Metadata", false],
    ["RequestResponse", true],
  ] as const) {
    const audited = await openAudited({ policy: `rules: [{level: ${level}}]` });
    await prepare(audited);
    const patched = {
      headers: { "content-type": "application/merge-patch+json" },
      body: { stringData: { b: "shown?" } },
    };
    await told(audited, `${core}/secrets`, { method: "POST", body: secret("s") });
    await told(audited, `${core}/secrets/s`, { method: "PUT", body: secret("s") });
    await told(audited, `${core}/secrets/s`, { method: "PATCH", ...patched });
    await told(audited, `${core}/secrets/s`);
    await told(audited, `${core}/secrets`);
    await told(audited, `${core}/secrets/s`, { method: "DELETE" });
    const all = (await audited.lines()).join("\n") + JSON.stringify(await audited.ring());
    expect([all.includes(secretText), all.includes("shown?"), all.includes("requestObject")]).toEqual([
      isThere,
      isThere,
      isThere,
    ]);
    expect(all).toContain('"resource":"secrets"');
    await audited.close();
  }
});

test("managed fields and stages are left out where the policy says so", async () => {
  const audited = await openAudited({
    policy: `omitStages: [RequestReceived]\nomitManagedFields: true\n${everything}`,
  });
  await prepare(audited);
  const made = await told(
    audited,
    `${core}/configmaps?fieldManager=m`,
    { method: "POST", body: configMap("a", { data: { a: "b" } }) },
    1,
  );
  expect(made.events.map(({ stage }) => stage)).toEqual(["ResponseComplete"]);
  expect(JSON.parse(made.answer.text)).toHaveProperty("metadata.managedFields");
  expect(made.events[0]).toHaveProperty("responseObject.metadata.uid");
  expect(made.events[0]).not.toHaveProperty("responseObject.metadata.managedFields");
  const list = await told(audited, `${core}/configmaps`, {}, 1);
  expect(JSON.stringify(list.events)).toContain('"ConfigMapList"');
  expect(JSON.stringify(list.events)).not.toContain("managedFields");
  await audited.close();
});

test("where nobody said anything: writes and refusals, in memory, for whoever may see them", async () => {
  const audited = await openAudited();
  await prepare(audited);
  await audited.ask(`${core}/secrets`, { method: "POST", body: secret("s") });
  await audited.ask(`${core}/secrets/s`);
  await audited.ask(`${core}/configmaps/none`);
  await audited.ask(`${core}/secrets/s`, { token: "ann" });
  await audited.ask(`${core}/secrets/s`, { token: null });
  const lease = { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name: "l" } };
  await audited.ask("/apis/coordination.k8s.io/v1/namespaces/default/leases", { method: "POST", body: lease });
  const shown = (await audited.ring()).map(({ verb, user, responseStatus, level, stage }) =>
    [stage, level, verb, user.username ?? "nobody", responseStatus?.code].join(" "),
  );
  expect(shown).toEqual([
    "ResponseComplete Metadata create admin 201",
    "ResponseComplete Metadata create admin 201",
    "ResponseComplete Metadata create admin 201",
    "ResponseComplete Metadata get ann 403",
    "ResponseStarted Metadata get nobody 401",
  ]);
  expect((await audited.ask("/debug/audit?limit=1")).text.split("\n")).toHaveLength(2);
  expect(await audited.ask("/debug/audit", { token: "ann" })).toMatchObject({ status: 403 });
  expect(await audited.ask("/debug/audit", { token: null })).toMatchObject({ status: 401 });
  expect(await audited.ask("/debug/audit", { token: "ops" })).toMatchObject({
    status: 200,
    headers: { "content-type": "application/x-ndjson" },
  });
  expect(await audited.ask("/debug/audit?limit=x")).toMatchObject({ status: 400 });
  expect((await audited.ask("/")).text).toContain('"/debug/audit"');
  await audited.close();
});

test("the older form, on one line", async () => {
  const audited = await openAudited({ audit: { format: "legacy" } });
  await prepare(audited);
  const [line = ""] = await audited.lines();
  expect(line).toMatch(
    /^\S+Z AUDIT: id="[0-9a-f-]{36}" stage="ResponseComplete" ip="127\.0\.0\.1" method="create" user="admin" groups="\\"system:masters\\",\\"system:authenticated\\"" as="<self>" asgroups="<lookup>" user-agent="" namespace="<none>" uri="\/api\/v1\/namespaces" response="201"$/,
  );
  await audited.close();
});

test("events that are too large lose their bodies and say so", async () => {
  const truncate = { maxEventBytes: 4096, maxBatchBytes: 10_000 };
  const audited = await openAudited({ policy: everything, audit: { truncate } });
  await prepare(audited);
  const body = configMap("big", { data: { a: "x".repeat(5000) } });
  const { events } = await told(audited, `${core}/configmaps`, { method: "POST", body });
  expect(events.at(-1)).toMatchObject({
    annotations: { "audit.k8s.io/truncated": "true" },
    responseStatus: { code: 201 },
  });
  expect(events.at(-1)).not.toHaveProperty("requestObject");
  await audited.close();
});

describe("a full disk", () => {
  const ask = async (mode: "batch" | "blocking" | "blocking-strict") => {
    const audited = await openAudited({ policy: "rules: [{level: Metadata}]", audit: { logPath: "/dev/full", mode } });
    const { status } = await audited.ask("/version");
    // Lines on their way fail a moment later.
    await expect.poll(() => audited.metrics.render()).toMatch(/apiserver_audit_error_total\{plugin="log"\} [1-9]/);
    const text = audited.metrics.render();
    await audited.close();
    return { status, rejected: Number(/^apiserver_audit_requests_rejected_total (\d+)$/m.exec(text)?.[1]) };
  };
  test("stops no request", async () => {
    expect(await ask("batch")).toEqual({ status: 200, rejected: 0 });
    expect(await ask("blocking")).toEqual({ status: 200, rejected: 0 });
  });
  test("but where it is told to", async () => {
    expect(await ask("blocking-strict")).toEqual({ status: 500, rejected: 1 });
  });
});

test.each([
  ["blocking", false],
  ["batch", true],
])("%s: whether an answer waits for its event", async (_mode, isBatch) => {
  let release = () => {};
  const written: string[] = [];
  const hangs = new Promise<void>((resolve) => {
    release = resolve;
  });
  const [clock, random, losses] = [systemClock, systemRandom, new Losses()];
  const writer = new LogWriter(
    { isBatch, maxLines: 100, batchBytes: 1000 },
    {
      target: {
        async append(lines) {
          await hangs;
          written.push(...lines.map(String));
          return 0;
        },
        close: async () => {},
      },
      ...{ clock, log: silentLogger, onLost() {} },
    },
  );
  const outlet = { plugin: "log", writer, format: "json", maxEventBytes: undefined, isStrict: false, losses } as const;
  const auditor = new Auditor(
    { decide: builtInPolicy, seesInside: false },
    { clock, random, metrics: new Metrics(), outlets: [outlet] },
  );
  const audited = await openAudited({ auditor });
  let isOver = false;
  const body = { apiVersion: "v1", kind: "Namespace", metadata: { name: "a" } };
  const asked = audited.ask("/api/v1/namespaces", { method: "POST", body }).then((answer) => {
    isOver = true;
    return answer;
  });
  // Reads that work are not told of, and wait for nothing: by then the write has been answered, if it does not wait.
  const isMade = async () => (await audited.ask("/api/v1/namespaces/a")).status;
  await expect.poll(isMade).toBe(200);
  await audited.ask("/version");
  if (isBatch) await asked;
  expect([isOver, written.length]).toEqual([isBatch, 0]);
  release();
  expect((await asked).status).toBe(201);
  await expect.poll(() => written.length).toBe(1);
  await audited.close();
});
