// Two servers on one etcd and an agent, each with a network of its own and wires between: the second server has the keys of the
// first, the agent knows both, and the one that it uses may die: nothing is lost, and everything goes on through the other. The
// same where a server does not reach etcd; and the cluster gets another token and new authorities. Servers that stand still are
// in test/scenario/several-servers.test.ts.
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createEtcdCluster, type EtcdCluster } from "#test/etcd/etcd-process.ts";
import { etcdPath } from "#test/etcd/peers.ts";
import { closeHosts, connectHosts, eventually, Host } from "./host.ts";

const first = new Host("first", "192.168.77.2");
const second = new Host("second", "192.168.77.3");
const device = new Host("leaf", "192.168.77.4");
const hosts = [first, second, device];
const [password, agentPassword] = ["for-servers-of-this-test", "for-agents-of-this-test"];
let etcd: EtcdCluster | undefined;

const url = (host: Host) => `https://${host.address}:6443`;
/** The second one has a node. */
const serverArgs = (host: Host, ...more: string[]) => [
  ...["server", "--node-name", host === first ? "first" : "second", ...(host === first ? ["--disable-agent"] : [])],
  ...["--datastore-endpoint", etcd?.endpoint ?? "", "--write-kubeconfig", host.kubeconfig, ...more],
];
const serves = (host: Host) =>
  eventually(`/readyz of ${host.name}`, 60_000, async () => (await host.kubectl("get --raw /readyz")) === "ok");
const fileOf = (host: Host, name: string) => readFileSync(`${host.dataDir}/server/${name}`, "utf8");
const token = (name: string) => fileOf(first, name).trim();
const lastLines = (host: Host) => host.programLog().split("\n").slice(-20).join("\n");
const runOn = async (node: string, name: string) => {
  const overrides = JSON.stringify({ spec: { nodeName: node, terminationGracePeriodSeconds: 1 } });
  const command = ["--overrides", overrides, "--", "sh", "-c", `echo hello from ${node}; sleep 9999`];
  await second.kubectl(["run", name, "--image=mote.local/busybox:1", ...command]);
  await second.kubectl(["wait", "--for=condition=Ready", `pod/${name}`, "--timeout=180s"]);
};
const endpoints = async (through: Host) => {
  const path = "jsonpath={.endpoints[*].addresses[0]}";
  return through.kubectl(["get", "endpointslice", "kubernetes", "-o", path]);
};
const isReady = async (through: Host, node = "leaf") =>
  / Ready /.test(await through.kubectl(`get node ${node} --no-headers`));
const reaches = (through: Host, name = "box", node = "leaf") =>
  eventually(`logs of ${name} through ${through.name}`, 60_000, async () => {
    return (await through.kubectl(["logs", name])) === `hello from ${node}\n`;
  });
const holder = (through: Host) =>
  through.kubectl("-n kube-system get lease kube-controller-manager -o jsonpath={.spec.holderIdentity}");
const tellsOfBoth = (through: Host) =>
  eventually("both are told of", 30_000, async () => (await endpoints(through)) === "192.168.77.2 192.168.77.3");
/** Clients beside the agent, through its balancer, until the returned function is called; answers what they found. */
const startLoad = () => {
  const end = `${device.folder}/load-is-over-${++loads}`;
  const args = ["scripts/run.mjs", "test/e2e/write-load.ts", first.kubeconfig, "https://127.0.0.1:6444", end];
  // As long as a test may take.
  const running = device.exec("node", args, { timeoutMs: 600_000 });
  return async () => {
    writeFileSync(end, "");
    const { stdout, stderr } = await running;
    expect(stdout, stderr).toMatch(/^\{/);
    console.log(`clients: ${stdout.trim()}`);
    return JSON.parse(stdout);
  };
};
const nothingLost = { lost: [], unseen: [], twice: 0, faults: [] };
let loads = 0;
const startAgent = (...more: string[]) =>
  device.start(["agent", "--server", url(first), "--node-name", "leaf", ...more]);

beforeAll(async () => {
  const path = await etcdPath();
  if (!path) throw new Error("Debian's etcd is not to be had");
  await Promise.all(hosts.map((host) => host.open()));
  // The first host's bridge is the switch: it stays when its server dies.
  await connectHosts(first, second, "wire0");
  await connectHosts(first, device, "wire1");
  // The APIs of nodes are reached through tunnels, or not at all.
  const rules =
    "table inet closed { chain in { type filter hook input priority 0; iifname eth0 tcp dport 10250 reject; }; }";
  for (const host of [second, device]) {
    expect(await host.exec("nft", ["-f", "-"], { input: rules })).toMatchObject({ code: 0 });
  }
  const within = ["nsenter", `--net=/run/netns/${first.name}`];
  etcd = await createEtcdCluster(path, 1, { within, host: first.address });
  etcd.members[0]!.start();
  first.start(serverArgs(first, "--token", password, "--agent-token", agentPassword));
  await serves(first);
});

afterAll(async () => {
  try {
    await closeHosts(device, second, first);
  } finally {
    await etcd?.close();
  }
});

test("a server joins with the servers' token, and has the same keys", async () => {
  let others = 0;
  const refused = async (args: readonly string[], why: RegExp) => {
    const other = `${second.folder}/other${++others}`;
    // A node would begin its containerd, and nobody would end it.
    const where = ["--disable-agent", "--data-dir", other, "--run-dir", `${other}-run`];
    const { code, stderr } = await second.exec("build/dist/mote", [...args, ...where]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(why)]);
  };
  const joins = ["--server", url(first), "--token"];
  await Promise.all([
    refused(serverArgs(second, ...joins, token("agent-token")), /does not take the token/),
    refused(
      serverArgs(second, "--cluster-cidr", "10.44.0.0/16", ...joins, token("token")),
      /otherwise than .*--cluster-cidr/,
    ),
    refused(serverArgs(second, "--token", "of-another-cluster"), /begun with another token/),
    refused(["server", ...joins, token("token")], /--datastore-endpoint/),
  ]);

  second.start(serverArgs(second, ...joins, token("token")));
  await serves(second);
  for (const name of ["token", "agent-token", "tls/server-ca.key", "tls/client-ca.crt", "tls/service.key"]) {
    expect(fileOf(second, name), name).toBe(fileOf(first, name));
  }
  for (const host of [first, second]) await tellsOfBoth(host);
});

test("an agent joins with the agents' token, and both servers reach all pods", async () => {
  startAgent("--token", token("agent-token"));
  await eventually("leaf is Ready", 60_000, () => isReady(second));
  await eventually("second is Ready", 60_000, () => isReady(first, "second"));
  await Promise.all([runOn("leaf", "box"), runOn("second", "crate")]);
  // The way to the node of a server leads through that server.
  for (const host of [first, second]) await Promise.all([reaches(host), reaches(host, "crate", "second")]);
  const ranges = await first.kubectl(["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"]);
  expect(ranges.split(" ").sort()).toEqual(["10.42.0.0/24", "10.42.1.0/24"]);
});

test("the server that the agent uses dies: all goes on through the other", async () => {
  const endLoad = startLoad();
  await eventually("clients write", 30_000, async () =>
    (await second.kubectl("get configmaps -l load=yes -o name")).includes("load-3-5"),
  );
  await first.stop("SIGKILL");
  const startedMs = performance.now();
  await reaches(second);
  // Controllers and the scheduler of the other server take over, and the agent hears of it there.
  await second.kubectl("create deployment later --image=mote.local/web:1");
  await second.kubectl("rollout status deploy/later --timeout=180s");
  console.log(`a pod more after ${Math.round(performance.now() - startedMs)} ms`);
  const condition = '{.status.conditions[?(@.type=="Ready")].lastTransitionTime}';
  const since = () => second.kubectl(["get", "node", "leaf", "-o", `jsonpath=${condition}`]);
  expect(await isReady(second)).toBe(true);
  expect(Date.parse(await since())).toBeLessThan(Date.now() - (performance.now() - startedMs));
  await eventually("it is not told of any more", 30_000, async () => (await endpoints(second)) === "192.168.77.3");
  const found = await endLoad();
  expect(found).toMatchObject(nothingLost);
  expect(found.watches).toBeGreaterThan(0);
  expect(found.acknowledged).toBeGreaterThan(50);
});

test("an agent starts with what it has kept of the servers", async () => {
  const kept = JSON.parse(readFileSync(`${device.dataDir}/agent/etc/k3s-agent-load-balancer.json`, "utf8"));
  expect(kept).toMatchObject({ ServerURL: url(first) });
  await device.stop("SIGKILL");
  startAgent();
  await reaches(second);
  expect(await second.kubectl(["exec", "box", "--", "hostname"])).toBe("box\n");
});

test("the server comes back", async () => {
  first.start(serverArgs(first));
  await serves(first);
  await tellsOfBoth(second);
  await Promise.all([reaches(first), reaches(first, "crate", "second")]);
  expect(await isReady(first)).toBe(true);
});

test("the server that leads does not reach etcd for a while: it leads no more, says nothing that is old, and comes back", async () => {
  const word = (host: Host) =>
    host.kubectlRaw(["--request-timeout=4s", "get", "configmap", "word", "-o", "jsonpath={.data.is}"]);
  await second.kubectl("create configmap word --from-literal=is=old");
  // The second one, unless it has stood still for long.
  const [leader, other] = (await holder(second)) === "first" ? [first, second] : [second, first];
  const nameOf = (host: Host) => (host === first ? "first" : "second");
  expect([await holder(other), (await word(leader)).stdout]).toEqual([nameOf(leader), "old"]);
  const rule = `ip daddr ${first.address} tcp dport ${new URL(etcd!.endpoint).port} drop`;
  const table = `table inet cut { chain out { type filter hook output priority 0; ${rule}; }; }`;
  expect(await leader.exec("nft", ["-f", "-"], { input: table })).toMatchObject({ code: 0 });
  const startedMs = performance.now();
  await eventually("the other leads", 30_000, async () => (await holder(other)) === nameOf(other));
  console.log(`another leads after ${Math.round(performance.now() - startedMs)} ms`);
  await other.kubectl(["patch", "configmap", "word", "-p", '{"data":{"is":"new"}}']);
  await other.kubectl("scale deploy/later --replicas=2");
  await eventually("it works", 30_000, async () => {
    const path = "jsonpath={.status.replicas}";
    return (await other.kubectl(["get", "deploy", "later", "-o", path])) === "2";
  });
  await eventually("one is told of", 30_000, async () => (await endpoints(other)) === other.address);
  // No answer, but not the old one.
  expect((await word(leader)).stdout).toBe("");
  expect(await leader.exec("nft", ["delete", "table", "inet", "cut"])).toMatchObject({ code: 0 });
  await eventually("it answers again", 60_000, async () => (await word(leader)).stdout === "new");
  await tellsOfBoth(other);
  expect(await holder(leader)).toBe(nameOf(other));
});

test("another token and new authorities: nodes and pods go on", async () => {
  const before = { ca: fileOf(first, "tls/server-ca.crt"), token: token("token") };
  const mote = async (...args: string[]) => {
    const { code, stderr } = await first.exec("build/dist/mote", args);
    expect(code, stderr).toBe(0);
  };
  const renewed = "renewed-for-this-test";
  await mote("token", "rotate", "--token", password, "--new-token", renewed, "--kubeconfig", first.kubeconfig);
  await mote("certificate", "rotate-ca", "--data-dir", first.dataDir);
  await Promise.all([first.stop(), second.stop()]);
  first.start(serverArgs(first));
  // The token of before opens nothing.
  second.start(serverArgs(second, "--token", password));
  await serves(first);
  await eventually("the old token is refused", 60_000, async () =>
    /another token|differs from/.test(lastLines(second)),
  );
  await second.stop();
  second.start(serverArgs(second, "--token", renewed));
  await serves(second);
  for (const name of ["token", "tls/server-ca.crt", "tls/client-ca.key", "tls/service.key"]) {
    expect(fileOf(second, name), name).toBe(fileOf(first, name));
  }
  expect(fileOf(first, "tls/server-ca.crt")).not.toBe(before.ca);
  expect(token("token")).toMatch(new RegExp(`::server:${renewed}$`));
  expect(token("token").split("::")[0]).not.toBe(before.token.split("::")[0]);
  for (const host of [first, second]) {
    await tellsOfBoth(host);
    await Promise.all([reaches(host), reaches(host, "crate", "second")]);
  }
  const restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
  expect(await first.kubectl(["get", "pods", "box", "crate", "-o", restarts])).toBe("0 0");
  await eventually("leaf is Ready", 60_000, () => isReady(second));
});
