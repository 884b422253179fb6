// A service whose type changes: what means nothing for the new type goes by itself, as clients send back what they read.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { type Kinds, openKinds } from "../kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds({ serviceCidr: "10.43.0.0/24", nodePorts: [30_000, 30_100] });
});
afterAll(() => kinds.close());

const outside = { type: "ExternalName", externalName: "foo.example.com" };
const address = expect.stringMatching(/^10\.43\./);
const nodePort = expect.any(Number);
const gone = undefined;

test.each<[string, object, object, object, object]>([
  [
    "a cluster address that becomes a name",
    {},
    outside,
    { clusterIP: gone, clusterIPs: gone, ipFamilies: gone, ipFamilyPolicy: gone },
    {},
  ],
  [
    "a node port that becomes a name",
    { type: "NodePort" },
    outside,
    { clusterIP: gone, ipFamilies: gone, externalTrafficPolicy: gone },
    { nodePort: gone },
  ],
  [
    "a node port that becomes a name, its address taken away by hand",
    { type: "NodePort" },
    { ...outside, clusterIP: "", clusterIPs: null },
    { ipFamilies: gone, ipFamilyPolicy: gone, externalTrafficPolicy: gone },
    { nodePort: gone },
  ],
  [
    "a load balancer that becomes a name",
    { type: "LoadBalancer" },
    outside,
    { externalTrafficPolicy: gone, allocateLoadBalancerNodePorts: gone },
    { nodePort: gone },
  ],
  [
    "a name that becomes a cluster address",
    { ...outside, ports: undefined },
    { type: "ClusterIP", externalName: null, ports: [{ port: 80 }] },
    { clusterIP: address, ipFamilies: ["IPv4"], externalName: gone },
    { nodePort: gone },
  ],
  [
    "a name that becomes a node port",
    { ...outside, ports: undefined },
    { type: "NodePort", externalName: null, ports: [{ port: 80 }] },
    { clusterIP: address, externalTrafficPolicy: "Cluster" },
    { nodePort },
  ],
  [
    "a node port that becomes inner",
    { type: "NodePort" },
    { type: "ClusterIP" },
    { clusterIP: address, externalTrafficPolicy: gone },
    { nodePort: gone },
  ],
  [
    "a cluster address that loses its external ones",
    { externalIPs: ["192.0.2.1"] },
    { externalIPs: null },
    { externalTrafficPolicy: gone },
    {},
  ],
])("%s", async (name, spec, patch, expected, port) => {
  const target = { name: name.replaceAll(/[^a-z]+/g, "-").slice(0, 60), namespace: "default" };
  const made = { metadata: target, spec: { ports: [{ port: 80 }], ...spec } as ServiceSpec } as Service;
  await kinds.client.create(resources.services, made);
  const changed = await kinds.client.patch(resources.services, target, { spec: patch });
  for (const [key, value] of Object.entries(expected)) {
    expect(changed.spec?.[key as keyof ServiceSpec], key).toEqual(value);
  }
  for (const [key, value] of Object.entries(port)) {
    expect(changed.spec?.ports?.[0]?.[key as "nodePort"], key).toEqual(value);
  }
});
