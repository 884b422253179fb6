// The overlay between real network namespaces: three hosts on one switch, one pod behind a bridge in each;
// and the same with fd00:42:0:N::2 and 2001:db8::N.
//
//   pod 10.42.0.2 ─ mote0 ─ host a 192.0.2.1 ─┐
//   pod 10.42.1.2 ─ mote0 ─ host b 192.0.2.2 ─┼─ switch
//   pod 10.42.2.2 ─ mote0 ─ host c 192.0.2.3 ─┘
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { readFileIfExists } from "#platform/files.ts";
import { type Commands, runChecked, systemCommands } from "#platform/processes.ts";
import { systemRandom } from "#platform/random.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { until } from "#test/harness/until.ts";
import type { Backend } from "./cni/peers.ts";
import { createOverlay, removeOverlay } from "./overlay.ts";

const hosts = ["a", "b", "c"] as const;
type Host = (typeof hosts)[number];
const suffix = process.pid.toString(36);
const ns = Object.fromEntries(
  ["switch", "a", "b", "c", "pod-a", "pod-b", "pod-c"].map((where) => [where, `mo${suffix}${where}`]),
) as Readonly<Record<"switch" | Host | `pod-${Host}`, string>>;
type Where = keyof typeof ns;

/** Lines that changed something, by host. */
const changes: Record<string, string[]> = { a: [], b: [], c: [] };
const inside = (where: Where): Commands => ({
  run(program, args, options) {
    if (args.includes("-force")) changes[where]?.push(...String(options?.input).trim().split("\n"));
    return systemCommands.run("ip", ["netns", "exec", ns[where], program, ...args], options);
  },
});
const run = (where: Where, line: string) => runChecked(inside(where), "sh", ["-c", line]);

/** Tells who asks, and then as much as takes many packets of full size. */
const serverScript = `require("net").createServer((s) => {
  s.on("error", () => {});
  s.end(s.remoteAddress.replace("::ffff:", "") + "\\n" + "x".repeat(300000));
}).listen(8080, "::");`;
const clientScript = `const s = require("net").connect({ host: process.argv[1], port: 8080 });
let text = "";
const end = (answer) => { console.log(answer); s.destroy(); };
s.setTimeout(5000, () => end("TIMEOUT"));
s.on("data", (d) => { text += d; }).on("error", (e) => end(e.code)).on("end", () => end(text.split("\\n")[0] + " " + text.length));`;
const ask = async (from: Where, ip: string): Promise<string> =>
  (await runChecked(inside(from), process.execPath, ["-e", clientScript, ip])).trim();
const answered = (address: string) => `${address} ${address.length + 1 + 300_000}`;

const whyNot = await (async (): Promise<string | undefined> => {
  if (process.getuid?.() !== 0) return "needs root for network namespaces";
  const probe =
    "ip netns add $0 && ip -n $0 link add v type vxlan id 1 dstport 8472; code=$?; ip netns delete $0; exit $code";
  const tried = await systemCommands.run("sh", ["-c", probe, ns.a]);
  return tried.code === 0 ? undefined : `no network namespaces or no VXLAN here: ${tried.stderr.trim()}`;
})();

describe.skipIf(whyNot !== undefined)(`overlay${whyNot ? ` (skipped: ${whyNot})` : ""}`, () => {
  const stopServers = new AbortController();
  const client = new Client(new FakeTransport());
  const servers: Promise<unknown>[] = [];
  const events: string[] = [];
  const told: Record<Host, string> = { a: "1", b: "1", c: "1" };
  let folder = "";
  const running = new Map<Host, { abort: AbortController; done: Promise<unknown> }>();

  beforeAll(async () => {
    folder = (await runChecked(systemCommands, "mktemp", ["-d"])).trim();
    for (const name of Object.values(ns)) await runChecked(systemCommands, "ip", ["netns", "add", name]);
    await run("switch", "ip link add br0 type bridge; ip link set br0 up");
    for (const [i, host] of hosts.entries()) {
      const pod = `pod-${host}` as const;
      await run(
        "switch",
        `ip link add port-${host} type veth peer name eth0 netns ${ns[host]}; ip link set port-${host} master br0 up`,
      );
      await run(
        host,
        `ip link set lo up; ip addr add 192.0.2.${i + 1}/24 dev eth0; ip addr add 2001:db8::${i + 1}/64 dev eth0 nodad; ip link set eth0 up
         ip link add mote0 type bridge; ip addr add 10.42.${i}.1/24 dev mote0; ip addr add fd00:42:0:${i}::1/64 dev mote0 nodad
         ip link set mote0 up
         ip link add vpod type veth peer name eth0 netns ${ns[pod]}; ip link set vpod master mote0 up`,
      );
      await run(
        pod,
        `ip link set lo up; ip addr add 10.42.${i}.2/24 dev eth0; ip addr add fd00:42:0:${i}::2/64 dev eth0 nodad
         ip link set eth0 mtu 1430 up; ip route add default via 10.42.${i}.1; ip route add default via fd00:42:0:${i}::1`,
      );
      const server = inside(pod).run(process.execPath, ["-e", serverScript], {
        signal: stopServers.signal,
        timeoutMs: 600_000,
      });
      servers.push(server.catch(() => undefined));
      const podCIDR = `10.42.${i}.0/24`;
      const spec = { podCIDR, podCIDRs: [podCIDR, `fd00:42:0:${i}::/64`] };
      await client.create(nodes, { apiVersion: "v1", kind: "Node", metadata: { name: host }, spec } as Node);
    }
    for (const host of hosts)
      await until(async () => (await ask(`pod-${host}`, "127.0.0.1")) === answered("127.0.0.1"));
  });

  afterAll(async () => {
    for (const host of hosts) await stop(host);
    stopServers.abort();
    await Promise.all(servers);
    for (const name of Object.values(ns)) await systemCommands.run("ip", ["netns", "delete", name]);
    if (folder !== "") await runChecked(systemCommands, "rm", ["-rf", folder]);
  });

  async function start(host: Host, backend: Backend): Promise<void> {
    const informers = new InformerFactory({}, { client, clock: systemClock, random: systemRandom, log: silentLogger });
    const overlay = createOverlay(
      {
        ...{
          backend,
          nodeName: host,
          nodeIps: [`192.0.2.${hosts.indexOf(host) + 1}`],
          clusterCidrs: ["10.42.0.0/16", "fd00:42::/48"],
        },
        cniConfDir: `${folder}/${host}`,
        wireguardKeyFile: `${folder}/${host}/wireguard.key`,
      },
      {
        ...{ client, informers, clock: systemClock, log: silentLogger, commands: inside(host) },
        events: { record: ({ reason, object }) => events.push(`${object.metadata.name} ${reason}`) },
        sysctl: {
          read: async (name) => (await run(host, `cat /proc/sys/${name.replaceAll(".", "/")}`)).trim(),
          write: async (name, value) =>
            void (await run(host, `echo ${value} > /proc/sys/${name.replaceAll(".", "/")}`)),
        },
        addresses: () => told[host],
      },
    );
    const abort = new AbortController();
    await new Promise<void>((ready) => {
      const done = Promise.all([overlay.run(abort.signal, ready), informers.run(abort.signal, () => {})]);
      running.set(host, { abort, done });
    });
  }
  async function stop(host: Host): Promise<void> {
    const one = running.get(host);
    running.delete(host);
    one?.abort.abort();
    await one?.done;
  }
  const reaches = (from: Where, ip: string, as: string) =>
    until(async () => (await ask(from, ip)) === answered(as), `${from} reaches ${ip} as ${as}`);

  test("pods of all hosts reach each other over VXLAN, each under its own address", async () => {
    // Without an overlay they do not: the probe can tell.
    expect(await ask("pod-a", "10.42.1.2")).not.toContain("10.42.0.2");
    await Promise.all(hosts.map((host) => start(host, "vxlan")));
    await reaches("pod-a", "10.42.1.2", "10.42.0.2");
    await reaches("pod-b", "10.42.2.2", "10.42.1.2");
    await reaches("pod-c", "10.42.0.2", "10.42.2.2");
    await run("pod-a", "busybox ping -c 1 -W 2 10.42.2.2");
    await reaches("pod-a", "fd00:42:0:1::2", "fd00:42::2");
    // A host is seen as the address of its device.
    await reaches("a", "10.42.1.2", "10.42.0.0");
    const written = (await client.get(nodes, "b")).metadata.annotations;
    expect(written).toMatchObject({
      "flannel.alpha.coreos.com/backend-type": "vxlan",
      "flannel.alpha.coreos.com/public-ip": "192.0.2.2",
    });
    const conflist = JSON.parse(String(await readFileIfExists(`${folder}/b/10-mote.conflist`))) as {
      plugins: readonly unknown[];
    };
    expect(conflist.plugins[0]).toMatchObject({
      mtu: 1430,
      ipam: { ranges: [[{ subnet: "10.42.1.0/24" }], [{ subnet: "fd00:42:0:1::/64" }]] },
    });
  });

  test("a restart touches nothing", async () => {
    await stop("a");
    await reaches("pod-a", "10.42.1.2", "10.42.0.2");
    changes["a"] = [];
    await start("a", "vxlan");
    expect(changes["a"]).toEqual([]);
    await reaches("pod-a", "10.42.1.2", "10.42.0.2");
  });

  test("a host gets another address, and is reached there", async () => {
    await run(
      "b",
      "ip -4 addr flush dev eth0; ip addr add 192.0.2.12/24 dev eth0; ip route add default via 192.0.2.254",
    );
    told.b = "2";
    await reaches("pod-a", "10.42.1.2", "10.42.0.2");
    await reaches("pod-b", "10.42.2.2", "10.42.1.2");
    expect(await run("a", "bridge fdb show dev flannel.1")).toContain("dst 192.0.2.12 ");
    expect(await run("a", "bridge fdb show dev flannel.1")).not.toContain("dst 192.0.2.2 ");
  });

  test("what somebody took away comes back", async () => {
    await run("a", "ip link delete dev flannel.1");
    expect(await ask("pod-a", "10.42.2.2")).not.toContain("10.42.0.2");
    told.a = "2";
    await reaches("pod-a", "10.42.2.2", "10.42.0.2");
  });

  test("a node that has gone leaves nothing behind; one that comes is reached", async () => {
    const c = await client.get(nodes, "c");
    await stop("c");
    await client.delete(nodes, { name: "c" });
    await until(
      async () => !(await run("a", "ip route; bridge fdb show dev flannel.1; ip neigh")).includes("10.42.2."),
    );
    await client.create(nodes, { ...c, metadata: { name: "c" } } as Node);
    await start("c", "vxlan");
    await reaches("pod-a", "10.42.2.2", "10.42.0.2");
  });

  test("host-gw: routes instead of devices; a node behind a router is told of", async () => {
    for (const host of hosts) await stop(host);
    const annotations = {
      "flannel.alpha.coreos.com/backend-type": "host-gw",
      "flannel.alpha.coreos.com/kube-subnet-manager": "true",
      "flannel.alpha.coreos.com/public-ip": "198.51.100.1",
    };
    const spec = { podCIDR: "10.42.9.0/24", podCIDRs: ["10.42.9.0/24"] };
    await client.create(nodes, {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name: "far", annotations },
      spec,
    } as Node);
    await Promise.all(hosts.map((host) => start(host, "host-gw")));
    await reaches("pod-a", "10.42.1.2", "10.42.0.2");
    await reaches("pod-c", "10.42.0.2", "10.42.2.2");
    await reaches("pod-c", "fd00:42::2", "fd00:42:0:2::2");
    expect(await run("a", "ip -br link")).not.toContain("flannel");
    expect(await run("a", "ip route")).toContain("10.42.1.0/24 via 192.0.2.12 dev eth0");
    expect(events).toContain("a OverlayPeerNotOnLink");
  });

  test("none: another plugin's device, routes and configuration are left alone, and so is what it tells of the node", async () => {
    await stop("c");
    await run("c", "ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 nolearning; ip link set flannel.1 up");
    await run(
      "c",
      "ip route replace 10.42.77.0/24 via 192.0.2.1; mkdir -p $0; echo theirs > $0/05-other.conflist".replaceAll(
        "$0",
        `${folder}/c`,
      ),
    );
    const theirs = {
      "flannel.alpha.coreos.com/backend-type": "vxlan",
      "flannel.alpha.coreos.com/public-ip": "192.0.2.3",
    };
    // Of mote only the MTU is left, as when it was ours before.
    const ours = { "mote.local/overlay-mtu": null };
    await client.patch(nodes, { name: "c" }, { metadata: { annotations: { ...theirs, ...ours } } });
    const state = () =>
      run("c", `ip -d link show flannel.1; ip route show 10.42.77.0/24; cat ${folder}/c/05-other.conflist`);
    const before = await state();
    await start("c", "none");
    // Its own routes go: that says that it has looked.
    await until(async () => !(await run("c", "ip route")).includes("proto 109"));
    expect(await state()).toBe(before);
    expect((await client.get(nodes, "c")).metadata.annotations).toMatchObject(theirs);
    await run("c", "ip link delete flannel.1; ip route delete 10.42.77.0/24");
  });

  test("removal, twice", async () => {
    for (const host of hosts) await stop(host);
    await Promise.all([removeOverlay(inside("a")), removeOverlay(inside("a"))]);
    expect(await run("a", "ip route")).not.toContain("10.42.1.");
    await removeOverlay(inside("a"));
  });
});
