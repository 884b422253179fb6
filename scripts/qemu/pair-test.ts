// Two emulated devices on one wire, end to end: a server, and an agent that nothing but a token file makes its node; the agent
// has no other network. Joining, the tunnel, pods of both through the overlay, a power cut, wrong clocks, a start without
// server; with WireGuard all of that in both IP families, and over IPv6 where there is a choice. Steps as data; consoles and
// what the agent's memory holds stay in build/qemu/.
import { createHash } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { get } from "node:https";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { seconds, UserError } from "#scripts/stages.ts";
import { markerIn, problemIn } from "./console.ts";
import { Device, freePort, freshDisk, podOnce } from "./device.ts";
import { FatPartition } from "./disk.ts";
import { type Arch, outsideMac, type Pair, type Wire } from "./machines.ts";
import { memoryOf } from "./memory.ts";
import { type Counts, must, runSteps, type Step } from "./steps.ts";
import { powerDown, Vm } from "./vm.ts";

/** Two machines share what one has alone elsewhere. */
const quickTimeouts = { bootMs: 1_200_000, clusterMs: 600_000, offMs: 300_000, requestMs: 120_000 };
const secret = "test-token-0123456789abcdef";
const hubAddress = "192.168.88.1";
/** Beside it, where the pair is of both families. */
const hubAddress6 = "fd00:88::1";
const dualRanges = {
  "cluster-cidr": "10.42.0.0/16,fd00:42::/56",
  "service-cidr": "10.43.0.0/16,fd00:43::/112",
} as const;
const macs = { hub: "52:54:00:88:00:01", leaf: "52:54:00:88:00:02" } as const;
/** Long enough for many packets of full size. */
const bigBytes = 300_000;

interface PairTest {
  readonly pair: Pair;
  readonly folder: string;
  readonly hub: Device;
  readonly wire: Wire;
  readonly timeouts: typeof quickTimeouts;
  /** The line of the token file. */
  token: string;
  leaf: Vm | undefined;
  leafDisk: string;
  /** Of the pods, by name; one of each family. */
  readonly ips: Map<string, readonly string[]>;
}

const nodes = ["hub", "leaf"] as const;

const steps: readonly Step<PairTest>[] = [
  {
    name: "the server starts and is Ready",
    run: async (test) => {
      const readyMs = await test.hub.vm.waitForMarker("node", test.timeouts.bootMs);
      await test.hub.fetchKubeconfig(test.timeouts.clusterMs);
      const host = test.pair.isDual ? `[${hubAddress6}]` : hubAddress;
      test.token = `server=https://${host}:6443 token=${await pinnedToken(test.hub.options.apiPort)}`;
      return `Ready ${seconds(readyMs)}`;
    },
  },
  {
    name: "another device joins by its token file",
    run: async (test) => {
      test.leafDisk = await agentDisk(test, "leaf", 2);
      test.leaf = await startAgent(test, "leaf", test.leafDisk);
      const joinedMs = await test.leaf.waitForMarker("api", test.timeouts.bootMs);
      const readyMs = await test.leaf.waitForMarker("node", test.timeouts.bootMs);
      for (const name of nodes) await nodeReady(test, name);
      return `joined ${seconds(joinedMs)}, Ready ${seconds(readyMs)} after its power-on`;
    },
  },
  {
    name: "what the agent's mote and containerd hold in memory, at rest",
    isLeaf: true,
    async run({ hub, folder, pair, timeouts }) {
      await hub.kubectl(["apply", "-f", "-"], { input: memoryPod });
      const phase = ["get", "pod", "memory", "-o", "jsonpath={.status.phase}"];
      await hub.until(phase, (text) => text === "Succeeded", timeouts.clusterMs);
      const { output } = await hub.kubectl(["logs", "memory"]);
      await writeFile(join(folder, "memory.txt"), output);
      await hub.kubectl(["delete", "pod", "memory"]);
      const { mote, containerd, device } = memoryOf(output);
      must(mote.pssMib > 0 && containerd.pssMib > 0, "the pod saw no mote, or no containerd");
      const told = ({ pssMib, ownMib }: typeof mote) =>
        `${pssMib.toFixed(1)} (${ownMib.toFixed(1)} of them not of files)`;
      const wholeMib = mote.pssMib + containerd.pssMib;
      must(
        wholeMib <= maxAgentMib[pair.flow.arch],
        `${wholeMib.toFixed(1)} MiB PSS: mote ${told(mote)}, containerd ${told(containerd)}`,
      );
      return `${wholeMib.toFixed(1)} MiB PSS: mote ${told(mote)}, containerd ${told(containerd)}; the device uses ${device} MiB`;
    },
  },
  {
    name: "the token is gone from its card, and the status says that it is ready",
    run: async (test) => {
      const boot = await FatPartition.of(test.leafDisk);
      let [names, status] = [[] as string[], ""];
      for (const endMs = performance.now() + test.timeouts.requestMs; performance.now() < endMs; await sleep(1000)) {
        names = await boot.list();
        status = names.includes("mote-status.txt") ? await boot.read("mote-status.txt") : "";
        if (/is ready/.test(status)) break;
      }
      const left = names.filter((name) => /^(token|mote\.ya?ml)/i.test(name));
      must(left.length === 0, `still on the boot partition: ${left.join(", ")}`);
      must(/is ready/.test(status), `mote-status.txt says: ${status.trim() || "nothing"}`);
      must(!status.includes(secret), "mote-status.txt tells the token");
      return undefined;
    },
  },
  {
    name: "logs and exec of a pod on the agent go through the tunnel",
    run: async (test) => {
      const { hub, timeouts } = test;
      await hub.kubectl(["apply", "-f", "-"], { input: JSON.stringify(podsOn(nodes)) });
      const startedMs = performance.now();
      for (const name of nodes) {
        await podReady(test, name);
        await noteIps(test, name);
      }
      const tookMs = performance.now() - startedMs;
      await hub.until(["logs", "on-leaf"], (text) => text.includes("on-leaf is up"), timeouts.requestMs);
      const said = await hub.kubectl(["exec", "on-leaf", "--", "cat", "/etc/hostname"]);
      must(said.output.trim() === "on-leaf", `exec said ${said.output}`);
      const metrics = await hub.kubectl(["get", "--raw", "/metrics"]);
      const tunnels = /^mote_supervisor_tunnels(?:\{[^}]*\})? (\d+)$/m.exec(metrics.output)?.[1];
      must(Number(tunnels) >= 1, `the server counts ${tunnels} tunnels`);
      return `pods ran after ${seconds(tookMs)}`;
    },
  },
  {
    name: "pods of both reach each other under their own addresses, in packets of full size",
    run: async (test) => {
      await reach(test, "hub", "leaf");
      await reach(test, "leaf", "hub");
      const type = "jsonpath={.items[*].metadata.annotations.flannel\\.alpha\\.coreos\\.com/backend-type}";
      const { output } = await test.hub.kubectl(["get", "nodes", "-o", type]);
      const expected = test.pair.backend === "wireguard-native" ? "wireguard" : test.pair.backend;
      must(output === `${expected} ${expected}`, `the nodes' backends are ${output}`);
      const isSecret = expected === "wireguard";
      const said: string[] = [];
      for (const device of isSecret ? ["flannel-wg", ...(test.pair.isDual ? ["flannel-wg-v6"] : [])] : ["flannel.1"]) {
        const counted = await onHost(test, "leaf", `cat /sys/class/net/${device}/statistics/[rt]x_bytes`);
        const [received = 0, sent = 0] = counted.split("\n").map(Number);
        must(received > bigBytes && sent > bigBytes, `${device} carried ${received} and ${sent} bytes`);
        said.push(`${device} carried ${received} and ${sent} bytes`);
        if (!isSecret) continue;
        const shown = await onHost(test, "leaf", `wg show ${device} latest-handshakes; wg show ${device} endpoints`);
        const endpoint = device.endsWith("-v6") ? `[${hubAddress6}]:51821` : `${hubAddress}:51820`;
        must(/\t1[0-9]{9}\n/.test(shown) && shown.endsWith(`\t${endpoint}`), `wg says of ${device}: ${shown}`);
      }
      if (isSecret) {
        const mode = await onHost(test, "leaf", "stat -c %a /data/mote/agent/wireguard.key");
        must(mode === "600", `the key's file has mode ${mode}`);
      }
      return `${said.join(", ")}${isSecret ? ", with handshakes" : ""}`;
    },
  },
  {
    name: "a service of the agent's pod is reached by its name from the server's",
    run: async (test) => {
      const { hub, pair, timeouts } = test;
      const spec = { ipFamilyPolicy: pair.isDual ? "RequireDualStack" : "SingleStack" };
      await hub.kubectl(["expose", "pod", "on-leaf", "--port", "80", "--overrides", JSON.stringify({ spec })]);
      const { output } = await hub.kubectl(["get", "service", "on-leaf", "-o", "jsonpath={.spec.clusterIPs[*]}"]);
      const addresses = output.split(" ");
      must(addresses.length === (pair.isDual ? 2 : 1), `the service's addresses are ${output}`);
      for (const host of ["on-leaf", ...addresses.map(inUrl)]) {
        const ask = ["exec", "on-hub", "--", "wget", "-T", "10", "-q", "-O", "-", `http://${host}/cgi-bin/who`];
        const isAsker = (text: string) => test.ips.get("hub")!.some((ip) => text.trim() === `saw ${ip}`);
        await hub.until(ask, isAsker, timeouts.clusterMs);
      }
      return `at ${output}`;
    },
  },
  {
    name: "no complaint on either console",
    isLeaf: true,
    run: async ({ hub, leaf }) => {
      const problems = [hub.vm, leaf!].flatMap((vm) =>
        vm.lines
          .map((line) => problemIn(line.text))
          .filter((text) => text !== undefined)
          // A server that emulation makes slow is asked again.
          .filter((text) => !/^server: (cannot reach|\S+ is not ready)/.test(text)),
      );
      must(problems.length === 0, problems.join("; "));
      return undefined;
    },
  },
  {
    name: "the agent loses its power and comes back with its pod",
    isLong: true,
    run: async (test) => {
      const leaf = test.leaf!;
      const uid = await podField(test, "leaf", "{.metadata.uid}");
      await leaf.qmp("system_reset");
      leaf.expectBoot();
      const readyMs = await leaf.waitForMarker("node", test.timeouts.bootMs);
      await runsAgain(test, uid);
      return `Ready ${seconds(readyMs)}`;
    },
  },
  {
    name: "the agent is switched off in order",
    isLong: true,
    run: async (test) => {
      const startedMs = performance.now();
      must(await powerDown(test.leaf!, test.timeouts.offMs), `still on\n${test.leaf!.tail()}`);
      test.leaf = undefined;
      return seconds(performance.now() - startedMs);
    },
  },
  {
    name: "the agent starts without its server, its pod with it; then the server is back",
    isLong: true,
    run: async (test) => {
      const uid = await podField(test, "leaf", "{.metadata.uid}");
      await test.hub.vm.qmp("set_link", { name: wireName, up: false });
      test.leaf = await startAgent(test, "leaf", test.leafDisk);
      const pod = (text: string) => text.includes("pod: on-leaf runs");
      const line = await test.leaf.waitForLine(pod, "the pod, without any server", test.timeouts.bootMs);
      await test.hub.vm.qmp("set_link", { name: wireName, up: true });
      const backMs = test.leaf.sinceBootMs;
      const readyMs = await test.leaf.waitForMarker("node", test.timeouts.clusterMs);
      await runsAgain(test, uid);
      return `pod ${seconds(line.atMs)} after power-on, Ready ${seconds(readyMs - backMs)} after the server was back`;
    },
  },
  {
    name: "a device whose clock says 1970 joins",
    isLong: true,
    isLeaf: true,
    run: (test) => withClock(test, "early", "1970-01-01T00:00:00", false),
  },
  {
    name: "a device whose clock is ten years ahead joins, or says what to do",
    isLong: true,
    isLeaf: true,
    run: (test) => withClock(test, "late", `${new Date().getUTCFullYear() + 10}-06-01T12:00:00`, true),
  },
  {
    name: "what is left switches itself off in order",
    run: async (test) => {
      const startedMs = performance.now();
      const all = [test.hub.vm, ...(test.leaf ? [test.leaf] : [])];
      const ends = await Promise.all(all.map((vm) => powerDown(vm, test.timeouts.offMs)));
      must(!ends.includes(false), `still on after ${test.timeouts.offMs / 1000} s`);
      return seconds(performance.now() - startedMs);
    },
  },
];

const wireName = "wire0";

const podsOn = (names: readonly string[]): object => ({ apiVersion: "v1", kind: "List", items: names.map(podOn) });

/** A pod that tells who asks and has something long to fetch; it says on the device's console that it runs. */
function podOn(node: string): object {
  const script = `
    echo "$HOSTNAME is up"; echo "pod: $HOSTNAME runs" >/host-dev/console
    mkdir -p /tmp/w/cgi-bin; cd /tmp/w; dd if=/dev/zero of=big bs=${bigBytes} count=1
    printf '#!/bin/sh\\necho; echo saw $REMOTE_ADDR | tr -d [] | sed s/::ffff://\\n' >cgi-bin/who; chmod +x cgi-bin/who
    exec httpd -f -p 80 -h /tmp/w`;
  const container = {
    ...{ name: "main", image: "mote.local/busybox:1", command: ["sh", "-c", script] },
    securityContext: { privileged: true },
    volumeMounts: [
      { name: "dev", mountPath: "/host-dev" },
      { name: "host", mountPath: "/host" },
    ],
    readinessProbe: { httpGet: { port: 80, path: "/big" }, timeoutSeconds: 10 },
  };
  const volumes = [
    { name: "dev", hostPath: { path: "/dev" } },
    { name: "host", hostPath: { path: "/" } },
  ];
  // A node that is away for a while keeps its pod.
  const tolerations = [{ operator: "Exists" }];
  const spec = { nodeName: node, terminationGracePeriodSeconds: 1, containers: [container], volumes, tolerations };
  return { apiVersion: "v1", kind: "Pod", metadata: { name: `on-${node}`, labels: { on: node } }, spec };
}

const idleS = 60;
/** What mote and containerd of an agent may hold together at rest. */
const maxAgentMib: Readonly<Record<Arch, number>> = { amd64: 112, arm64: 96, armhf: 96 };

/** Waits until the start is over, then tells what the processes of interest hold, and how much the device has left. */
const memoryPod = podOnce(
  "memory",
  {
    command: [
      "sh",
      "-c",
      `sleep ${idleS}; cat /proc/meminfo; for p in /proc/[0-9]*; do
        exe=$(readlink $p/exe); case $exe in */lib/mote/node|*/bin/containerd) echo "== $exe"; cat $p/smaps ;; esac; done`,
    ],
    securityContext: { privileged: true },
  },
  { nodeName: "leaf", hostPID: true, hostNetwork: true },
);

/** A command of the device itself, in its own network. */
async function onHost({ hub }: PairTest, node: string, line: string): Promise<string> {
  const enter = ["chroot", "/host", "nsenter", "-t", "1", "-n", "sh", "-c", line];
  return (await hub.kubectl(["exec", `on-${node}`, "--", ...enter])).output.trim();
}

async function reach(test: PairTest, from: string, to: string): Promise<void> {
  const { hub, ips, pair, timeouts } = test;
  const ask = (line: string) => ["exec", `on-${from}`, "--", "sh", "-c", line];
  must(ips.get(to)!.length === (pair.isDual ? 2 : 1), `the addresses of on-${to} are ${ips.get(to)!.join()}`);
  for (const [i, address] of ips.get(to)!.entries()) {
    const get = (path: string) => `wget -T 20 -q -O - http://${inUrl(address)}/${path}`;
    const saw = `saw ${ips.get(from)![i]}`;
    await hub.until(ask(get("cgi-bin/who")), (text) => text.trim() === saw, timeouts.clusterMs);
    await hub.until(ask(`${get("big")} | wc -c`), (text) => text.trim() === String(bigBytes), timeouts.requestMs);
  }
}

const inUrl = (address: string): string => (address.includes(":") ? `[${address}]` : address);

const podField = async ({ hub }: PairTest, node: string, path: string): Promise<string> =>
  (await hub.kubectl(["get", "pod", `on-${node}`, "-o", `jsonpath=${path}`])).output;

async function noteIps(test: PairTest, node: string): Promise<void> {
  test.ips.set(node, (await podField(test, node, "{.status.podIPs[*].ip}")).split(" "));
}

const conditionOf = (type: string) => `{.status.conditions[?(@.type=="${type}")].status}`;

async function podReady({ hub, timeouts }: PairTest, node: string): Promise<void> {
  const ask = ["get", "pod", `on-${node}`, "-o", `jsonpath=${conditionOf("Ready")}`];
  await hub.until(ask, (text) => text === "True", timeouts.clusterMs);
}

async function nodeReady({ hub, timeouts }: PairTest, name: string): Promise<void> {
  const ask = ["get", "node", name, "-o", `jsonpath=${conditionOf("Ready")}`];
  await hub.until(ask, (text) => text === "True", timeouts.clusterMs);
}

/** The same pod as before, once, in touch with everybody. */
async function runsAgain(test: PairTest, uid: string): Promise<void> {
  const { hub, timeouts } = test;
  await nodeReady(test, "leaf");
  await hub.until(
    ["get", "pod", "on-leaf", "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].state.running.startedAt}"],
    (text) => new RegExp(`^${uid} \\d`).test(text),
    timeouts.clusterMs,
  );
  await podReady(test, "leaf");
  await noteIps(test, "leaf");
  await reach(test, "hub", "leaf");
  await reach(test, "leaf", "hub");
  await hub.until(["logs", "on-leaf"], (text) => text.includes("on-leaf is up"), timeouts.requestMs);
  // What the container runtime knows: a second copy would be here, and nowhere else.
  const copies = await onHost(test, "leaf", "ps -o args | grep -c '[h]ttpd -f -p 80'");
  must(copies === "1", `${copies} copies of the pod's program run`);
}

/** A new device with that clock, which joins and is thrown away. */
async function withClock(test: PairTest, name: string, clock: string, mayRefuse: boolean): Promise<string> {
  const { hub, leaf, timeouts } = test;
  // There is one wire.
  test.leaf = undefined;
  if (leaf) must(await powerDown(leaf, timeouts.offMs), `still on\n${leaf.tail()}`);
  const vm = await startAgent(test, name, await agentDisk(test, name, 3), clock);
  try {
    const refused = (text: string) => /mote: error .*set the clock/.test(text);
    const isDone = (text: string) => markerIn(text) === "node" || refused(text);
    const line = await vm.waitForLine(isDone, "the node, or a sentence on the clock", timeouts.bootMs);
    if (refused(line.text)) {
      must(mayRefuse, line.text);
      return line.text;
    }
    await nodeReady(test, name);
    const pid1Ms = await vm.waitForMarker("pid1", timeouts.bootMs);
    const joinedMs = await vm.waitForMarker("api", timeouts.bootMs);
    return `PID 1 ${seconds(pid1Ms)}, joined ${seconds(joinedMs)}, Ready ${seconds(line.atMs)}`;
  } finally {
    await vm.kill();
    await hub.kubectl(["delete", "node", name, "--ignore-not-found"]);
  }
}

async function agentDisk(test: PairTest, name: string, host: number): Promise<string> {
  const folder = join(test.folder, name);
  const files = join(test.folder, "files");
  await mkdir(files, { recursive: true });
  // As a Windows editor would leave it.
  await writeFile(join(files, "token"), `${test.token}\r\n`);
  await writeFile(
    join(files, "mote.yaml"),
    `machine:
  hostname: ${name}
  ntp: false
  dns: ${hubAddress}
  interfaces:
    - mac: ${macs.leaf}
      addresses: [${[`192.168.88.${host}/24`, ...(test.pair.isDual ? [`fd00:88::${host}/64`] : [])].join(", ")}]
      gateway: [${[hubAddress, ...(test.pair.isDual ? [hubAddress6] : [])].join(", ")}]
`,
  );
  const dropped = { "TOKEN.TXT": join(files, "token"), "mote.yaml": join(files, "mote.yaml") };
  try {
    return await freshDisk(test.pair.flow, folder, dropped);
  } finally {
    await rm(files, { recursive: true, force: true });
  }
}

const startAgent = ({ pair, folder, wire }: PairTest, name: string, disk: string, clock?: string): Promise<Vm> =>
  Vm.start({
    ...{ flow: pair.flow, folder: join(folder, name), disk, forwards: [], isAlone: true },
    wire: { mac: macs.leaf, localPort: wire.remotePort, remotePort: wire.localPort },
    ...(clock === undefined ? {} : { clock }),
  });

/** With the hash of the authority, as it stands in server/token. */
async function pinnedToken(apiPort: number): Promise<string> {
  const url = `https://127.0.0.1:${apiPort}/cacerts`;
  const chunks: Buffer[] = [];
  await new Promise<void>((resolve, reject) => {
    get(url, { rejectUnauthorized: false, timeout: 60_000 }, (answer) => {
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("end", resolve);
      answer.on("error", reject);
    })
      .on("timeout", () => reject(new UserError(`${url} does not answer`)))
      .on("error", reject);
  });
  return `K10${createHash("sha256").update(Buffer.concat(chunks)).digest("hex")}::server:${secret}`;
}

export async function testPair(pair: Pair, options: { readonly isShort?: boolean } = {}): Promise<Counts> {
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const folder = join("build", "qemu", `test-${pair.name}`);
  const files = join("build", "qemu", `test-${pair.name}-files`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(files, { recursive: true });
  await writeFile(join(files, "token"), `${secret}\n`);
  await writeFile(
    join(files, "mote.yaml"),
    `machine:
  hostname: hub
  ntp: false
  interfaces:
    - mac: ${outsideMac}
      dhcp: true
    - mac: ${macs.hub}
      addresses: [${hubAddress}/24${pair.isDual ? `, ${hubAddress6}/64` : ""}]
node-ip: ${pair.isDual ? `${hubAddress},${hubAddress6}` : hubAddress}
flannel-backend: ${pair.backend}
${
  pair.isDual
    ? `bind-address: "::"\n${Object.entries(dualRanges)
        .map((pair) => pair.join(": "))
        .join("\n")}\n`
    : ""
}`,
  );
  console.log(`--- ${pair.name}`);
  let test: PairTest | undefined;
  try {
    const hubFolder = join(folder, "hub");
    const { flow } = pair;
    const disk = await freshDisk(flow, hubFolder, {
      token: join(files, "token"),
      "mote.yaml": join(files, "mote.yaml"),
    });
    const wire = { mac: macs.hub, localPort: await freePort(), remotePort: await freePort() };
    const hub = await Device.start({ flow, folder: hubFolder, disk, wire, apiPort: await freePort() });
    const { patience } = flow;
    const timeouts = {
      bootMs: quickTimeouts.bootMs * patience,
      clusterMs: quickTimeouts.clusterMs * patience,
      offMs: quickTimeouts.offMs * patience,
      requestMs: quickTimeouts.requestMs * patience,
    };
    test = { pair, folder, hub, wire, timeouts, token: "", leaf: undefined, leafDisk: "", ips: new Map() };
    // The long steps are the same with any overlay.
    const isShort = options.isShort === true || pair.backend !== "vxlan";
    const chosen = steps.filter((one) => !(isShort && one.isLong));
    await runSteps(chosen, test, counts);
  } catch (error) {
    counts.failed++;
    console.log(`  FAILED   ${(error as Error).message}`);
  } finally {
    await test?.leaf?.kill();
    await test?.hub.vm.kill();
    await rm(files, { recursive: true, force: true });
    // The disks of a failed run are evidence.
    for (const name of counts.failed === 0 ? ["hub", "leaf", "early", "late"] : []) {
      await rm(join(folder, name, "disk.img"), { force: true });
    }
  }
  return counts;
}
