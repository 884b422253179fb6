// What programs do that are not kubectl, as they do it on the wire: Helm, controller-runtime and client-go, dashboards.
// Their requests are written out here, because none of them can be had as a package; what they rely on is asserted.
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Answer, ClientCluster } from "./cluster.ts";

let cluster: ClientCluster;
beforeAll(async () => {
  cluster = await ClientCluster.start();
});
afterAll(() => cluster?.close());

const partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const onePartial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const strategic = { "content-type": "application/strategic-merge-patch+json" };
const merge = { "content-type": "application/merge-patch+json" };
const apply = { "content-type": "application/apply-patch+yaml" };

/** The answer's body; the status must be the expected one. */
async function ok(expected: number, answer: Promise<Answer>) {
  const { status, text, body } = await answer;
  if (status !== expected) throw new Error(`${status}, not ${expected}: ${text.slice(0, 500)}`);
  return body;
}
const get = (path: string, headers: Record<string, string> = {}) => ok(200, cluster.ask("GET", path, { headers }));

describe("helm", () => {
  const namespace = "helm";
  const secretsPath = `/api/v1/namespaces/${namespace}/secrets`;
  const deployment = (image: string) => ({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: {
      name: "web",
      namespace,
      labels: { "app.kubernetes.io/managed-by": "Helm" },
      annotations: { "meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": namespace },
    },
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: "web" } },
      template: { metadata: { labels: { app: "web" } }, spec: { containers: [{ name: "main", image }] } },
    },
  });
  const release = (version: number, status: string) => ({
    apiVersion: "v1",
    kind: "Secret",
    type: "helm.sh/release.v1",
    metadata: {
      name: `sh.helm.release.v1.shop.v${version}`,
      labels: { name: "shop", owner: "helm", status, version: String(version), modifiedAt: "1790000000" },
    },
    data: {
      release: Buffer.from(gzipSync(JSON.stringify({ name: "shop", version })).toString("base64")).toString("base64"),
    },
  });
  beforeAll(async () => {
    await cluster.namespace(namespace);
  });

  test("finds what a server is and has", async () => {
    const { gitVersion, major, minor } = await get("/version");
    expect(gitVersion).toMatch(/^v1\.32\.\d+/);
    expect([major, minor]).toEqual(["1", "32"]);
    // HTTP/1.1 clients keep their connections, and are told for how long.
    expect((await cluster.ask("GET", "/version")).headers["keep-alive"]).toBe("timeout=90");
    // Helm's cached discovery asks for the aggregated form first, and takes the legacy one where it is not offered.
    const accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    const all = await cluster.ask("GET", "/apis", { headers: { accept } });
    expect(all.headers["content-type"]).toBe("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    const { etag = "" } = all.headers;
    expect((await cluster.ask("GET", "/apis", { headers: { accept, "if-none-match": etag } })).status).toBe(304);
    expect((await get("/apis")).kind).toBe("APIGroupList");
    const { paths } = await get("/openapi/v3");
    const document = await get(paths["apis/apps/v1"].serverRelativeURL);
    expect(document.components.schemas["io.k8s.api.apps.v1.Deployment"].type).toBe("object");
  });

  test("installs, upgrades and lists", async () => {
    expect((await get(`${secretsPath}?labelSelector=name%3Dshop%2Cowner%3Dhelm`)).items).toEqual([]);
    await ok(201, cluster.ask("POST", secretsPath, { body: release(1, "pending-install") }));
    const path = `/apis/apps/v1/namespaces/${namespace}/deployments`;
    expect((await cluster.ask("GET", `${path}/web`)).status).toBe(404);
    await ok(201, cluster.ask("POST", `${path}?fieldManager=helm`, { body: deployment("web:1") }));
    // A release's secret is immutable in type and changes its labels.
    const stored = await get(`${secretsPath}/sh.helm.release.v1.shop.v1`);
    stored.metadata.labels.status = "deployed";
    await ok(200, cluster.ask("PUT", `${secretsPath}/sh.helm.release.v1.shop.v1`, { body: stored }));
    // The three-way patch: only what differs between the charts and the cluster.
    const patch = { spec: { template: { spec: { containers: [{ name: "main", image: "web:2" }] } } } };
    const patched = await ok(
      200,
      cluster.ask("PATCH", `${path}/web?fieldManager=helm`, { body: patch, headers: strategic }),
    );
    expect(patched.spec.template.spec.containers).toMatchObject([
      { name: "main", image: "web:2", imagePullPolicy: "IfNotPresent" },
    ]);
    await ok(201, cluster.ask("POST", secretsPath, { body: release(2, "deployed") }));
    const found = await get(`${secretsPath}?labelSelector=owner%3Dhelm%2Cstatus%3Ddeployed`);
    expect(found.items.map((item: { metadata: { name: string } }) => item.metadata.name)).toEqual([
      "sh.helm.release.v1.shop.v1",
      "sh.helm.release.v1.shop.v2",
    ]);
    expect(found.items[0].type).toBe("helm.sh/release.v1");
  });

  test("waits until it is ready", async () => {
    const path = `/apis/apps/v1/namespaces/${namespace}/deployments?fieldSelector=metadata.name%3Dweb`;
    const { metadata, items } = await get(path);
    const isReady = (o: {
      status: { readyReplicas?: number; updatedReplicas?: number; observedGeneration?: number };
      metadata: { generation?: number };
    }) =>
      o.status.readyReplicas === 1 &&
      o.status.updatedReplicas === 1 &&
      o.status.observedGeneration === o.metadata.generation;
    if (!isReady(items[0])) {
      const watch = await cluster.watch(`${path}&watch=true&resourceVersion=${metadata.resourceVersion}`);
      for (let count = 1; !watch.events.some((e) => isReady(e.object as never)); count++) await watch.until(count);
      watch.close();
    }
    const { items: pods } = await get(`/api/v1/namespaces/${namespace}/pods?labelSelector=app%3Dweb`);
    const images = pods.map((pod: { spec: { containers: { image: string }[] } }) => pod.spec.containers[0]?.image);
    expect(images).toContain("web:2");
  });

  test("uninstalls", async () => {
    const body = { kind: "DeleteOptions", apiVersion: "v1", propagationPolicy: "Background" };
    await ok(200, cluster.ask("DELETE", `/apis/apps/v1/namespaces/${namespace}/deployments/web`, { body }));
    for (const version of [1, 2]) {
      await ok(200, cluster.ask("DELETE", `${secretsPath}/sh.helm.release.v1.shop.v${version}`));
    }
    expect((await cluster.ask("DELETE", `${secretsPath}/sh.helm.release.v1.shop.v1`)).body).toMatchObject({
      ...{ kind: "Status", status: "Failure", reason: "NotFound", code: 404 },
      details: { name: "sh.helm.release.v1.shop.v1", kind: "secrets" },
    });
  });
});

describe("controller-runtime and client-go", () => {
  const namespace = "operator";
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  const maps = `/api/v1/namespaces/${namespace}/configmaps`;
  const map = (name: string, data = {}) => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data });
  beforeAll(async () => {
    await cluster.namespace(namespace);
  });

  test("elect a leader by a lease: one wins, and the other's update is refused", async () => {
    const lease = (holderIdentity: string) => ({
      ...{ apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name: "leader" } },
      spec: {
        ...{ holderIdentity, leaseDurationSeconds: 15, leaseTransitions: 0 },
        ...{ acquireTime: "2026-01-01T00:00:00.000000Z", renewTime: "2026-01-01T00:00:00.123456Z" },
      },
    });
    expect((await cluster.ask("GET", `${leases}/leader`)).status).toBe(404);
    const made = await ok(201, cluster.ask("POST", leases, { body: lease("a") }));
    expect((await cluster.ask("POST", leases, { body: lease("b") })).body).toMatchObject({ reason: "AlreadyExists" });
    expect(made.spec.renewTime).toBe("2026-01-01T00:00:00.123456Z");
    const renewed = { ...made, spec: { ...made.spec, renewTime: "2026-01-01T00:00:02.000000Z" } };
    const now = await ok(200, cluster.ask("PUT", `${leases}/leader`, { body: renewed }));
    expect(now.metadata.resourceVersion).not.toBe(made.metadata.resourceVersion);
    const late = { ...made, spec: { ...made.spec, holderIdentity: "b" } };
    const refused = await cluster.ask("PUT", `${leases}/leader`, { body: late });
    expect(refused.status).toBe(409);
    expect(refused.body.message).toBe(
      'Operation cannot be fulfilled on leases.coordination.k8s.io "leader": the object has been modified; please apply your changes to the latest version and try again',
    );
  });

  test("fill a cache: list, watch from there with bookmarks, end in time", async () => {
    await ok(201, cluster.ask("POST", maps, { body: map("first") }));
    const { metadata } = await get(`${maps}?limit=500&resourceVersion=0`);
    const query = `allowWatchBookmarks=true&resourceVersion=${metadata.resourceVersion}&timeout=5s&timeoutSeconds=400&watch=true`;
    const watch = await cluster.watch(`${maps}?${query}`);
    await ok(201, cluster.ask("POST", maps, { body: map("second") }));
    await ok(200, cluster.ask("PATCH", `${maps}/second`, { body: { data: { a: "1" } }, headers: merge }));
    await ok(200, cluster.ask("DELETE", `${maps}/second`));
    await watch.until(3);
    watch.close();
    expect(watch.events.map((event) => event.type)).toEqual(["ADDED", "MODIFIED", "DELETED"]);
    const short = await cluster.ask(
      "GET",
      `${maps}?watch=true&timeoutSeconds=1&resourceVersion=${metadata.resourceVersion}`,
    );
    expect(short.status).toBe(200);
    expect(short.text.trim().split("\n").length).toBe(3);
  });

  test("fill a cache by a watch alone", async () => {
    const query = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&watch=true";
    const watch = await cluster.watch(`${maps}?${query}`);
    await watch.until(3);
    watch.close();
    const last = watch.events.find((event) => event.type === "BOOKMARK") as unknown as {
      object: { kind: string; metadata: { annotations: Record<string, string>; resourceVersion: string } };
    };
    expect(watch.events.slice(0, 2).map(({ type }) => type)).toEqual(["ADDED", "ADDED"]);
    expect(last.object.kind).toBe("ConfigMap");
    expect(last.object.metadata.annotations).toEqual({ "k8s.io/initial-events-end": "true" });
    expect(last.object.metadata.resourceVersion).toMatch(/^[1-9]\d*$/);
  });

  test("keep metadata only", async () => {
    const list = await get(maps, { accept: partial });
    expect([list.kind, list.apiVersion]).toEqual(["PartialObjectMetadataList", "meta.k8s.io/v1"]);
    expect(list.items.every((item: object) => !("data" in item))).toBe(true);
    const one = await get(`${maps}/first`, { accept: onePartial });
    expect([one.kind, one.apiVersion, one.metadata.name]).toEqual(["PartialObjectMetadata", "meta.k8s.io/v1", "first"]);
    const watch = await cluster.watch(`${maps}?watch=true&fieldSelector=metadata.name%3Dfirst`, { accept: onePartial });
    await watch.until(1);
    watch.close();
    expect(watch.events[0]?.object).toMatchObject({ kind: "PartialObjectMetadata", apiVersion: "meta.k8s.io/v1" });
  });

  test("speak protobuf where they know the type", async () => {
    const accept = "application/vnd.kubernetes.protobuf,application/json";
    const answer = await cluster.ask("GET", `${maps}/first`, { headers: { accept } });
    expect(answer.headers["content-type"]).toBe("application/vnd.kubernetes.protobuf");
    expect(answer.text.startsWith("k8s\0")).toBe(true);
    // What has no protobuf comes as JSON.
    const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    expect((await cluster.ask("GET", path, { headers: { accept } })).headers["content-type"]).toBe("application/json");
  });

  test("reconcile: finalizer, status, owner references, apply", async () => {
    const path = `/apis/apps/v1/namespaces/${namespace}/deployments`;
    const config = {
      ...{ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "web", finalizers: ["example.com/a"] } },
      spec: {
        replicas: 0,
        selector: { matchLabels: { a: "b" } },
        template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "i" }] } },
      },
    };
    const made = await ok(
      201,
      cluster.ask("PATCH", `${path}/web?fieldManager=op&force=true`, { body: config, headers: apply }),
    );
    const child = {
      ...map("child"),
      metadata: {
        name: "child",
        ownerReferences: [
          {
            apiVersion: "apps/v1",
            kind: "Deployment",
            name: "web",
            uid: made.metadata.uid,
            controller: true,
            blockOwnerDeletion: true,
          },
        ],
      },
    };
    await ok(201, cluster.ask("POST", maps, { body: child }));
    const status = {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "web" },
      status: { conditions: [{ type: "Own", status: "True" }] },
    };
    await ok(
      200,
      cluster.ask("PATCH", `${path}/web/status?fieldManager=op&force=true`, { body: status, headers: apply }),
    );
    const patch = [
      { op: "test", path: "/metadata/finalizers/0", value: "example.com/a" },
      { op: "remove", path: "/metadata/finalizers" },
    ];
    const deleted = await ok(200, cluster.ask("DELETE", `${path}/web`));
    expect(deleted.metadata.deletionTimestamp).toBeDefined();
    const headers = { "content-type": "application/json-patch+json" };
    await ok(200, cluster.ask("PATCH", `${path}/web`, { body: patch, headers }));
    expect((await cluster.ask("GET", `${path}/web`)).status).toBe(404);
    for (let tries = 0; (await cluster.ask("GET", `${maps}/child`)).status !== 404; tries++) {
      expect(tries).toBeLessThan(500);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });

  test("record events, also as a series", async () => {
    const path = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
    const event = {
      ...{ apiVersion: "events.k8s.io/v1", kind: "Event", metadata: { name: "web.1" }, type: "Normal" },
      ...{ eventTime: "2026-01-01T00:00:00.000000Z", reason: "Because", action: "Test", note: "words" },
      ...{ reportingController: "example.com/op", reportingInstance: "op-1" },
      regarding: { kind: "ConfigMap", name: "first", namespace },
    };
    await ok(201, cluster.ask("POST", path, { body: event }));
    const series = { series: { count: 2, lastObservedTime: "2026-01-01T00:01:00.000000Z" } };
    const patched = await ok(200, cluster.ask("PATCH", `${path}/web.1`, { body: series, headers: strategic }));
    expect(patched.series).toEqual(series.series);
    const old = await get(`/api/v1/namespaces/${namespace}/events/web.1`);
    expect([old.message, old.involvedObject.name, old.reportingComponent]).toEqual([
      "words",
      "first",
      "example.com/op",
    ]);
  });

  test("are told to list again when the past is gone", async () => {
    const watch = await cluster.ask("GET", `${maps}?watch=true&resourceVersion=1&timeoutSeconds=1`);
    const isGone = watch.status === 410 || /"type":"ERROR".*"code":410/.test(watch.text);
    // Right after a start nothing is compacted yet, and the whole past is served.
    expect(isGone || watch.status === 200).toBe(true);
    const ahead = await cluster.ask(
      "GET",
      `${maps}?resourceVersion=999999999&resourceVersionMatch=NotOlderThan&timeoutSeconds=1`,
    );
    expect(ahead.status).toBe(504);
    expect(ahead.body).toMatchObject({
      reason: "Timeout",
      details: { causes: [{ reason: "ResourceVersionTooLarge" }] },
    });
  });
});

describe("dashboards", () => {
  /** Every resource that can be listed, as discovery names it. */
  async function listable(): Promise<string[]> {
    const { groups } = await get("/apis");
    const versions = groups.flatMap((group: { versions: { groupVersion: string }[] }) =>
      group.versions.map(({ groupVersion }) => `/apis/${groupVersion}`),
    ) as string[];
    const paths: string[] = [];
    for (const path of ["/api/v1", ...versions]) {
      const { resources } = await get(path);
      for (const { name, verbs } of resources as { name: string; verbs: string[] }[]) {
        if (verbs.includes("list")) paths.push(`${path}/${name}`);
      }
    }
    return paths;
  }

  test("list and watch everything that discovery names, as tables too", async () => {
    const paths = await listable();
    expect(paths.length).toBeGreaterThan(48);
    const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for (const path of paths) {
      const list = await get(`${path}?limit=250`);
      expect([path, list.kind.endsWith("List"), Array.isArray(list.items)]).toEqual([path, true, true]);
      const table = await get(path, { accept });
      expect([path, table.kind, table.columnDefinitions[0]?.name]).toEqual([
        path,
        "Table",
        expect.stringMatching(/Name|Last Seen/),
      ]);
      if (path.includes("metrics.k8s.io") || path.endsWith("componentstatuses")) continue;
      // Refused is a rejection; what is accepted answers at once, though nothing happens.
      const query = `watch=true&fieldSelector=metadata.name%3Dnone&resourceVersion=${list.metadata.resourceVersion}`;
      (await cluster.watch(`${path}?${query}`)).close();
    }
  });

  test("ask what they may do", async () => {
    const path = (kind: string) => `/apis/authorization.k8s.io/v1/${kind}`;
    const rules = {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SelfSubjectRulesReview",
      spec: { namespace: "default" },
    };
    const { status } = await ok(201, cluster.ask("POST", path("selfsubjectrulesreviews"), { body: rules }));
    expect(status.incomplete).toBe(false);
    expect(status.resourceRules).toContainEqual({ verbs: ["*"], apiGroups: ["*"], resources: ["*"] });
    const attributes = { namespace: "default", verb: "list", group: "", resource: "pods" };
    const access = {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SelfSubjectAccessReview",
      spec: { resourceAttributes: attributes },
    };
    expect(
      (await ok(201, cluster.ask("POST", path("selfsubjectaccessreviews"), { body: access }))).status.allowed,
    ).toBe(true);
    const self = { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" };
    const who = await ok(201, cluster.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", { body: self }));
    expect(who.status.userInfo.groups).toContain("system:masters");
  });

  test.each([
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    "/apis/metrics.k8s.io/v1beta1",
    "/apis/metrics.k8s.io/v1beta1/nodes",
    "/apis/metrics.k8s.io/v1beta1/pods",
    "/apis/metrics.k8s.io/v1beta1/namespaces/kube-system/pods",
    "/api/v1/namespaces/kube-system/events?limit=50",
    "/api/v1/nodes/node-1",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
  ])("%s is there", async (path) => {
    expect((await cluster.ask("GET", path)).status).toBe(200);
  });

  test.each([
    // Optional adapters: asked for, and 404 where they are not installed, as upstream.
    "/apis/custom.metrics.k8s.io/v1beta1",
    "/apis/external.metrics.k8s.io/v1beta1",
    "/apis/metrics.k8s.io/v1",
    "/apis/policy/v1beta1/podsecuritypolicies",
    "/api/v1/namespaces/kube-system/services/https:kubernetes-dashboard:/proxy/",
  ])("%s is not, and says so as a Status", async (path) => {
    const answer = await cluster.ask("GET", path);
    expect([answer.status, answer.body?.kind ?? answer.text]).toEqual([
      404,
      expect.stringMatching(/^Status$|^404 page not found/),
    ]);
  });
});
