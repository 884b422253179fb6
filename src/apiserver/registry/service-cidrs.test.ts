// Addresses of services with the feature gate MultiCIDRServiceAllocator: each is an IPAddress, and they come from
// ServiceCIDRs. The controllers beside them are in test/scenario/service-cidrs.test.ts.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import type { IPAddress, ServiceCIDR } from "#model/gen/networking-v1beta1.ts";
import * as resources from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds({ serviceCidr: "10.43.0.0/29,fd00:43::/112", multiCidr: true });
});
afterAll(() => kinds.close());
beforeEach(async () => {
  const all = await kinds.client.list<Service>(resources.services, {});
  for (const { metadata } of all.items) {
    if (metadata.name !== "kubernetes") await drop(metadata.name ?? "");
  }
  for (const { metadata } of (await kinds.client.list<ServiceCIDR>(resources.serviceCidrs, {})).items) {
    if (metadata.name !== "kubernetes")
      await kinds.client.delete(resources.serviceCidrs, { name: metadata.name ?? "" });
  }
  expect(await held()).toEqual(["10.43.0.1 default/kubernetes"]);
});

type Spec = Partial<ServiceSpec>;
const at = (name: string) => ({ name, namespace: "default" });
const body = (name: string, spec: Spec): Service => ({
  metadata: at(name),
  spec: { ports: [{ port: 80 }], ...spec } as ServiceSpec,
});
const make = (name: string, spec: Spec = {}): Promise<Service> =>
  kinds.client.create(resources.services, body(name, spec));
const drop = (name: string) => kinds.client.delete(resources.services, at(name));
const addRange = (name: string, ...cidrs: string[]) =>
  kinds.client.create(resources.serviceCidrs, { metadata: { name }, spec: { cidrs } });
async function held(): Promise<string[]> {
  const { items } = await kinds.client.list<IPAddress>(resources.ipAddresses, {});
  return items
    .map(({ metadata, spec }) => `${metadata.name} ${spec.parentRef?.namespace ?? ""}/${spec.parentRef?.name}`)
    .sort();
}

const both: Spec = { ipFamilyPolicy: "RequireDualStack" };

test("an address is an object that says whose it is", async () => {
  const { spec } = await make("web", { ...both, clusterIP: "10.43.0.5", clusterIPs: ["10.43.0.5", "fd00:43:0::5"] });
  expect(spec.clusterIPs).toEqual(["10.43.0.5", "fd00:43:0::5"]);
  expect(await kinds.client.get(resources.ipAddresses, "fd00:43::5")).toMatchObject({
    metadata: {
      labels: {
        "ipaddress.kubernetes.io/ip-family": "IPv6",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
      },
    },
    spec: { parentRef: { resource: "services", namespace: "default", name: "web" } },
  });
  expect(await held()).toEqual(["10.43.0.1 default/kubernetes", "10.43.0.5 default/web", "fd00:43::5 default/web"]);
});

test("it goes when the service gives it back, and only then", async () => {
  const made = await make("web", { ...both, clusterIP: "10.43.0.5" });
  const single = { ...made, spec: { ...made.spec, ipFamilyPolicy: "SingleStack" } };
  await kinds.client.update(resources.services, single);
  expect(await held()).toEqual(["10.43.0.1 default/kubernetes", "10.43.0.5 default/web"]);
  const labelled = await kinds.client.patch<Service>(resources.services, at("web"), {
    metadata: { labels: { a: "b" } },
  });
  expect(await held()).toHaveLength(2);
  await kinds.client.update(resources.services, {
    ...labelled,
    spec: { type: "ExternalName", externalName: "a.example" },
  } as Service);
  expect(await held()).toHaveLength(1);
});

test("nothing is left of a write that failed, or of a dry run", async () => {
  await make("web", { clusterIP: "10.43.0.5" });
  const before = await held();
  expect(await refusal(make("web"))).toContain("already exists");
  expect(await refusal(make("odd", { sessionAffinity: "Sometimes" }))).toContain("sessionAffinity");
  expect(await refusal(make("second", { ...both, clusterIP: "10.43.0.5" }))).toContain("already allocated");
  await kinds.client.create(resources.services, body("dry", both), { dryRun: true });
  expect(await held()).toEqual(before);
});

test.each([
  ["10.43.0.5", "failed to allocate IP 10.43.0.5: provided IP is already allocated"],
  ["10.43.0.6", "failed to allocate IP 10.43.0.6: provided IP is already allocated"],
  ["10.43.0.0", "the provided IP (10.43.0.0) is not in the valid range. The range of valid IPs is 10.43.0.0/29"],
  ["10.43.0.7", "the provided IP (10.43.0.7) is not in the valid range. The range of valid IPs is 10.43.0.0/29"],
  ["10.44.0.5", "failed to allocate IP 10.44.0.5: the provided network does not match the current range"],
])("%s cannot be had: %s", async (clusterIP, why) => {
  await make("web", { clusterIP: "10.43.0.5" });
  // Somebody's who is no service.
  const parentRef = { group: "example.com", resource: "gateways", name: "front" };
  await kinds.client.create(resources.ipAddresses, { metadata: { name: "10.43.0.6" }, spec: { parentRef } });
  try {
    expect(await refusal(make("late", { clusterIP }))).toContain(why);
  } finally {
    await kinds.client.delete(resources.ipAddresses, { name: "10.43.0.6" });
  }
});

test("another range is used when the first is full, whether it overlaps or not", async () => {
  for (let i = 0; i < 5; i++) await make(`a${i}`);
  expect(await refusal(make("full"))).toContain("range is full");
  await addRange("wide", "10.43.0.0/28");
  const got = new Set<string>();
  for (let i = 0; i < 8; i++) got.add((await make(`b${i}`)).spec.clusterIP!);
  expect([...got].map((ip) => Number(ip.split(".")[3])).sort((a, b) => a - b)).toEqual([7, 8, 9, 10, 11, 12, 13, 14]);
  expect(await refusal(make("full"))).toContain("range is full");
  expect(await held()).toHaveLength(14);
});

test("nothing comes from a range that is not ready or goes", async () => {
  const range = await addRange("more", "10.44.0.0/28");
  expect((await make("a", { clusterIP: "10.44.0.3" })).spec.clusterIP).toBe("10.44.0.3");
  const ready = { type: "Ready", status: "False", reason: "", message: "", lastTransitionTime: "2026-01-01T00:00:00Z" };
  await kinds.client.updateStatus(resources.serviceCidrs, { ...range, status: { conditions: [ready] } });
  const mismatch = "the provided network does not match the current range";
  expect(await refusal(make("b", { clusterIP: "10.44.0.4" }))).toContain(mismatch);
  const again = await kinds.client.get<ServiceCIDR>(resources.serviceCidrs, "more");
  const status = { conditions: [{ ...ready, status: "True" }] };
  const back = await kinds.client.updateStatus(resources.serviceCidrs, { ...again, status });
  expect((await make("b", { clusterIP: "10.44.0.4" })).spec.clusterIP).toBe("10.44.0.4");
  const finalizers = ["example.com/wait"];
  await kinds.client.update(resources.serviceCidrs, { ...back, metadata: { ...back.metadata, finalizers } });
  await kinds.client.delete(resources.serviceCidrs, { name: "more" });
  expect(await refusal(make("c", { clusterIP: "10.44.0.5" }))).toContain(mismatch);
  // What was given out before is given back all the same.
  await drop("a");
  await drop("b");
  expect(await held()).toHaveLength(1);
  await kinds.client.patch(resources.serviceCidrs, { name: "more" }, { metadata: { finalizers: null } });
});

test("any address of a wide IPv6 range can be asked for", async () => {
  await addRange("wide", "fd00:44::/64");
  const ip = "fd00:44::dead:beef:cafe:7";
  const family: Spec = { ipFamilies: ["IPv6"] };
  expect((await make("a", { ...family, clusterIP: ip })).spec.clusterIP).toBe(ip);
  expect(await refusal(make("b", { ...family, clusterIP: ip }))).toContain("provided IP is already allocated");
  await drop("a");
  expect((await make("b", { ...family, clusterIP: ip })).spec.clusterIP).toBe(ip);
});

test("many at once get one each", async () => {
  await addRange("more", "10.44.0.0/24");
  await Promise.all(Array.from({ length: 60 }, (_, i) => make(`at-once-${i}`)));
  const addresses = (await held()).map((line) => line.split(" ")[0]);
  expect(new Set(addresses).size).toBe(61);
});

test("with the gate off there are no such objects", async () => {
  const plain = await openKinds();
  try {
    const seen = await plain.client.list(resources.serviceCidrs, {}).catch((error: unknown) => isNotFound(error));
    expect(seen).toBe(true);
    expect((await plain.client.get<Service>(resources.services, "kubernetes", "default")).spec.clusterIP).toBe(
      "10.43.0.1",
    );
  } finally {
    await plain.close();
  }
});
