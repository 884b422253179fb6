// A server with its node, an agent and a machine that runs no mote, each with a network of its own and wires between: pods,
// services and DNS across nodes with real packets, over VXLAN and, after a change of the server's flag, over plain routes; and
// a node that is flannel's.
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Node, Pod, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { closeHosts, connectHosts, eventually, Host, type Output } from "./host.ts";

const hub = new Host("hub", "192.168.77.2");
const leaf = new Host("leaf", "192.168.77.3");
/** Runs no mote. */
const guest = new Host("guest", "192.168.77.5");
const nodes = [
  [hub, "hub"],
  [leaf, "leaf"],
] as const;

const agentArgs = ["agent", "--node-name", "leaf", "--server", `https://${hub.address}:6443`];

async function startBoth(...flags: string[]): Promise<void> {
  hub.start(["server", "--node-name", "hub", "--write-kubeconfig", hub.kubeconfig, ...flags]);
  const tokenFile = `${hub.dataDir}/server/token`;
  await eventually("/readyz", 60_000, async () => (await hub.kubectl("get --raw /readyz")) === "ok");
  const token = readFileSync(tokenFile, "utf8").trim();
  leaf.start([...agentArgs, "--token", token]);
  for (const [, name] of nodes) {
    const isReady = async () => / Ready /.test(await hub.kubectl(`get node ${name} --no-headers`));
    await eventually(`${name} is Ready`, 60_000, isReady);
  }
}

// What there is

const script = `mkdir -p /tmp/w/cgi-bin; cd /tmp/w; dd if=/dev/zero of=big bs=1024 count=300 2>/dev/null
  printf '#!/bin/sh\\necho; echo $(hostname) saw $REMOTE_ADDR | tr -d [] | sed s/::ffff://\\n' > cgi-bin/who; chmod +x cgi-bin/who
  exec httpd -f -p 80 -h /tmp/w`;
const pod = (name: string, nodeName: string, labels: Record<string, string>, spec: Partial<Pod["spec"]> = {}) => ({
  ...{ apiVersion: "v1", kind: "Pod", metadata: { name, labels } },
  spec: {
    nodeName,
    terminationGracePeriodSeconds: 1,
    ...spec,
    containers: [
      {
        ...{ name: "who", image: "mote.local/busybox:1", command: ["sh", "-c", script] },
        readinessProbe: { tcpSocket: { port: 80 }, periodSeconds: 1 },
        ...spec.containers?.[0],
      },
    ],
  },
});
const service = (name: string, selector: Record<string, string>, spec: Partial<Service["spec"]> = {}) => ({
  ...{ apiVersion: "v1", kind: "Service", metadata: { name } },
  spec: { type: "NodePort", selector, ports: [{ port: 80 }], ...spec },
});
const both = { app: "who" };
const items = [
  pod("on-hub", "hub", { ...both, on: "hub" }),
  pod("on-leaf", "leaf", { ...both, on: "leaf", udp: "1" }),
  service("on-hub", { on: "hub" }),
  service("on-leaf", { on: "leaf" }),
  service("here", { on: "leaf" }, { type: "ClusterIP", internalTrafficPolicy: "Local" }),
  service("sticky", both, {
    sessionAffinity: "ClientIP",
    sessionAffinityConfig: { clientIP: { timeoutSeconds: 1 } },
  }),
  service(
    "outside",
    { on: "leaf" },
    {
      ...{ type: "LoadBalancer", externalTrafficPolicy: "Local", externalIPs: ["192.0.2.81"] },
    },
  ),
  service("close", both, { type: "ClusterIP", trafficDistribution: "PreferClose" }),
  service("udp", { udp: "1" }, { ports: [{ port: 53, targetPort: 5353, protocol: "UDP" }] }),
  service("ending", { on: "ending" }),
];

const apply = (...all: readonly object[]) =>
  hub.kubectl("apply -f -", { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: all }) });
const get = async <T>(what: string): Promise<T> => JSON.parse(await hub.kubectl(`get ${what} -o json`)) as T;
const nodePortOf = async (name: string) => (await get<Service>(`service ${name}`)).spec.ports?.[0]?.nodePort;
const clusterIpOf = async (name: string) => (await get<Service>(`service ${name}`)).spec.clusterIP ?? "";
const ipOf = (name: string) => hub.kubectl(["get", "pod", name, "-o", "jsonpath={.status.podIP}"]);
const must = async (host: Host, line: string): Promise<string> => {
  const { code, stdout, stderr } = await host.exec("sh", ["-c", line]);
  if (code !== 0) throw new Error(`${line}: ${stderr}`);
  return stdout;
};

// Who asks

/** A host, or a pod by its network: much sooner than by kubectl. */
interface Asker {
  exec(program: string, args: readonly string[]): Promise<Output>;
}
async function podNetwork(name: string): Promise<Asker & { readonly file: string }> {
  const link = await hub.kubectl(["exec", name, "--", "readlink", "/proc/self/ns/net"]);
  const inode = Number(/\d+/.exec(link)?.[0]);
  const file = readdirSync("/run/netns").find((one) => statSync(`/run/netns/${one}`).ino === inode);
  if (file === undefined) throw new Error(`${name} has no network that can be found`);
  return {
    file: `/run/netns/${file}`,
    exec: (program, args) => hub.exec("nsenter", [`--net=/run/netns/${file}`, program, ...args]),
  };
}

/** Who answers, and whom he saw; "" where nobody does. */
async function ask(from: Asker, host: string, port = 80): Promise<string> {
  const { stdout } = await from.exec("curl", ["-s", "-m", "2", `http://${host}:${port}/cgi-bin/who`]);
  return stdout.trim();
}
const bigFrom = async (from: Asker, host: string): Promise<string> =>
  (await from.exec("curl", ["-s", "-m", "20", "-o", "/dev/null", "-w", "%{size_download}", `http://${host}/big`]))
    .stdout;

const sh = async (name: string, line: string) => (await hub.kubectl(["exec", name, "--", "sh", "-c", line])).trim();
const fetchByName = (from: string, host: string) => sh(from, `wget -T 3 -q -O - http://${host}/cgi-bin/who`);

const background: ChildProcess[] = [];
/** Runs until the end of the tests. */
function keep(network: string, code: string, ...args: string[]): void {
  background.push(spawn("nsenter", [`--net=${network}`, process.execPath, "-e", code, ...args], { stdio: "ignore" }));
}
const guestScript = `require("http").createServer((request, response) => {
  response.end("guest saw " + request.socket.remoteAddress.replace("::ffff:", ""));
}).listen(80, "::");`;
const udpServerScript = `const socket = require("dgram").createSocket("udp4");
socket.on("message", (_, from) => socket.send(process.argv[1], from.port, from.address)).bind(5353);`;
/** From one port, so that what the kernel remembers of the flow counts. */
const udpScript = `const socket = require("dgram").createSocket("udp4");
const end = (said) => { console.log(said); socket.close(); clearTimeout(timer); };
const timer = setTimeout(() => end("nobody"), 1000);
socket.on("message", (said) => end(String(said))).on("error", (error) => end(error.code));
socket.bind(5555, () => socket.connect(53, process.argv[1], () => socket.send("x")));`;

let onHub: Asker;
let onLeaf: Asker;
/** Of pods, and of their nodes' devices and bridges. */
const ip = { onHub: "", onLeaf: "", hubDevice: "", leafDevice: "", leafBridge: "" };

beforeAll(async () => {
  for (const host of [hub, leaf, guest]) await host.open();
  await connectHosts(hub, leaf);
  // What is for the leaf must not come by the hub, whose bridge would take it for its own.
  await connectHosts(leaf, guest, "wire-guest");
  await startBoth();
  await eventually("the account of pods", 30_000, () => hub.kubectl("get serviceaccount default"));
  await hub.kubectl("label node hub topology.kubernetes.io/zone=a");
  await hub.kubectl("label node leaf topology.kubernetes.io/zone=b");
  await apply(...items);
  await hub.kubectl("wait --for=condition=Ready pod/on-hub pod/on-leaf --timeout=180s");
  const status = { status: { loadBalancer: { ingress: [{ ip: "192.0.2.80" }] } } };
  await hub.kubectl(["patch", "service", "outside", "--subresource=status", "-p", JSON.stringify(status)]);
  const networks = await eventually("commands in pods", 30_000, () =>
    Promise.all([podNetwork("on-hub"), podNetwork("on-leaf")]),
  );
  [onHub, onLeaf] = networks;
  keep(`/run/netns/${guest.name}`, guestScript);
  keep(networks[0].file, udpServerScript, "on-hub");
  keep(networks[1].file, udpServerScript, "on-leaf");
  Object.assign(ip, { onHub: await ipOf("on-hub"), onLeaf: await ipOf("on-leaf") });
  ip.hubDevice = ip.onHub.replace(/\d+$/, "0");
  ip.leafDevice = ip.onLeaf.replace(/\d+$/, "0");
  ip.leafBridge = ip.onLeaf.replace(/\d+$/, "1");
  expect(ip.hubDevice).not.toBe(ip.leafDevice);
});

afterAll(async () => {
  for (const child of background) child.kill("SIGKILL");
  await closeHosts(leaf, hub, guest);
});

async function everybodyMeets(client: Host): Promise<void> {
  // By address, and seen under its own.
  const meets = (from: Asker, to: string, expected: string) =>
    eventually(expected, 30_000, async () => (await ask(from, to)) === expected);
  await meets(onHub, ip.onLeaf, `on-leaf saw ${ip.onHub}`);
  await meets(onLeaf, ip.onHub, `on-hub saw ${ip.onLeaf}`);
  // By name: DNS and service addresses on both nodes. Where the node has just started again its API may come a moment later.
  const byName = (from: string, to: string, expected: string) =>
    eventually(expected, 30_000, async () => (await fetchByName(from, to)) === expected);
  await byName("on-hub", "on-leaf", `on-leaf saw ${ip.onHub}`);
  await byName("on-leaf", "on-hub.default.svc.cluster.local", `on-hub saw ${ip.onLeaf}`);
  // From a machine, by the port of a node that does not run the pod.
  const nodePort = await nodePortOf("on-leaf");
  await eventually("by the node's port", 30_000, async () =>
    /^on-leaf saw /.test(await ask(client, hub.address, nodePort)),
  );
}

test("over VXLAN", async () => {
  await everybodyMeets(leaf);
  const { stdout } = await leaf.exec("ip", ["-d", "link", "show", "flannel.1"]);
  expect(stdout).toMatch(/vxlan id 1 .*dstport 8472 nolearning/);
});

test("who is seen by whom: addresses are kept where Kubernetes says so, and hidden elsewhere", async () => {
  const { spec } = await get<Service>("service outside");
  const local = spec.ports?.[0]?.nodePort;
  const port = await nodePortOf("on-leaf");
  const [cluster, here] = [await clusterIpOf("on-leaf"), await clusterIpOf("here")];
  for (const address of ["192.0.2.80", "192.0.2.81"]) await must(guest, `ip route add ${address} via ${leaf.address}`);
  const seen = (who: string) => `on-leaf saw ${who}`;
  const cases: readonly [string, Asker, string, number | undefined, string][] = [
    ["a pod, by a service's address", onHub, cluster, 80, seen(ip.onHub)],
    ["a pod, by its own service", onLeaf, cluster, 80, seen(ip.leafBridge)],
    ["a pod, by its own service and the other node's port", onLeaf, hub.address, port, seen(ip.hubDevice)],
    ["a node, by a service's address", hub, cluster, 80, seen(ip.hubDevice)],
    ["a node, by its own port", hub, "127.0.0.1", port, seen(ip.hubDevice)],
    ["a machine, by the port of a node without the pod", guest, hub.address, port, seen(ip.hubDevice)],
    ["a machine, by the port of the pod's node", guest, leaf.address, port, seen(ip.leafBridge)],
    ["policy Local: a machine, by the port of the pod's node", guest, leaf.address, local, seen(guest.address)],
    ["policy Local: a machine, by the port of a node without the pod", guest, hub.address, local, ""],
    ["policy Local: a pod, by the port of its own node", onHub, hub.address, local, seen(ip.onHub)],
    ["a balancer's address: a machine", guest, "192.0.2.80", 80, seen(guest.address)],
    ["a balancer's address: a pod of the other node", onHub, "192.0.2.80", 80, seen(ip.onHub)],
    ["a balancer's address: the other node", hub, "192.0.2.80", 80, seen(ip.hubDevice)],
    ["an external address: a machine", guest, "192.0.2.81", 80, seen(guest.address)],
    ["an external address: a pod of the other node", onHub, "192.0.2.81", 80, seen(ip.onHub)],
    ["internal policy Local: a pod of the same node", onLeaf, here, 80, seen(ip.leafBridge)],
    ["internal policy Local: a pod of the other node", onHub, here, 80, ""],
    ["a pod, outside of the cluster", onLeaf, guest.address, 80, `guest saw ${leaf.address}`],
  ];
  const wrong: string[] = [];
  for (const [what, from, host, to, expected] of cases) {
    try {
      await eventually(what, 10_000, async () => (await ask(from, host, to)) === expected);
    } catch {
      wrong.push(`${what}: "${await ask(from, host, to)}" instead of "${expected}"`);
    }
  }
  expect(wrong).toEqual([]);
});

test("what balancers outside ask nodes", async () => {
  const { spec } = await get<Service>("service outside");
  const status = async (host: Host, port: number | undefined, path: string): Promise<string> => {
    const args = ["-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", `http://${host.address}:${port}${path}`];
    return (await guest.exec("curl", args)).stdout;
  };
  const asked = async () => [
    await status(leaf, spec.healthCheckNodePort, "/"),
    await status(hub, spec.healthCheckNodePort, "/"),
    await status(leaf, 10_256, "/healthz"),
    await status(hub, 10_256, "/livez"),
  ];
  const expected = ["200", "503", "200", "200"];
  await eventually(expected.join(), 30_000, async () => (await asked()).join() === expected.join());
});

test("clients stay in their zone by trafficDistribution", async () => {
  const address = await clusterIpOf("close");
  for (const [from, expected] of [
    [onHub, "on-hub"],
    [onLeaf, "on-leaf"],
  ] as const) {
    // By chance it would be one of 65,536.
    await eventually(`${expected} alone`, 10_000, async () => {
      const answers = await Promise.all(Array.from({ length: 16 }, () => ask(from, address)));
      return answers.every((answer) => answer.startsWith(`${expected} `));
    });
  }
});

test("a client comes back to the same pod, until it has been away for long enough", async () => {
  const address = await clusterIpOf("sticky");
  const who = async () => (await ask(onHub, address)).split(" ")[0] ?? "";
  await eventually("sticky answers", 30_000, async () => (await who()) !== "");
  let before = { name: "", atMs: Number.NEGATIVE_INFINITY };
  for (let i = 0; i < 15; i++) {
    const startedMs = performance.now();
    const name = await who();
    // On a slow machine a second may have passed.
    if (performance.now() - before.atMs < 950) expect(name).toBe(before.name);
    before = { name, atMs: startedMs };
  }
  const seen = new Set<string>();
  await eventually("after a pause the other", 60_000, async () => {
    await new Promise((resolve) => setTimeout(resolve, 1300));
    const name = await who();
    if (name !== "") seen.add(name);
    return seen.size === 2;
  });
});

test("UDP flows leave an endpoint that has gone, on every node", async () => {
  const address = await clusterIpOf("udp");
  const who = async (from: Host) => (await from.exec(process.execPath, ["-e", udpScript, address])).stdout.trim();
  for (const host of [hub, leaf]) await eventually("on-leaf", 30_000, async () => (await who(host)) === "on-leaf");
  await hub.kubectl("label pod on-hub udp=1");
  await hub.kubectl("label pod on-leaf udp-");
  for (const host of [hub, leaf]) await eventually("on-hub", 10_000, async () => (await who(host)) === "on-hub");
});

test("a pod that is ending serves as long as there is no other", async () => {
  const preStop = { exec: { command: ["sleep", "120"] } };
  const container = { name: "who", lifecycle: { preStop } };
  const spec = { terminationGracePeriodSeconds: 120, containers: [container] };
  await apply(pod("ending", "leaf", { on: "ending" }, spec));
  await hub.kubectl("wait --for=condition=Ready pod/ending --timeout=180s");
  const [address, port] = [await clusterIpOf("ending"), await nodePortOf("ending")];
  const answers = async (): Promise<boolean> => {
    const all = await Promise.all([ask(onHub, address), ask(hub, address), ask(guest, hub.address, port)]);
    return all.every((answer) => answer.startsWith("ending saw "));
  };
  await eventually("it serves", 30_000, answers);
  await hub.kubectl("delete pod ending --wait=false");
  await eventually("it is known to be ending", 30_000, async () => {
    const { items: slices } = await get<{ items: EndpointSlice[] }>(
      "endpointslices -l kubernetes.io/service-name=ending",
    );
    return slices[0]?.endpoints[0]?.conditions?.terminating === true;
  });
  for (let i = 0; i < 3; i++) await eventually("it serves still", 10_000, answers);
  await hub.kubectl("delete pod ending --force --grace-period=0");
  await eventually(
    "refused",
    30_000,
    async () => (await hub.exec("curl", ["-s", "-m", "2", `http://${address}/`])).code === 7,
  );
});

test("a narrower network is found out, and a slow one carries all the same", async () => {
  const mtuOf = async (name: string) =>
    (await get<Node>(`node ${name}`)).metadata.annotations?.["mote.local/overlay-mtu"];
  expect(await mtuOf("leaf")).toBe("1450");
  await must(leaf, "ip link set wire mtu 1400; ip link set eth0 mtu 1400");
  await eventually("the leaf says so", 30_000, async () => (await mtuOf("leaf")) === "1350");
  const route = () => must(hub, `ip route show ${ip.leafDevice}/24`);
  await eventually("the hub heeds it", 30_000, async () => (await route()).includes("mtu 1350"));
  for (const host of [hub, leaf])
    await must(host, "tc qdisc replace dev wire root tbf rate 4mbit burst 8kb latency 400ms");
  for (const [from, to] of [
    [onHub, ip.onLeaf],
    [onLeaf, ip.onHub],
  ] as const)
    await eventually("300 KiB", 30_000, async () => (await bigFrom(from, to)) === "307200");
  for (const host of [hub, leaf]) await must(host, "tc qdisc del dev wire root");
  await must(leaf, "ip link set wire mtu 1500; ip link set eth0 mtu 1500");
  await eventually("wide again", 30_000, async () => !(await route()).includes("mtu"));
});

test("a node of flannel's: pods meet both ways; it moves, and goes", async () => {
  const prefix = "flannel.alpha.coreos.com/";
  const mac = "3e:11:22:33:44:55";
  const node = (publicIp: string) => ({
    ...{ apiVersion: "v1", kind: "Node" },
    metadata: {
      name: "flannels",
      annotations: {
        [`${prefix}backend-data`]: `{"VNI":1,"VtepMAC":"${mac}"}`,
        [`${prefix}backend-type`]: "vxlan",
        [`${prefix}kube-subnet-manager`]: "true",
        [`${prefix}public-ip`]: publicIp,
      },
    },
    spec: { podCIDR: "10.42.77.0/24", podCIDRs: ["10.42.77.0/24"] },
  });
  // What flannel does with what ours say, word by word.
  const lines = [
    `ip link add flannel.1 address ${mac} mtu 1450 type vxlan id 1 local ${guest.address} dev eth0 dstport 8472 nolearning`,
    "ip addr add 10.42.77.0/32 dev flannel.1; ip link set flannel.1 up; ip addr add 10.42.77.2/32 dev lo",
  ];
  for (const [host, name] of nodes) {
    const { metadata, spec } = await get<Node>(`node ${name}`);
    const of = (what: string) => metadata.annotations?.[prefix + what] ?? "";
    const { VtepMAC, ...rest } = JSON.parse(of("backend-data")) as { VtepMAC: string };
    const device = JSON.parse(await must(host, "ip -j link show flannel.1")) as [{ address: string }];
    expect([of("backend-type"), of("kube-subnet-manager"), of("public-ip")]).toEqual(["vxlan", "true", host.address]);
    expect([of("backend-data"), rest]).toEqual([`{"VNI":1,"VtepMAC":"${device[0].address}"}`, { VNI: 1 }]);
    expect(metadata.annotations).not.toHaveProperty([`${prefix}backend-v6-data`]);
    const range = spec?.podCIDR ?? "";
    const gateway = range.replace(/\/.*/, "");
    lines.push(
      `ip neigh add ${gateway} lladdr ${VtepMAC} dev flannel.1 nud permanent`,
      `bridge fdb add ${VtepMAC} dev flannel.1 dst ${of("public-ip")}`,
      `ip route add ${range} via ${gateway} dev flannel.1 onlink`,
    );
  }
  await must(guest, `set -e\n${lines.join("\n")}`);
  const meet = async (): Promise<void> => {
    for (const [from, name, own] of [
      [onHub, "on-hub", ip.onHub],
      [onLeaf, "on-leaf", ip.onLeaf],
    ] as const) {
      await eventually(
        `${name} asks flannel's pod`,
        30_000,
        async () => (await ask(from, "10.42.77.2")) === `guest saw ${own}`,
      );
      const args = ["-s", "-m", "2", "--interface", "10.42.77.2", `http://${own}/cgi-bin/who`];
      const back = async () => (await guest.exec("curl", args)).stdout.trim();
      await eventually(`flannel's pod asks ${name}`, 30_000, async () => (await back()) === `${name} saw 10.42.77.2`);
    }
  };
  await apply(node(guest.address));
  await meet();

  await must(guest, `ip addr add 192.168.77.6/24 dev eth0; ip link set flannel.1 type vxlan id 1 local 192.168.77.6`);
  await must(guest, `ip addr del ${guest.address}/24 dev eth0; ip addr replace 192.168.77.6/24 dev eth0`);
  await apply(node("192.168.77.6"));
  await meet();

  const left = async (host: Host) => must(host, "ip route; ip neigh show dev flannel.1; bridge fdb show dev flannel.1");
  for (const [host] of nodes) expect(await left(host)).toMatch(/10\.42\.77\.0[\s\S]*3e:11:22:33:44:55/);
  await hub.kubectl("delete node flannels");
  for (const [host] of nodes) {
    const isGone = async () => !/10\.42\.77\.|3e:11:22:33:44:55|192\.168\.77\.6/.test(await left(host));
    await eventually("nothing of it is left", 30_000, isGone);
  }
});

test("without server and agent packets go on", async () => {
  await leaf.stop();
  await hub.stop();
  const expected = `on-leaf saw ${ip.hubDevice}`;
  await eventually(expected, 10_000, async () => (await ask(hub, ip.onLeaf)) === expected);
});

test("after a change to host-gw the same pods meet over plain routes", async () => {
  await startBoth("--flannel-backend", "host-gw");
  await eventually("the agent knows", 60_000, async () =>
    leaf.programLog().includes("the cluster's settings have changed"),
  );
  await leaf.stop();
  leaf.start(agentArgs);
  await eventually("the device has gone", 60_000, async () => {
    const links = await Promise.all(nodes.map(([host]) => host.exec("ip", ["-br", "link"])));
    return links.every(({ stdout }) => !stdout.includes("flannel"));
  });
  // From outside a packet would leave by the bridge that it came in by: a bridge as uplink, as hosts of tests have it, lets
  // translated ones not do that.
  await everybodyMeets(hub);
  expect((await leaf.exec("ip", ["route"])).stdout).toContain("10.42.0.0/24 via 192.168.77.2 dev eth0");
});
