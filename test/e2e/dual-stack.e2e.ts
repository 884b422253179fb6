// A cluster of two nodes with both address families: ranges, addresses of nodes and pods, a service and DNS over each, and
// pods of two nodes that meet over IPv6.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Node, Pod, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { closeHosts, connectHosts, eventually, Host } from "./host.ts";

const hub = new Host("dual-hub", "192.168.77.2");
const leaf = new Host("dual-leaf", "192.168.77.3");
const nodes = [
  { host: hub, name: "hub", address6: "fd77::2" },
  { host: leaf, name: "leaf", address6: "fd77::3" },
] as const;
const ranges = ["--cluster-cidr", "10.42.0.0/16,fd00:42::/56", "--service-cidr", "10.43.0.0/16,fd00:43::/112"];
async function ip(host: Host, line: string): Promise<void> {
  expect(await host.exec("ip", line.split(" "))).toMatchObject({ code: 0 });
}

const get = async <T>(what: string): Promise<T> => JSON.parse(await hub.kubectl(`get ${what} -o json`)) as T;
const sh = async (pod: string, line: string) => (await hub.kubectl(["exec", pod, "--", "sh", "-c", line])).trim();
const literal = (host: string) => (host.includes(":") ? `[${host}]` : host);
const fetch = (from: string, host: string) => sh(from, `wget -T 3 -q -O - http://${literal(host)}/cgi-bin/who`);
const podIps = async (name: string) => (await get<Pod>(`pod ${name}`)).status?.podIPs?.map((one) => one.ip ?? "") ?? [];

const script = `mkdir -p /tmp/w/cgi-bin; cd /tmp/w
  printf '#!/bin/sh\\necho; echo $(hostname) saw $REMOTE_ADDR | tr -d [] | sed s/::ffff://\\n' > cgi-bin/who; chmod +x cgi-bin/who
  exec httpd -f -p 80 -h /tmp/w`;
const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });
const podOn = (nodeName: string) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: `on-${nodeName}`, labels: { app: "who", on: nodeName } },
  spec: {
    nodeName,
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: "who",
        image: "mote.local/busybox:1",
        command: ["sh", "-c", script],
        env: [field("POD_IPS", "status.podIPs"), field("HOST_IPS", "status.hostIPs")],
        readinessProbe: { tcpSocket: { port: 80 }, periodSeconds: 1 },
      },
    ],
  },
});
const service = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "who" },
  spec: {
    type: "NodePort",
    ipFamilyPolicy: "RequireDualStack",
    selector: { app: "who", on: "leaf" },
    ports: [{ name: "http", port: 80 }],
  },
};

beforeAll(async () => {
  for (const { host } of nodes) await host.open();
  await connectHosts(hub, leaf);
  for (const { host, address6 } of nodes) {
    await ip(host, `addr add ${address6}/64 dev eth0 nodad`);
    await ip(host, "-6 route add default via fd77::1 dev eth0");
  }
  hub.start(["server", "--node-name", "hub", "--write-kubeconfig", hub.kubeconfig, ...ranges]);
  await eventually("/readyz", 60_000, async () => (await hub.kubectl("get --raw /readyz")) === "ok");
  const token = readFileSync(`${hub.dataDir}/server/token`, "utf8").trim();
  leaf.start(["agent", "--node-name", "leaf", "--server", `https://${hub.address}:6443`, "--token", token]);
  const items = [...nodes.map(({ name }) => podOn(name)), service];
  const apply = () => hub.kubectl("apply -f -", { input: JSON.stringify({ apiVersion: "v1", kind: "List", items }) });
  await eventually("the leaf has joined", 60_000, async () => (await hub.kubectl("get node leaf")) !== "");
  await eventually("the account of pods", 30_000, apply);
  await hub.kubectl("wait --for=condition=Ready pod/on-hub pod/on-leaf --timeout=180s");
  for (const { name } of nodes) {
    const health = `get --raw /api/v1/nodes/${name}/proxy/healthz`;
    await eventually(`the node API of ${name}`, 30_000, async () => (await hub.kubectl(health)) === "ok");
  }
});

afterAll(() => closeHosts(leaf, hub));

test("nodes and pods have an address of each family, and are told so", async () => {
  for (const { host, name, address6 } of nodes) {
    const node = await get<Node>(`node ${name}`);
    const internal = node.status?.addresses?.filter(({ type }) => type === "InternalIP").map(({ address }) => address);
    expect(internal).toEqual([host.address, address6]);
    expect(node.spec?.podCIDRs).toEqual([
      expect.stringMatching(/^10\.42\.\d+\.0\/24$/),
      expect.stringMatching(/^fd00:42:.*\/64$/),
    ]);
    const pod = await get<Pod>(`pod on-${name}`);
    const ips = pod.status?.podIPs?.map((one) => one.ip);
    expect(ips).toEqual([expect.stringMatching(/^10\.42\./), expect.stringMatching(/^fd00:42:/)]);
    expect(pod.status).toMatchObject({ podIP: ips?.[0], hostIPs: [{ ip: host.address }, { ip: address6 }] });
    expect(await sh(`on-${name}`, "echo $POD_IPS $HOST_IPS")).toBe(`${ips?.join(",")} ${host.address},${address6}`);
    const hosts = await sh(`on-${name}`, "cat /etc/hosts");
    for (const one of ips ?? []) expect(hosts).toContain(`${one}\ton-${name}`);
    expect(await sh(`on-${name}`, "grep nameserver /etc/resolv.conf")).toBe(
      "nameserver 10.43.0.10\nnameserver fd00:43::a",
    );
  }
});

test("pods of two nodes meet over each family, under their own addresses", async () => {
  const [onHub, onLeaf] = [await podIps("on-hub"), await podIps("on-leaf")];
  for (const family of [0, 1]) {
    const [from, to] = [onHub[family]!, onLeaf[family]!];
    await eventually(to, 30_000, async () => (await fetch("on-hub", to)) === `on-leaf saw ${from}`);
    expect(await fetch("on-leaf", from)).toBe(`on-hub saw ${to}`);
  }
});

test("a service answers over each family: in pods, on nodes, by node ports, and by name", async () => {
  const { spec } = await get<Service>("service who");
  expect(spec).toMatchObject({ ipFamilies: ["IPv4", "IPv6"] });
  const ips = spec.clusterIPs ?? [];
  expect(ips).toEqual([expect.stringMatching(/^10\.43\./), expect.stringMatching(/^fd00:43::/)]);
  const onLeaf = await podIps("on-leaf");
  const wantedSlices = JSON.stringify([
    ["IPv4", onLeaf[0]],
    ["IPv6", onLeaf[1]],
  ]);
  await eventually(`slices ${wantedSlices}`, 30_000, async () => {
    const { items } = await get<{ items: EndpointSlice[] }>("endpointslices -l kubernetes.io/service-name=who");
    const found = items.map(({ addressType, endpoints }) => [addressType, endpoints[0]?.addresses[0]]);
    return JSON.stringify(found.sort()) === wantedSlices;
  });
  const onHub = await podIps("on-hub");
  for (const [i, clusterIp] of ips.entries()) {
    // Its own address is kept from a pod, also where the endpoint is on another node.
    await eventually(clusterIp, 30_000, async () => (await fetch("on-hub", clusterIp)) === `on-leaf saw ${onHub[i]}`);
    // To itself the answer comes back through the node. What one node knows already the other may learn a moment later.
    await eventually(clusterIp, 30_000, async () => /^on-leaf saw /.test(await fetch("on-leaf", clusterIp)));
  }
  const port = spec.ports?.[0]?.nodePort;
  for (const address of [hub.address, nodes[0].address6]) {
    // From one machine to the port of another that does not run the pod.
    const url = `http://${literal(address)}:${port}/cgi-bin/who`;
    const answer = async () => (await leaf.exec("curl", ["-gsS", "-m", "5", url])).stdout;
    await eventually(url, 30_000, async () => /^on-leaf saw /.test(await answer()));
  }
  const ask = `const resolver = new (require("node:dns").promises.Resolver)();
    resolver.setServers(["[fd00:43::a]:53"]);
    const name = "who.default.svc.cluster.local";
    Promise.all([resolver.resolve4(name), resolver.resolve6(name), resolver.reverse(process.argv[1])])
      .then((answers) => console.log(JSON.stringify(answers.flat())));`;
  const wanted = JSON.stringify([...ips, "who.default.svc.cluster.local"]);
  const answer = async () => (await leaf.exec(process.execPath, ["-e", ask, ips[1] ?? ""])).stdout.trim();
  await eventually("the leaf's DNS", 30_000, async () => (await answer()) === wanted);
});
