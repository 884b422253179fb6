import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Job } from "#model/gen/batch-v1.ts";
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import type { Namespace, Pod, Secret, Service, ServiceAccount, ServiceSpec } from "#model/gen/core-v1.ts";
import { qosClassOf } from "#model/pod-qos.ts";
import * as resources from "#model/resources.ts";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";
import { bindPod } from "./strategies/pods.ts";

let kinds: Kinds;
beforeAll(async () => {
  // Ten addresses and four ports: small enough to use up.
  kinds = await openKinds({ serviceCidr: "10.43.0.0/28", nodePorts: [30_000, 30_003] });
  const account = { metadata: { name: "default", namespace: "default" } } as ServiceAccount;
  await kinds.client.create(resources.serviceAccounts, account);
});
afterAll(() => kinds.close());

const service = (name: string, spec: Partial<ServiceSpec> = {}): Service => ({
  metadata: { name, namespace: "default" },
  spec: { ports: [{ port: 80 }], ...spec } as ServiceSpec,
});
const create = (name: string, spec?: Partial<ServiceSpec>) =>
  kinds.client.create(resources.services, service(name, spec));
const remove = (name: string) => kinds.client.delete(resources.services, { name, namespace: "default" });

describe("services", () => {
  test("a cluster IP of the range, one family", async () => {
    const { spec } = await create("plain");
    expect(spec?.clusterIP).toMatch(/^10\.43\.0\.([2-9]|1[0-4])$/);
    expect(spec).toMatchObject({ clusterIPs: [spec?.clusterIP], ipFamilies: ["IPv4"], ipFamilyPolicy: "SingleStack" });
    await remove("plain");
  });

  test("headless and external names get none", async () => {
    expect((await create("headless", { clusterIP: "None", selector: { a: "b" } })).spec?.clusterIPs).toEqual(["None"]);
    const external = await create("external", { type: "ExternalName", externalName: "a.example" });
    expect(external.spec).not.toHaveProperty("clusterIP");
    await remove("headless");
    await remove("external");
  });

  test("what is asked for is given once, and again after it was given back", async () => {
    await create("a", { clusterIP: "10.43.0.9" });
    const taken =
      'Service "b" is invalid: spec.clusterIPs: Invalid value: []string{"10.43.0.9"}: failed to allocate IP 10.43.0.9: provided IP is already allocated';
    expect(await refusal(create("b", { clusterIP: "10.43.0.9" }))).toBe(taken);
    expect(await refusal(create("b", { clusterIP: "192.0.2.9" }))).toContain("The range of valid IPs is 10.43.0.0/28");
    await remove("a");
    expect((await create("b", { clusterIP: "10.43.0.9" })).spec?.clusterIP).toBe("10.43.0.9");
    await remove("b");
  });

  test("a write that fails gives everything back; a full range says so", async () => {
    const free = 13; // 14 hosts but the kubernetes service
    for (let i = 0; i < free; i++) await create(`n${i}`);
    expect(await refusal(create("n0"))).toContain("range is full");
    await remove("n1");
    // Fails after it was allocated: the name is taken.
    for (let i = 0; i < 3; i++) expect(await refusal(create("n0"))).toBe('services "n0" already exists');
    await kinds.client.create(resources.services, service("n1"), { dryRun: true });
    await create("n1");
    for (let i = 0; i < free; i++) await remove(`n${i}`);
  });

  test("node ports: one per port, kept over updates, gone with the type", async () => {
    const made = await create("np", {
      type: "NodePort",
      ports: [
        { port: 80, name: "a" },
        { port: 81, name: "b", nodePort: 30_002 },
      ] as never,
    });
    const ports = made.spec?.ports?.map((port) => port.nodePort);
    expect(ports?.[1]).toBe(30_002);
    expect(ports?.[0]).toBeGreaterThanOrEqual(30_000);
    expect(await refusal(create("other", { type: "NodePort", ports: [{ port: 1, nodePort: 30_002 }] as never }))).toBe(
      'Service "other" is invalid: spec.ports[0].nodePort: Invalid value: 30002: provided port is already allocated',
    );
    expect(await refusal(create("other", { type: "NodePort", ports: [{ port: 1, nodePort: 99 }] as never }))).toBe(
      'Service "other" is invalid: spec.ports[0].nodePort: Invalid value: 99: provided port is not in the valid range. The range of valid ports is 30000-30003',
    );
    // A client that sends a manifest without what was allocated keeps it.
    const again = service("np", {
      type: "NodePort",
      ports: [
        { port: 80, name: "a" },
        { port: 81, name: "b" },
      ] as never,
    });
    const updated = await kinds.client.update(resources.services, again);
    expect(updated.spec?.ports?.map((port) => port.nodePort)).toEqual(ports);
    expect(updated.spec?.clusterIP).toBe(made.spec?.clusterIP);
    const inside = await kinds.client.update(resources.services, {
      ...updated,
      spec: { ...updated.spec, type: "ClusterIP" },
    });
    expect(inside.spec?.ports?.map((port) => port.nodePort)).toEqual([undefined, undefined]);
    // What the update let go of can be had again.
    await create("other", { type: "NodePort", ports: [{ port: 1, nodePort: 30_002 }] as never });
    await remove("np");
    await remove("other");
  });

  test("a cluster IP does not change", async () => {
    const made = await create("fixed");
    const other = made.spec?.clusterIP === "10.43.0.14" ? "10.43.0.13" : "10.43.0.14";
    const change = { ...made, spec: { ...made.spec, clusterIP: other, clusterIPs: [other] } };
    expect(await refusal(kinds.client.update(resources.services, change))).toContain("may not change once set");
    await remove("fixed");
  });
});

const pod = (name: string, spec: object = {}): Pod =>
  ({ metadata: { name, namespace: "default" }, spec: { containers: [{ name: "c", image: "x" }], ...spec } }) as Pod;

describe("pods", () => {
  test("are born Pending, whatever status a client sends", async () => {
    const made = await kinds.client.create(resources.pods, { ...pod("born"), status: { phase: "Running" } });
    expect(made.status).toEqual({ phase: "Pending", qosClass: "BestEffort" });
    const selected = await kinds.client.list(resources.pods, { fieldSelector: "status.phase=Pending,spec.nodeName=" });
    expect(selected.items.map((item) => item.metadata.name)).toContain("born");
    expect(await refusal(kinds.client.list(resources.pods, { fieldSelector: "spec.color=red" }))).toContain(
      "spec.color",
    );
  });

  test.each<[string, object[], string]>([
    ["BestEffort", [{}], "nothing asked"],
    ["BestEffort", [{ requests: { cpu: "0" } }], "zero asks for nothing"],
    ["Burstable", [{ requests: { cpu: "1" } }], "requests"],
    ["Burstable", [{ limits: { cpu: "1" } }], "only one of both"],
    ["Guaranteed", [{ limits: { cpu: "1", memory: "1Gi" } }], "limits"],
    [
      "Guaranteed",
      [{ limits: { cpu: "1", memory: "1Gi" }, requests: { cpu: "1000m", memory: "1024Mi" } }],
      "the same amounts",
    ],
    [
      "Burstable",
      [{ limits: { cpu: "1", memory: "1Gi" }, requests: { cpu: "1", memory: "1Mi" } }],
      "less than the limit",
    ],
    ["Burstable", [{ limits: { cpu: "1", memory: "1Gi" } }, {}], "one container of two"],
  ])("%s: %j", (expected, all) => {
    const containers = all.map((entry, i) => ({ name: `c${i}`, resources: entry }));
    expect(qosClassOf(pod("q", { containers }))).toBe(expected);
  });

  test("are bound once", () => {
    const bound = bindPod(pod("p"), { node: "n1" }, 0);
    expect(bound.spec.nodeName).toBe("n1");
    expect(bound.status?.conditions?.[0]).toMatchObject({ type: "PodScheduled", status: "True" });
    expect(() => bindPod(bound, { node: "n2" }, 0)).toThrow(
      'Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"',
    );
    const leaving = { ...pod("p"), metadata: { name: "p", deletionTimestamp: "2026-01-01T00:00:00Z" } };
    expect(() => bindPod(leaving, { node: "n1" }, 0)).toThrow("pod p is being deleted, cannot be assigned to a host");
  });

  test("keep their grace only where somebody runs them", async () => {
    await kinds.client.create(resources.pods, pod("unbound"));
    await kinds.client.delete(resources.pods, { name: "unbound", namespace: "default" });
    expect(await refusal(kinds.client.get(resources.pods, "unbound", "default"))).toContain("not found");
    await kinds.client.create(resources.pods, pod("bound", { nodeName: "n1" }));
    await kinds.client.delete(resources.pods, { name: "bound", namespace: "default" });
    const { metadata } = await kinds.client.get(resources.pods, "bound", "default");
    expect(metadata.deletionGracePeriodSeconds).toBe(30);
  });
});

test("a job gets its selector from its uid", async () => {
  const template = { spec: { restartPolicy: "Never", containers: [{ name: "c", image: "x" }] } };
  const made = await kinds.client.create(resources.jobs, {
    metadata: { name: "once", namespace: "default" },
    spec: { template },
  } as Job);
  const uid = made.metadata.uid ?? "";
  expect(made.spec.selector?.matchLabels).toEqual({ "batch.kubernetes.io/controller-uid": uid });
  const labels = {
    "batch.kubernetes.io/controller-uid": uid,
    "batch.kubernetes.io/job-name": "once",
    "controller-uid": uid,
    "job-name": "once",
  };
  expect(made.spec.template.metadata?.labels).toEqual(labels);
  expect(made.metadata.generation).toBe(1);
  // A client that applies its manifest again has none of the generated parts, but patches; nothing changes.
  const patched = await kinds.client.patch(
    resources.jobs,
    { name: "once", namespace: "default" },
    { spec: { suspend: true } },
  );
  expect(patched.metadata.generation).toBe(2);
});

test("a namespace is Active and kept by its finalizer", async () => {
  const made = await kinds.client.create(resources.namespaces, { metadata: { name: "shop" } } as Namespace);
  expect(made).toMatchObject({
    metadata: { labels: { "kubernetes.io/metadata.name": "shop" } },
    spec: { finalizers: ["kubernetes"] },
    status: { phase: "Active" },
  });
});

test("a secret's stringData becomes data; its type can be selected by", async () => {
  const secret = { metadata: { name: "s", namespace: "default" }, type: "a/b", stringData: { k: "v" } } as Secret;
  expect((await kinds.client.create(resources.secrets, secret)).data).toEqual({ k: "dg==" });
  const found = await kinds.client.list(resources.secrets, { namespace: "default", fieldSelector: "type=a/b" });
  expect(found.items).toHaveLength(1);
});

test("a signing request is of who sends it", async () => {
  const request = Buffer.from(makeSigningRequest({ commonName: "x" }).request).toString("base64");
  const made = await kinds.client.create(resources.certificateSigningRequests, {
    metadata: { name: "csr" },
    spec: { request, signerName: "example.com/x", usages: ["client auth"], username: "root" },
  } as unknown as CertificateSigningRequest);
  expect(made.spec.username).toBe("system:apiserver");
});
