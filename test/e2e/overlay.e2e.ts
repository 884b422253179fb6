// A server with its node and an agent, each with a network of its own and a wire between: pods, services and DNS across
// nodes, over VXLAN and, after a change of the server's flag, over plain routes.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { closeHosts, connectHosts, eventually, Host } from "./host.ts";

const hub = new Host("hub", "192.168.77.2");
const leaf = new Host("leaf", "192.168.77.3");
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

const sh = async (pod: string, line: string) => (await hub.kubectl(["exec", pod, "--", "sh", "-c", line])).trim();
const fetch = (from: string, host: string) => sh(from, `wget -T 3 -q -O - http://${host}/cgi-bin/who`);
const ipOf = (pod: string) => hub.kubectl(["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]);

beforeAll(async () => {
  for (const [host] of nodes) await host.open();
  await connectHosts(hub, leaf);
  await startBoth();
  const script = `mkdir -p /tmp/w/cgi-bin; cd /tmp/w
    printf '#!/bin/sh\\necho; echo $(hostname) saw $REMOTE_ADDR | tr -d [] | sed s/::ffff://\\n' > cgi-bin/who; chmod +x cgi-bin/who
    exec httpd -f -p 80 -h /tmp/w`;
  for (const [, name] of nodes) {
    const overrides = JSON.stringify({ spec: { nodeName: name, terminationGracePeriodSeconds: 1 } });
    const run = ["run", `on-${name}`, "--image=mote.local/busybox:1", "--overrides", overrides, "--"];
    await hub.kubectl([...run, "sh", "-c", script]);
    await hub.kubectl(["wait", "--for=condition=Ready", `pod/on-${name}`, "--timeout=180s"]);
    await hub.kubectl(`expose pod on-${name} --port 80 --type NodePort`);
  }
});

afterAll(() => closeHosts(leaf, hub));

async function everybodyMeets(client: Host): Promise<void> {
  const [onHub, onLeaf] = [await ipOf("on-hub"), await ipOf("on-leaf")];
  expect(onHub.split(".")[2]).not.toBe(onLeaf.split(".")[2]);
  // By address, and seen under its own.
  await eventually(
    "a pod of the other node",
    30_000,
    async () => (await fetch("on-hub", onLeaf)) === `on-leaf saw ${onHub}`,
  );
  // Where the node has just started again its API may come a moment after its network.
  await eventually("and back", 30_000, async () => (await fetch("on-leaf", onHub)) === `on-hub saw ${onLeaf}`);
  // By name: DNS and service addresses on both nodes.
  await eventually("by name", 30_000, async () => (await fetch("on-hub", "on-leaf")) === `on-leaf saw ${onHub}`);
  const fullName = "on-hub.default.svc.cluster.local";
  await eventually(fullName, 30_000, async () => (await fetch("on-leaf", fullName)) === `on-hub saw ${onLeaf}`);
  // From a machine, by the port of a node that does not run the pod.
  const nodePort = await hub.kubectl(["get", "service", "on-leaf", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
  const answer = async () =>
    (await client.exec("curl", ["-sS", "-m", "5", `http://${hub.address}:${nodePort}/cgi-bin/who`])).stdout;
  await eventually("by the node's port", 30_000, async () => /^on-leaf saw /.test(await answer()));
}

test("over VXLAN", async () => {
  await everybodyMeets(leaf);
  const { stdout } = await leaf.exec("ip", ["-d", "link", "show", "flannel.1"]);
  expect(stdout).toMatch(/vxlan id 1 .*dstport 8472 nolearning/);
});

test("without server and agent packets go on", async () => {
  const ip = await ipOf("on-leaf");
  await leaf.stop();
  await hub.stop();
  const { stdout } = await hub.exec("curl", ["-sS", "-m", "5", `http://${ip}/cgi-bin/who`]);
  expect(stdout).toMatch(/^on-leaf saw 10\.42\.0\.0/);
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
