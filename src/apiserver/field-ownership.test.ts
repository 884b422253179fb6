// managedFields and server-side apply as clients see them: through verbs, versions and subresources.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { ManagedFieldsEntry } from "#model/gen/meta-v1.ts";
import { pathsOf } from "#model/managed-fields/field-set.ts";
import type { ApiObject, UnknownObject } from "#model/object.ts";
import { type Kinds, openKinds } from "./kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
});
afterAll(() => kinds.close());
beforeEach(() => kinds.clock.advance(1000));

const apps = "/apis/apps/v1/namespaces/default/deployments";
const core = "/api/v1/namespaces/default";
// biome-ignore lint/suspicious/noExplicitAny: tests reach deep into objects of any kind.
type Loose = any;

async function ask(
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE",
  path: string,
  body?: unknown,
  query: Record<string, string> = {},
  contentType = "application/json",
): Promise<Loose> {
  const { transport } = kinds.client;
  return await transport.request({ method, path, query, contentType, ...(body === undefined ? {} : { body }) });
}
const apply = (path: string, config: unknown, fieldManager: string, query: Record<string, string> = {}) =>
  ask("PATCH", path, config, { fieldManager, ...query }, "application/apply-patch+yaml");
const merge = (path: string, patch: unknown, fieldManager: string) =>
  ask("PATCH", path, patch, { fieldManager }, "application/merge-patch+json");

const refused = (act: Promise<unknown>): Promise<{ code: number; message: string }> =>
  act.then(
    () => ({ code: 200, message: "accepted" }),
    (error: { code: number; message: string }) => ({ code: error.code, message: error.message }),
  );

const owners = (object: ApiObject): Record<string, string[]> =>
  Object.fromEntries(
    (object.metadata.managedFields ?? []).map((entry: ManagedFieldsEntry) => [
      [entry.manager, entry.operation, entry.apiVersion, entry.subresource].filter(Boolean).join(" "),
      pathsOf(entry.fieldsV1 as never),
    ]),
  );

const deployment = (name: string, spec: object = {}): UnknownObject => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name },
  spec: {
    selector: { matchLabels: { app: name } },
    template: { metadata: { labels: { app: name } }, spec: { containers: [{ name: "main", image: "web" }] } },
    ...spec,
  },
});
const configMap = (name: string, data: object, metadata: object = {}): UnknownObject => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, ...metadata },
  data,
});

describe("every write", () => {
  test("a creator owns what it said and what was defaulted for it, not what the server keeps", async () => {
    const made = await ask("POST", apps, deployment("made", { replicas: 2 }), { fieldManager: "kubectl-create" });
    expect(made.metadata.managedFields).toHaveLength(1);
    expect(made.metadata.managedFields[0]).toMatchObject({
      manager: "kubectl-create",
      operation: "Update",
      apiVersion: "apps/v1",
      fieldsType: "FieldsV1",
      fieldsV1: {
        "f:spec": {
          "f:progressDeadlineSeconds": {},
          "f:replicas": {},
          "f:revisionHistoryLimit": {},
          "f:selector": {},
          "f:strategy": {
            "f:rollingUpdate": { ".": {}, "f:maxSurge": {}, "f:maxUnavailable": {} },
            "f:type": {},
          },
          "f:template": {
            "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
            "f:spec": {
              "f:containers": {
                'k:{"name":"main"}': {
                  ".": {},
                  "f:image": {},
                  "f:imagePullPolicy": {},
                  "f:name": {},
                  "f:resources": {},
                  "f:terminationMessagePath": {},
                  "f:terminationMessagePolicy": {},
                },
              },
              "f:dnsPolicy": {},
              "f:restartPolicy": {},
              "f:schedulerName": {},
              "f:securityContext": {},
              "f:terminationGracePeriodSeconds": {},
            },
          },
        },
      },
    });
    expect(Object.keys(made.metadata.managedFields[0].fieldsV1)).toEqual(["f:spec"]);
  });

  test("PUT, patches and status are of their managers; status through the main resource is nobody's", async () => {
    await ask("POST", apps, deployment("writes", { replicas: 1 }), { fieldManager: "a" });
    await merge(`${apps}/writes`, { metadata: { labels: { x: "1" } }, status: { replicas: 9 } }, "b");
    await ask(
      "PATCH",
      `${apps}/writes`,
      [{ op: "replace", path: "/spec/replicas", value: 4 }],
      { fieldManager: "c" },
      "application/json-patch+json",
    );
    await merge(`${apps}/writes/status`, { spec: { replicas: 7 }, status: { observedGeneration: 1 } }, "d");
    const now = await ask("GET", `${apps}/writes`);
    expect(now.spec.replicas).toBe(4);
    const all = owners(now);
    expect(all["a Update apps/v1"]).not.toContain(".spec.replicas");
    expect(all["b Update apps/v1"]).toEqual([".metadata.labels", ".metadata.labels.x"]);
    expect(all["c Update apps/v1"]).toEqual([".spec.replicas"]);
    expect(all["d Update apps/v1 status"]).toEqual([".status.observedGeneration"]);
  });

  test("who gives no name goes by the one of the client", async () => {
    const node = kinds.as({ name: "system:node:n1", groups: ["system:masters"] });
    const lease = { metadata: { name: "n1", namespace: "default" }, spec: { holderIdentity: "n1" } };
    const path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    const made = await node.transport.request({ method: "POST", path, body: lease });
    expect(owners(made)).toEqual({
      "kubelet Update coordination.k8s.io/v1": [".spec.holderIdentity"],
    });
    const mine = await ask("POST", `${core}/configmaps`, configMap("unnamed", { a: "1" }));
    expect(Object.keys(owners(mine))).toEqual(["kube-controller-manager Update v1"]);
  });

  test("a write that changes nothing is none, whoever writes", async () => {
    const made = await ask("POST", `${core}/configmaps`, configMap("idle", { a: "1" }), { fieldManager: "a" });
    await kinds.clock.advance(60_000);
    const again = await ask("PUT", `${core}/configmaps/idle`, configMap("idle", { a: "1" }), { fieldManager: "b" });
    expect(again).toEqual(made);
  });

  test("binding and eviction leave ownership as it is", async () => {
    await ask("POST", `${core}/serviceaccounts`, { metadata: { name: "default" } });
    const pod = { metadata: { name: "bound" }, spec: { containers: [{ name: "c", image: "i" }] } };
    const made = await ask("POST", `${core}/pods`, pod, { fieldManager: "a" });
    await ask("POST", `${core}/pods/bound/binding`, {
      metadata: { name: "bound" },
      target: { kind: "Node", name: "n1" },
    });
    const bound = await ask("GET", `${core}/pods/bound`);
    expect(bound.spec.nodeName).toBe("n1");
    expect(bound.metadata.managedFields).toEqual(made.metadata.managedFields);
  });

  test("a client may give tracking up, and cannot through a subresource", async () => {
    await ask("POST", apps, deployment("untracked"), { fieldManager: "a" });
    const patch = { metadata: { managedFields: [{}] } };
    const kept = await merge(`${apps}/untracked/status`, patch, "b");
    expect(Object.keys(owners(kept))).toEqual(["a Update apps/v1"]);
    const cleared = await merge(`${apps}/untracked`, patch, "b");
    expect(cleared.metadata.managedFields).toBeUndefined();
    // And it stays so, until an apply.
    const later = await merge(`${apps}/untracked`, { spec: { replicas: 3 } }, "b");
    expect(later.metadata.managedFields).toBeUndefined();
    const applied = await apply(
      `${apps}/untracked`,
      { apiVersion: "apps/v1", kind: "Deployment", metadata: { labels: { x: "1" } } },
      "c",
    );
    expect(Object.keys(owners(applied))).toEqual(["c Apply apps/v1", "before-first-apply Update apps/v1"]);
  });
});

describe("apply", () => {
  test("makes what is not there, changes what is, and takes back what is said no more", async () => {
    const made = await apply(`${apps}/applied`, deployment("applied", { replicas: 2, minReadySeconds: 3 }), "a");
    expect(made.metadata.uid).toBeDefined();
    expect(made.spec).toMatchObject({ replicas: 2, minReadySeconds: 3, revisionHistoryLimit: 10 });
    expect(owners(made)["a Apply apps/v1"]).not.toContain(".spec.revisionHistoryLimit");
    await kinds.clock.advance(60_000);
    const again = await apply(`${apps}/applied`, deployment("applied", { replicas: 2, minReadySeconds: 3 }), "a");
    expect(again).toEqual(made);
    const less = await apply(`${apps}/applied`, deployment("applied", { replicas: 2 }), "a");
    expect(less.spec.minReadySeconds).toBeUndefined();
    expect(less.metadata.generation).toBe(2);
  });

  test("conflicts say who and where; force takes over", async () => {
    await apply(`${apps}/shared`, deployment("shared", { replicas: 1 }), "a");
    await merge(`${apps}/shared`, { spec: { replicas: 2 } }, "kubectl-edit");
    const config = deployment("shared", { replicas: 1 });
    expect(await refused(apply(`${apps}/shared`, config, "a"))).toEqual({
      code: 409,
      message: 'Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas',
    });
    const forced = await apply(`${apps}/shared`, config, "a", { force: "true" });
    expect(Object.keys(owners(forced))).toEqual(["a Apply apps/v1"]);
  });

  test("a dry run says what would be and does nothing", async () => {
    const dry = await apply(`${apps}/dry`, deployment("dry"), "a", { dryRun: "All" });
    expect(owners(dry)["a Apply apps/v1"]).toContain(".spec.selector");
    expect((await refused(ask("GET", `${apps}/dry`))).code).toBe(404);
  });

  test("through status and scale", async () => {
    await apply(`${apps}/sub`, deployment("sub", { replicas: 1 }), "a");
    const status = {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "sub", labels: { no: "1" } },
      spec: { replicas: 8 },
      status: { observedGeneration: 1 },
    };
    const shown = await apply(`${apps}/sub/status`, status, "s");
    expect(shown).toMatchObject({ spec: { replicas: 1 }, status: { observedGeneration: 1 } });
    expect(shown.metadata.labels).toBeUndefined();
    expect(owners(shown)["s Apply apps/v1 status"]).toEqual([".status.observedGeneration"]);

    const scale = (replicas: number) => ({
      apiVersion: "autoscaling/v1",
      kind: "Scale",
      metadata: { name: "sub" },
      spec: { replicas },
    });
    expect((await refused(apply(`${apps}/sub/scale`, scale(5), "hpa"))).message).toBe(
      'Apply failed with 1 conflict: conflict with "a": .spec.replicas',
    );
    const scaled = await apply(`${apps}/sub/scale`, scale(5), "hpa", { force: "true" });
    expect(scaled).toMatchObject({ kind: "Scale", spec: { replicas: 5 } });
    const after = await ask("GET", `${apps}/sub`);
    expect(after.spec.replicas).toBe(5);
    expect(owners(after)["hpa Apply apps/v1 scale"]).toEqual([".spec.replicas"]);
    expect(owners(after)["a Apply apps/v1"]).not.toContain(".spec.replicas");
    await ask("PUT", `${apps}/sub/scale`, scale(6), { fieldManager: "kubectl" });
    const updated = owners(await ask("GET", `${apps}/sub`));
    expect(updated["kubectl Update apps/v1 scale"]).toEqual([".spec.replicas"]);
    expect(updated["hpa Apply apps/v1 scale"]).toBeUndefined();
  });

  test("two versions of one object: an owner in one loses what is changed in the other", async () => {
    const path = (version: string) => `/apis/autoscaling/${version}/namespaces/default/horizontalpodautoscalers`;
    const scaler = (version: string, spec: object) => ({
      apiVersion: `autoscaling/${version}`,
      kind: "HorizontalPodAutoscaler",
      metadata: { name: "h" },
      spec: { scaleTargetRef: { kind: "Deployment", name: "d", apiVersion: "apps/v1" }, maxReplicas: 3, ...spec },
    });
    await apply(`${path("v1")}/h`, scaler("v1", { targetCPUUtilizationPercentage: 50, minReplicas: 2 }), "old");
    const patched = await merge(`${path("v2")}/h`, { spec: { minReplicas: 1 } }, "new");
    expect(owners(patched)).toEqual({
      "old Apply autoscaling/v1": [".spec.maxReplicas", ".spec.scaleTargetRef", ".spec.targetCPUUtilizationPercentage"],
      "new Update autoscaling/v2": [".spec.minReplicas"],
    });
    // v1 without a percentage is v2 with metrics of its default, so metrics are not gone with it: what stood there stays.
    const moved = await apply(`${path("v2")}/h`, scaler("v2", {}), "old");
    expect(patched.spec.metrics[0].resource.target.averageUtilization).toBe(50);
    expect(moved.spec.metrics[0].resource.target.averageUtilization).toBe(50);
    expect(owners(moved)["old Apply autoscaling/v2"]).toEqual([
      ".spec.maxReplicas",
      ...["apiVersion", "kind", "name"].map((name) => `.spec.scaleTargetRef.${name}`),
    ]);
  });

  test("needs the right to create what is not there", async () => {
    const role = {
      metadata: { name: "patcher" },
      rules: [{ apiGroups: [""], resources: ["configmaps"], verbs: ["patch", "get"] }],
    };
    const rbac = "/apis/rbac.authorization.k8s.io/v1";
    await ask("POST", `${rbac}/clusterroles`, role);
    const subject = { kind: "User", name: "pat", apiGroup: "rbac.authorization.k8s.io" };
    const roleRef = { kind: "ClusterRole", name: "patcher", apiGroup: "rbac.authorization.k8s.io" };
    await ask("POST", `${rbac}/clusterrolebindings`, { metadata: { name: "patcher" }, subjects: [subject], roleRef });
    await kinds.syncRbac();
    const pat = kinds.as({ name: "pat", groups: ["system:authenticated"] });
    const request = {
      method: "PATCH",
      path: `${core}/configmaps/pats`,
      query: { fieldManager: "pat" },
      contentType: "application/apply-patch+yaml",
      body: configMap("pats", { a: "1" }),
    } as const;
    const refusal = await refused(pat.transport.request(request));
    expect(refusal).toMatchObject({
      code: 403,
      message: expect.stringContaining('User "pat" cannot create resource "configmaps"'),
    });
    await apply(`${core}/configmaps/pats`, configMap("pats", { b: "1" }), "a");
    expect((await pat.transport.request(request))["data"]).toEqual({ a: "1", b: "1" });
  });

  test.each<[string, string, unknown, Record<string, string>, number, string]>([
    [
      "without a manager",
      "cm",
      configMap("cm", {}),
      { fieldManager: "" },
      422,
      'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    ],
    [
      "a manager of 129 letters",
      "cm",
      configMap("cm", {}),
      { fieldManager: "m".repeat(129) },
      422,
      "fieldManager: Too long",
    ],
    [
      "a manager that cannot be printed",
      "cm",
      configMap("cm", {}),
      { fieldManager: "a\u0007" },
      422,
      "should only contain printable characters",
    ],
    [
      "another name",
      "cm",
      configMap("other", {}),
      {},
      400,
      "the name of the object (other) does not match the name on the URL (cm)",
    ],
    ["another kind", "cm", { ...configMap("cm", {}), kind: "Secret" }, {}, 400, "invalid object type: v1, Kind=Secret"],
    [
      "an unknown field",
      "cm",
      { ...configMap("cm", {}), more: 1 },
      {},
      500,
      "failed to create typed patch object (/cm; v1, Kind=ConfigMap): .more: field not declared in schema",
    ],
    ["managedFields", "cm", configMap("cm", {}, { managedFields: [] }), {}, 400, "metadata.managedFields must be nil"],
    [
      "a revision of nothing",
      "cm",
      configMap("cm", {}, { resourceVersion: "5" }),
      {},
      404,
      'configmaps "cm" not found',
    ],
    [
      "a uid of nothing",
      "cm",
      configMap("cm", {}, { uid: "u" }),
      {},
      409,
      "uid mismatch: the provided object specified uid u, and no existing object was found",
    ],
    ["a list", "cm", [], {}, 400, "error decoding YAML"],
    [
      "what is not valid",
      "d",
      { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "d", labels: { "a b": "1" } } },
      {},
      422,
      "metadata.labels",
    ],
  ])("refuses %s", async (_name, name, config, query, code, message) => {
    const answer = await refused(apply(`${core}/configmaps/${name}`, config, "a", query));
    expect(answer).toMatchObject({ code, message: expect.stringContaining(message) });
  });

  test("preconditions in the config hold", async () => {
    const path = `${core}/configmaps/pre`;
    const { metadata } = await apply(path, configMap("pre", { a: "1" }), "a");
    await merge(path, { data: { b: "1" } }, "b");
    const stale = configMap("pre", { a: "2" }, { resourceVersion: metadata.resourceVersion });
    expect(await refused(apply(path, stale, "a"))).toMatchObject({
      code: 409,
      message: expect.stringContaining("the object has been modified"),
    });
    const idle = configMap("pre", { a: "1" }, { uid: "other" });
    expect(await refused(apply(path, idle, "a"))).toMatchObject({
      code: 409,
      message: expect.stringContaining("UID in precondition: other"),
    });
  });

  test("what other patches may not", async () => {
    const path = `${core}/configmaps/plain`;
    await ask("POST", `${core}/configmaps`, configMap("plain", {}));
    const patch = (query: Record<string, string>, type: string) =>
      refused(ask("PATCH", path, { data: { a: "1" } }, query, type));
    expect(await patch({ force: "true" }, "application/merge-patch+json")).toEqual({
      code: 422,
      message: 'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
    });
    expect((await patch({ fieldManager: "a" }, "application/apply-patch+cbor")).code).toBe(415);
  });
});
