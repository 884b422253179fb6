// Ranges of service addresses as objects, with the controllers that look after them: they are extended, used, taken away.
import { afterEach, expect, test } from "vitest";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import type { IPAddress, ServiceCIDR } from "#model/gen/networking-v1beta1.ts";
import { apiServices, ipAddresses, serviceCidrs, services } from "#model/resources.ts";
import { readyOf } from "#model/service-addresses.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster;
afterEach(() => cluster.stop());

const start = async (serviceCidr: string) => {
  cluster = await InMemoryCluster.start({ serviceCidr, multiCidr: true, nodeCount: 1 });
  await cluster.until(async () => (await readyStatus("kubernetes")) === "True", "the default range is ready");
};
const readyStatus = async (name: string): Promise<string | undefined> => {
  const found = await cluster.find<ServiceCIDR>(serviceCidrs, name);
  return found && readyOf(found)?.status;
};
const make = (name: string, spec: Partial<ServiceSpec> = {}): Promise<Service> =>
  cluster.client.create(services, {
    metadata: { name, namespace: "default" },
    spec: { ports: [{ port: 80 }], ...spec } as ServiceSpec,
  });
const addRange = (name: string, ...cidrs: string[]) =>
  cluster.client.create(serviceCidrs, { metadata: { name }, spec: { cidrs } });
const addressNames = async (): Promise<string[]> =>
  (await cluster.list<IPAddress>(ipAddresses)).map(({ metadata }) => metadata.name ?? "").sort();

test("a range that is full is extended by another, which stays until its addresses are given back", async () => {
  await start("10.43.0.0/29");
  expect((await cluster.find(apiServices, "v1beta1.networking.k8s.io"))?.metadata.name).toBeDefined();
  for (let i = 0; i < 6; i++) await make(`a${i}`);
  await expect(make("late")).rejects.toThrow("range is full");
  await addRange("more", "10.44.0.0/28");
  const late = await make("late");
  expect(late.spec.clusterIP).toMatch(/^10\.44\.0\./);
  await cluster.until(async () => (await readyStatus("more")) === "True", "the new range is ready");
  expect(await addressNames()).toHaveLength(7);

  await cluster.client.delete(serviceCidrs, { name: "more" });
  await cluster.until(async () => (await readyStatus("more")) === "False", "the range says that it is in use");
  await expect(make("later")).rejects.toThrow("range is full");
  await cluster.client.delete(services, { name: "late", namespace: "default" });
  await cluster.until(async () => (await cluster.find(serviceCidrs, "more")) === undefined, "the range is gone");
  expect(await addressNames()).toHaveLength(6);
});

test("the default range comes back, and is not what keeps addresses that lie in another one too", async () => {
  await start("10.43.0.0/28");
  await make("web");
  await addRange("wide", "10.43.0.0/24");
  const { uid } = (await cluster.find<ServiceCIDR>(serviceCidrs, "kubernetes"))!.metadata;
  await cluster.client.delete(serviceCidrs, { name: "kubernetes" });
  await cluster.until(async () => {
    const now = await cluster.find<ServiceCIDR>(serviceCidrs, "kubernetes");
    return now !== undefined && now.metadata.uid !== uid && readyOf(now)?.status === "True";
  }, "the default range was made again");
});

test("what is missing is made, what is left over goes", async () => {
  await start("10.43.0.0/28");
  const { spec } = await make("web");
  await cluster.client.delete(ipAddresses, { name: spec.clusterIP! });
  await cluster.until(async () => (await addressNames()).includes(spec.clusterIP!), "the address is back");
  await cluster.client.create(ipAddresses, {
    metadata: {
      name: "10.43.0.14",
      labels: {
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        "ipaddress.kubernetes.io/ip-family": "IPv4",
      },
    },
    spec: { parentRef: { resource: "services", namespace: "default", name: "never" } },
  });
  await cluster.client.create(ipAddresses, {
    metadata: { name: "10.43.0.13" },
    spec: { parentRef: { group: "example.com", resource: "gateways", name: "front" } },
  });
  await cluster.advance(30_000);
  expect(await addressNames()).toContain("10.43.0.14");
  await cluster.until(async () => !(await addressNames()).includes("10.43.0.14"), "the orphan is gone", 300_000);
  // Not ours to judge.
  expect(await addressNames()).toContain("10.43.0.13");
  await expect(make("other", { clusterIP: "10.43.0.13" })).rejects.toThrow("provided IP is already allocated");
});
