// A server with its node and an agent, each with a network of its own and a wire between: pods, services and DNS across
// nodes, over VXLAN and, after a change of the server's flag, over plain routes.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, Host } from "./host.ts";

const hub = new Host("hub", "192.168.77.2");
const leaf = new Host("leaf", "192.168.77.3");
const running = new Map<Host, ChildProcess>();
const nodes = [
  [hub, "hub"],
  [leaf, "leaf"],
] as const;

const agentArgs = ["agent", "--node-name", "leaf", "--server", `https://${hub.address}:6443`];

function start(host: Host, args: readonly string[]): void {
  mkdirSync(host.folder, { recursive: true });
  const log = openSync(`${host.folder}/program.log`, "a");
  const where = ["--data-dir", host.dataDir, "--run-dir", host.runDir];
  const all = [`--net=/run/netns/${host.name}`, "build/dist/mote", ...args, ...where];
  running.set(host, spawn("nsenter", all, { stdio: ["ignore", log, log] }));
  closeSync(log);
}
async function stop(host: Host): Promise<void> {
  const child = running.get(host);
  running.delete(host);
  if (!child || child.exitCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
}

async function startBoth(...flags: string[]): Promise<void> {
  start(hub, ["server", "--node-name", "hub", "--write-kubeconfig", hub.kubeconfig, ...flags]);
  const tokenFile = `${hub.dataDir}/server/token`;
  await eventually("/readyz", 60_000, async () => (await hub.kubectl("get --raw /readyz")) === "ok");
  const token = readFileSync(tokenFile, "utf8").trim();
  start(leaf, [...agentArgs, "--token", token]);
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
  const link = ["link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", leaf.name];
  expect(await hub.exec("ip", link)).toMatchObject({ code: 0 });
  for (const [host] of nodes) {
    expect(await host.exec("ip", ["link", "set", "wire", "master", "eth0", "up"])).toMatchObject({ code: 0 });
  }
  await startBoth();
  const script = `mkdir -p /tmp/w/cgi-bin; cd /tmp/w
    printf '#!/bin/sh\\necho; echo $(hostname) saw $REMOTE_ADDR | tr -d [] | sed s/::ffff://\\n' > cgi-bin/who; chmod +x cgi-bin/who
    exec httpd -f -p 80 -h /tmp/w`;
  for (const [, name] of nodes) {
    const overrides = JSON.stringify({ spec: { nodeName: name, terminationGracePeriodSeconds: 1 } });
    const run = ["run", `on-${name}`, "--image=mote.local/busybox:1", "--overrides", overrides, "--"];
    await hub.kubectl([...run, "sh", "-c", script]);
    await hub.kubectl(["wait", "--for=condition=Ready", `pod/on-${name}`, "--timeout=60s"]);
    await hub.kubectl(`expose pod on-${name} --port 80 --type NodePort`);
  }
});

afterAll(async () => {
  for (const [host] of nodes) {
    await stop(host);
    if (process.env["MOTE_E2E_LOG"] && existsSync(`${host.folder}/program.log`)) {
      console.log(readFileSync(`${host.folder}/program.log`, "utf8"));
    }
    await host.exec("build/dist/mote", ["killall", "--data-dir", host.dataDir, "--run-dir", host.runDir]);
  }
  for (const [host] of nodes) await host.close();
});

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
  expect(await fetch("on-hub", "on-leaf")).toBe(`on-leaf saw ${onHub}`);
  expect(await fetch("on-leaf", "on-hub.default.svc.cluster.local")).toBe(`on-hub saw ${onLeaf}`);
  // From a machine, by the port of a node that does not run the pod.
  const nodePort = await hub.kubectl(["get", "service", "on-leaf", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
  const answer = await client.exec("curl", ["-sS", "-m", "5", `http://${hub.address}:${nodePort}/cgi-bin/who`]);
  expect(answer.stdout).toMatch(/^on-leaf saw /);
}

test("over VXLAN", async () => {
  await everybodyMeets(leaf);
  const { stdout } = await leaf.exec("ip", ["-d", "link", "show", "flannel.1"]);
  expect(stdout).toMatch(/vxlan id 1 .*dstport 8472 nolearning/);
});

test("without server and agent packets go on", async () => {
  const ip = await ipOf("on-leaf");
  await stop(leaf);
  await stop(hub);
  const { stdout } = await hub.exec("curl", ["-sS", "-m", "5", `http://${ip}/cgi-bin/who`]);
  expect(stdout).toMatch(/^on-leaf saw 10\.42\.0\.0/);
});

test("after a change to host-gw the same pods meet over plain routes", async () => {
  await startBoth("--flannel-backend", "host-gw");
  const log = () => readFileSync(`${leaf.folder}/program.log`, "utf8");
  await eventually("the agent knows", 30_000, async () => log().includes("the cluster's settings have changed"));
  await stop(leaf);
  start(leaf, agentArgs);
  await eventually("the device has gone", 20_000, async () => {
    const links = await Promise.all(nodes.map(([host]) => host.exec("ip", ["-br", "link"])));
    return links.every(({ stdout }) => !stdout.includes("flannel"));
  });
  // From outside a packet would leave by the bridge that it came in by: a bridge as uplink, as hosts of tests have it, lets
  // translated ones not do that.
  await everybodyMeets(hub);
  expect((await leaf.exec("ip", ["route"])).stdout).toContain("10.42.0.0/24 via 192.168.77.2 dev eth0");
});
