// Servers reach each other's nodes: a node whose tunnel ends at another server, and the node of that server itself.
import { afterEach, expect, test, vi } from "vitest";
import { Metrics } from "#base/metrics.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { systemClock } from "#platform/clock.ts";
import type { Duplex, HttpsServer } from "#platform/https-server.ts";
import { createNodeTunnel } from "./node-tunnel.ts";
import { type EgressMode, egressLabel } from "./tunnel/egress.ts";
import { nodeHeader, reach, TunnelRig, testDeps, testTls as tls, until } from "./tunnel/rig.fixture.ts";
import { createTunnels, type Tunnels } from "./tunnels.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const rig = new TunnelRig();
afterEach(() => rig.close());

interface Server {
  readonly tunnels: Tunnels;
  readonly door: HttpsServer;
  readonly address: string;
}

interface Known {
  readonly nodes: readonly Node[];
  readonly pods?: readonly Pod[];
}

async function server(
  nodeName: string,
  known: Known,
  { peerToken, mode = "agent" }: { readonly peerToken?: string; readonly mode?: EgressMode } = {},
): Promise<Server> {
  const tunnels = createTunnels(
    { mode, nodeName, ...(peerToken === undefined ? {} : { peerToken }) },
    { ...testDeps, metrics: new Metrics() },
  );
  const door = await rig.door(tunnels);
  const store = (list: readonly (Node | Pod)[]) => {
    const keys = new Map<string, (one: Node | Pod) => readonly string[]>();
    return {
      get: (name: string) => list.find(({ metadata }) => metadata.name === name),
      byIndex: (index: string, key: string) => list.filter((one) => keys.get(index)?.(one).includes(key)),
      addIndex: (index: string, of: (one: Node | Pod) => readonly string[]) => void keys.set(index, of),
    };
  };
  const informer = ({ plural }: { readonly plural: string }) =>
    store(plural === "nodes" ? known.nodes : (known.pods ?? []));
  tunnels.watch({ informer } as unknown as InformerFactory);
  return { tunnels, door, address: `127.0.0.1:${door.port}` };
}

/** A node API that says who it is. */
const nodeApi = (name: string): Promise<number> => rig.listen((socket) => void socket.end(name));

const nodeOf = (name: string, port: number, more: { readonly address?: string; readonly isOpen?: true } = {}): Node =>
  ({
    metadata: { name, labels: more.isOpen ? { [egressLabel]: "true" } : {} },
    status: {
      addresses: more.address === undefined ? [] : [{ type: "InternalIP", address: more.address }],
      daemonEndpoints: { kubeletEndpoint: { Port: port } },
    },
  }) as Node;

const textOf = (stream: Duplex): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = "";
    stream.on("data", (data: Buffer) => {
      text += data.toString();
    });
    stream.once("end", () => resolve(text));
    stream.once("error", reject);
  });

const textFrom = async (from: Tunnels, host: string, port: number): Promise<string> =>
  textOf(await reach(() => from.connect(host, port)));

test("a node whose tunnel ends at another server is reached through that one", async () => {
  const port = await nodeApi("leaf");
  const known = { nodes: [nodeOf("leaf", port)] };
  const [a, b] = [await server("a", known, { peerToken: "secret" }), await server("b", known, { peerToken: "secret" })];
  rig.run(b.tunnels.relay({ address: a.address, own: b.address, hasNode: true, tls }));
  const target = { host: "127.0.0.1", port: b.door.port };
  const rules = { mode: "agent", nodeApiPort: port, nodeAddresses: [], clusterCidrs: [], pods: () => [] } as const;
  // A node has no say in what it is called; here the header has.
  rig.run(createNodeTunnel({ ...target, tls, rules, headers: { [nodeHeader]: "leaf" } } as never, testDeps));
  expect(await textFrom(b.tunnels, "leaf", port)).toBe("leaf");
  expect(await textFrom(a.tunnels, "leaf", port)).toBe("leaf");
});

test("the node of another server is reached, at its node API alone", async () => {
  const known = { nodes: [nodeOf("b", 10250)] };
  const [a, b] = [await server("a", known, { peerToken: "secret" }), await server("b", known, { peerToken: "secret" })];
  rig.run(b.tunnels.relay({ address: a.address, own: b.address, hasNode: true, tls }));
  const port = await nodeApi("something else");
  const stream = await reach(() => a.tunnels.connect("b", port));
  await expect(textOf(stream)).rejects.toThrow(/connect not allowed/);
});

test("who does not know the secret is no server", async () => {
  const known = { nodes: [nodeOf("b", 10250)] };
  const [a, b] = [
    await server("a", known, { peerToken: "secret" }),
    await server("b", known, { peerToken: "another" }),
  ];
  rig.run(b.tunnels.relay({ address: a.address, own: b.address, hasNode: true, tls }));
  await systemClock.sleep(300);
  expect(a.tunnels.connect("b", 10250)).toBeUndefined();
});

test.each<[EgressMode, string]>([
  // A node's own API by its name and its address; a pod there; another port of the node. `plainly`: no tunnel is used. In the mode pod
  // a server asks for other ports of a node that takes more than its own API, and the node refuses, as in k3s.
  ["agent", "leaf leaf plainly plainly"],
  ["pod", "leaf leaf pod refused"],
  ["cluster", "leaf leaf pod other"],
  ["disabled", "plainly plainly plainly plainly"],
])("mode %s, over a real tunnel: %s", async (mode, wanted) => {
  // Addresses of this host alone, which stand for a node and a pod far away.
  const [nodeAddress, podAddress] = ["127.0.0.3", "127.0.0.4"];
  const port = await nodeApi("leaf");
  const [podPort, otherPort] = [
    await rig.listen((socket) => void socket.end("pod"), podAddress),
    await rig.listen((socket) => void socket.end("other"), nodeAddress),
  ];
  const pods = [
    {
      metadata: { name: "web", namespace: "default" },
      spec: { nodeName: "leaf", containers: [] },
      status: { phase: "Running", podIP: podAddress, podIPs: [{ ip: podAddress }] },
    },
  ] as unknown as readonly Pod[];
  const known = { nodes: [nodeOf("leaf", port, { address: nodeAddress, isOpen: true })], pods };
  const hub = await server("hub", known, { mode });
  // The node lets happen what its mode says, which is the cluster's.
  const rules = {
    ...{ mode, nodeApiPort: port, nodeAddresses: [nodeAddress], clusterCidrs: [`${podAddress}/32`], pods: () => pods },
  };
  const target = { host: "127.0.0.1", port: hub.door.port };
  const client = createNodeTunnel({ ...target, tls, rules, headers: { [nodeHeader]: "leaf" } } as never, testDeps);
  rig.run(client);
  await until(() => client.isConnected);
  if (mode !== "disabled") (await reach(() => hub.tunnels.connect("leaf", port))).destroy();
  const found: string[] = [];
  for (const [host, to] of [
    ["leaf", port],
    [nodeAddress, port],
    [podAddress, podPort],
    [nodeAddress, otherPort],
  ] as const) {
    const stream = hub.tunnels.connect(host, to);
    found.push(stream ? await textOf(stream).catch(() => "refused") : "plainly");
  }
  expect(found.join(" ")).toBe(wanted);
});

test("a node lets nobody dial more than its mode says, whatever the server thinks", async () => {
  const [port, podPort] = [await nodeApi("leaf"), await rig.listen((socket) => void socket.end("pod"), "127.0.0.4")];
  const pod = { metadata: {}, spec: { nodeName: "leaf" }, status: { podIPs: [{ ip: "127.0.0.4" }] } } as unknown as Pod;
  const known = { nodes: [nodeOf("leaf", port, { isOpen: true })], pods: [pod] };
  const hub = await server("hub", known, { mode: "cluster" });
  const rules = { mode: "agent", nodeApiPort: port, nodeAddresses: [], clusterCidrs: [], pods: () => [] } as const;
  const target = { host: "127.0.0.1", port: hub.door.port };
  rig.run(createNodeTunnel({ ...target, tls, rules, headers: { [nodeHeader]: "leaf" } } as never, testDeps));
  const stream = await reach(() => hub.tunnels.connect("127.0.0.4", podPort));
  await expect(textOf(stream)).rejects.toThrow("connect not allowed");
  expect(await textFrom(hub.tunnels, "leaf", port)).toBe("leaf");
});
