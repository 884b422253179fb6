// What load balancers are told: what is counted, and the answers over real sockets.
import * as net from "node:net";
import { afterEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { Endpoint, EndpointSlice } from "#model/gen/discovery-v1.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { type HealthCheck, HealthPorts, healthChecksOf, type ProxyHealth } from "./health.ts";

const balancer = (spec: Partial<Service["spec"]> = {}): Service => ({
  metadata: { name: "web", namespace: "default" },
  spec: { type: "LoadBalancer", externalTrafficPolicy: "Local", healthCheckNodePort: 30_123, ...spec },
});
const slice = (endpoints: readonly Endpoint[], addressType = "IPv4"): EndpointSlice => ({
  metadata: { name: `web-${addressType}`, namespace: "default", labels: { "kubernetes.io/service-name": "web" } },
  ...{ addressType, endpoints: [...endpoints], ports: [] },
});
const at = (ip: string, nodeName: string, ready = true): Endpoint => ({
  addresses: [ip],
  nodeName,
  conditions: { ready, serving: true, terminating: !ready },
});

test.each<[string, Service, readonly EndpointSlice[], number | undefined]>([
  ["none", balancer(), [], 0],
  ["those of this node", balancer(), [slice([at("10.42.0.2", "n1"), at("10.42.0.3", "n1"), at("10.42.1.2", "n2")])], 2],
  ["ending ones do not count", balancer(), [slice([at("10.42.0.2", "n1", false)])], 0],
  [
    "a pod of both families is one",
    balancer(),
    [slice([at("10.42.0.2", "n1")]), slice([at("fd00:42::2", "n1")], "IPv6")],
    1,
  ],
  [
    "two slices",
    balancer(),
    [slice([at("10.42.0.2", "n1")]), slice([at("10.42.0.2", "n1"), at("10.42.0.3", "n1")])],
    2,
  ],
  ["policy Cluster has no port", balancer({ externalTrafficPolicy: "Cluster" }), [], undefined],
  ["no balancer, no port", balancer({ type: "NodePort" }), [], undefined],
])("counted: %s", (_, service, slices, expected) => {
  expect(healthChecksOf([service], slices, "n1").get(30_123)?.localEndpoints).toBe(expected);
});

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0);
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
const ask = async (port: number, path = "/"): Promise<[number, unknown, string | null]> => {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`);
  return [answer.status, await answer.json(), answer.headers.get("x-load-balancing-endpoint-weight")];
};

test("answers follow what is there; a port goes with its service", async () => {
  let health: ProxyHealth = { lastUpdatedMs: clock.now(), waitedMs: undefined, isEligible: true };
  const [service, proxyPort] = [await freePort(), await freePort()];
  const ports = new HealthPorts({ proxyPort, health: () => health }, { clock, log: silentLogger });
  ends.push(() => ports.close());
  const check = (localEndpoints: number): ReadonlyMap<number, HealthCheck> =>
    new Map([[service, { namespace: "default", name: "web", localEndpoints }]]);
  await ports.set(check(2));
  const told = (localEndpoints: number, serviceProxyHealthy: boolean) => {
    return { service: { namespace: "default", name: "web" }, localEndpoints, serviceProxyHealthy };
  };
  expect(await ask(service)).toEqual([200, told(2, true), "2"]);
  await ports.set(check(0));
  expect(await ask(service)).toEqual([503, told(0, true), "0"]);
  expect(await ask(proxyPort, "/healthz")).toMatchObject([200, { nodeEligible: true }, null]);
  expect((await fetch(`http://127.0.0.1:${proxyPort}/else`)).status).toBe(404);
  health = { ...health, isEligible: false };
  expect(await ask(proxyPort, "/healthz")).toMatchObject([503, { nodeEligible: false }, null]);
  expect((await ask(proxyPort, "/livez"))[0]).toBe(200);
  await ports.set(check(1));
  health = { ...health, isEligible: true, waitedMs: 120_000 };
  expect(await ask(service)).toEqual([503, told(1, false), "1"]);
  expect((await ask(proxyPort, "/livez"))[0]).toBe(503);
  await ports.set(new Map());
  await expect(fetch(`http://127.0.0.1:${service}/`)).rejects.toThrow();
});

test("a port that somebody else has is told once, and had when it is free", async () => {
  const taken = net.createServer().listen(0);
  await new Promise((resolve) => taken.once("listening", resolve));
  const { port } = taken.address() as net.AddressInfo;
  const said: unknown[] = [];
  const log = {
    ...silentLogger,
    warn: (_: string, fields?: Readonly<Record<string, unknown>>) => void said.push(fields),
  };
  const health = { lastUpdatedMs: 0, waitedMs: undefined, isEligible: true };
  const ports = new HealthPorts({ proxyPort: undefined, health: () => health }, { clock, log });
  ends.push(() => ports.close());
  await ports.set(new Map([[port, { namespace: "default", name: "web", localEndpoints: 1 }]]));
  await ports.again();
  expect(said).toMatchObject([{ port, service: "default/web" }]);
  await new Promise((resolve) => taken.close(resolve));
  await ports.again();
  expect((await ask(port))[0]).toBe(200);
});
