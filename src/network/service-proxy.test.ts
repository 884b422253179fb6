// The real rules in real network namespaces: a node with a bridge and two pods, and a client outside.
//
//   client 192.0.2.2 ── 192.0.2.1 node 10.42.0.1 ──bridge──┬── pod a 10.42.0.11
//                                                          └── pod b 10.42.0.12
//
// and the same with 2001:db8::2, 2001:db8::1, fd00:42::1, fd00:42::11 and fd00:42::12.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { endpointSlices, services } from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { type Commands, runChecked, systemCommands } from "#platform/processes.ts";
import { systemRandom } from "#platform/random.ts";
import type { Sysctl } from "#platform/sysctl.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { until } from "#test/harness/until.ts";
import { createServiceProxy, removeServiceProxy } from "./service-proxy.ts";

const suffix = process.pid.toString(36);
const ns = { node: `mpn${suffix}`, client: `mpc${suffix}`, a: `mpa${suffix}`, b: `mpb${suffix}` } as const;
type Where = keyof typeof ns;

const inside = (where: Where): Commands => ({
  run: (program, args, options) => systemCommands.run("ip", ["netns", "exec", ns[where], program, ...args], options),
});
const run = (where: Where, line: string) => runChecked(inside(where), "sh", ["-c", line]);
const nodeSysctl: Sysctl = {
  async read(name) {
    const result = await inside("node").run("cat", [`/proc/sys/${name.replaceAll(".", "/")}`]);
    return result.code === 0 ? result.stdout.trim() : undefined;
  },
  async write(name, value) {
    await run("node", `echo ${value} > /proc/sys/${name.replaceAll(".", "/")}`);
  },
};

/** Answers every TCP connection and datagram on 8080 with its name and the address it saw. */
const serverScript = `
const name = process.argv[1];
require("net").createServer((s) => { s.on("error", () => {}); s.end(name + " " + s.remoteAddress.replace("::ffff:", "")); }).listen(8080, "::");
const u = require("dgram").createSocket("udp6");
u.on("message", (m, from) => u.send(name + " " + from.address.replace("::ffff:", ""), from.port, from.address));
u.bind(8080);
`;
/** Asks \`count\` times; prints one JSON list of answers or error codes. UDP asks from one fixed port when given. */
const probeScript = `
const [proto, host, port, count, from, patienceMs] = process.argv.slice(1);
const tcp = () => new Promise((done) => {
  const s = require("net").connect({ host, port: Number(port) });
  let text = "";
  s.setTimeout(Number(patienceMs), () => { done("TIMEOUT"); s.destroy(); });
  s.on("data", (d) => { text += d; }).on("error", (e) => done(e.code)).on("end", () => done(text));
});
const udp = () => new Promise((done) => {
  const s = require("dgram").createSocket(host.includes(":") ? "udp6" : "udp4");
  const timer = setTimeout(() => end("TIMEOUT"), Number(patienceMs));
  const end = (what) => { clearTimeout(timer); s.close(() => done(what)); };
  s.on("message", (m) => end(String(m))).on("error", (e) => end(e.code));
  s.bind(Number(from || 0), () => s.connect(Number(port), host, () => s.send("x", (e) => e && end(e.code))));
});
(async () => {
  const out = [];
  for (let i = 0; i < Number(count); i++) out.push(await (proto === "tcp" ? tcp() : udp()));
  console.log(JSON.stringify(out));
})();
`;

/** `patienceMs`: for each answer; what never comes is "TIMEOUT". */
async function probe(
  where: Where,
  proto: "tcp" | "udp",
  host: string,
  port: number,
  count = 1,
  from = 0,
  patienceMs = 5000,
) {
  const args = ["-e", probeScript, proto, host, String(port), String(count), String(from), String(patienceMs)];
  return JSON.parse(await runChecked(inside(where), process.execPath, args)) as string[];
}
const names = (answers: readonly string[]) => new Set(answers.map((answer) => answer.split(" ")[0]));

const whyNot = await (async (): Promise<string | undefined> => {
  if (process.getuid?.() !== 0) return "needs root for network namespaces";
  const tools = await systemCommands.run("sh", ["-c", "command -v nft && command -v ip && command -v conntrack"]);
  if (tools.code !== 0) return "needs nft, ip and conntrack";
  const tried = await systemCommands.run("sh", [
    "-c",
    "ip netns add $0 && ip netns exec $0 nft list ruleset && ip netns delete $0",
    ns.a,
  ]);
  return tried.code === 0 ? undefined : `network namespaces cannot be made here: ${tried.stderr.trim()}`;
})();

describe.skipIf(whyNot !== undefined)(
  `service proxy in network namespaces${whyNot ? ` (skipped: ${whyNot})` : ""}`,
  { timeout: 60_000 },
  () => {
    const stop = new AbortController();
    const servers: Promise<unknown>[] = [];
    const client = new Client(new FakeTransport());
    let running: Promise<unknown>[] = [];

    beforeAll(async () => {
      for (const name of Object.values(ns)) await runChecked(systemCommands, "ip", ["netns", "add", name]);
      await run(
        "node",
        `echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         ip link set lo up; ip link add br0 type bridge; ip addr add 10.42.0.1/24 dev br0
         ip addr add fd00:42::1/64 dev br0 nodad; ip link set br0 up`,
      );
      for (const [where, address] of [
        ["a", "10.42.0.11"],
        ["b", "10.42.0.12"],
      ] as const) {
        await run("node", `ip link add v${where} type veth peer name eth0 netns ${ns[where]}`);
        await run("node", `ip link set v${where} master br0 up; ip link set v${where} type bridge_slave hairpin on`);
        const address6 = `fd00:42::${address.slice(-2)}`;
        await run(
          where,
          `ip link set lo up; ip addr add ${address}/24 dev eth0; ip addr add ${address6}/64 dev eth0 nodad; ip link set eth0 up`,
        );
        await run(where, "ip route add default via 10.42.0.1; ip route add default via fd00:42::1");
      }
      await run("node", `ip link add up0 type veth peer name eth0 netns ${ns.client}`);
      await run("node", "ip addr add 192.0.2.1/24 dev up0; ip link set up0 up; ip route add default via 192.0.2.2");
      await run("node", "ip addr add 2001:db8::1/64 dev up0 nodad; ip route add default via 2001:db8::2 dev up0");
      await run("client", "ip link set lo up; ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up");
      await run("client", "ip addr add 2001:db8::2/64 dev eth0 nodad; ip route add fd00:43::/112 via 2001:db8::1");
      await run("client", "ip route add 10.43.0.0/16 via 192.0.2.1; ip route add 198.51.100.0/24 via 192.0.2.1");
      for (const where of ["a", "b", "client", "node"] as const) {
        const args = ["-e", serverScript, where];
        const options = { signal: stop.signal, timeoutMs: 600_000 };
        servers.push(
          inside(where)
            .run(process.execPath, args, options)
            .catch(() => undefined),
        );
      }
      for (const where of ["a", "b", "client", "node"] as const) {
        await until(async () => (await probe(where, "tcp", "127.0.0.1", 8080))[0]?.startsWith(where) === true);
      }
      const informers = new InformerFactory(
        {},
        { client, clock: systemClock, random: systemRandom, log: silentLogger },
      );
      const proxy = createServiceProxy(
        {
          nodeName: "n1",
          clusterCidrs: ["10.42.0.0/16", "fd00:42::/56"],
          masqueradesIpv6: true,
          localServiceIps: ["10.43.0.10"],
        },
        { informers, commands: inside("node"), sysctl: nodeSysctl, clock: systemClock, log: silentLogger },
      );
      await new Promise<void>((ready) => {
        running = [proxy.run(stop.signal, ready), informers.run(stop.signal, () => {})];
      });
    });

    afterAll(async () => {
      stop.abort();
      await Promise.all(running);
      await Promise.all(servers);
      for (const name of Object.values(ns)) await systemCommands.run("ip", ["netns", "delete", name]);
    });

    test("cluster IP: spreads over endpoints, keeps the pod's address, refuses unknown ports", async () => {
      await put("web", { clusterIP: "10.43.0.1" }, [["10.42.0.11"], ["10.42.0.12"]]);
      await until(async () => (await probe("node", "tcp", "10.43.0.1", 80))[0]?.includes(" ") === true);
      expect(names(await probe("node", "tcp", "10.43.0.1", 80, 30))).toEqual(new Set(["a", "b"]));
      const fromPod = await probe("a", "tcp", "10.43.0.1", 80, 30);
      expect(names(fromPod)).toEqual(new Set(["a", "b"]));
      expect(fromPod).toContain("b 10.42.0.11");
      // To itself: the answer has to come back through the node.
      expect(fromPod).toContain("a 10.42.0.1");
      expect(names(await probe("client", "tcp", "10.43.0.1", 80, 20))).toEqual(new Set(["a", "b"]));
      expect(await probe("node", "tcp", "10.43.0.1", 81)).toEqual(["ECONNREFUSED"]);
      expect(await probe("a", "tcp", "10.43.0.1", 81)).toEqual(["ECONNREFUSED"]);
    });

    test("UDP, and flows to an endpoint that has gone are forgotten", async () => {
      await put("dns", { clusterIP: "10.43.0.2" }, [["10.42.0.11"]], "UDP");
      await until(async () => (await probe("b", "udp", "10.43.0.2", 80))[0] === "a 10.42.0.12");
      expect(await probe("b", "udp", "10.43.0.2", 80, 1, 5555)).toEqual(["a 10.42.0.12"]);
      await put("dns", { clusterIP: "10.43.0.2" }, [["10.42.0.12"]], "UDP");
      await until(async () => (await probe("a", "udp", "10.43.0.2", 80))[0] === "b 10.42.0.11");
      // The same source port as before: without the clean-up this would still go to a.
      expect((await probe("b", "udp", "10.43.0.2", 80, 1, 5555))[0]).toMatch(/^b /);
    });

    test("node port: from outside, from pods, on localhost; Local keeps the client's address", async () => {
      await put("np", { clusterIP: "10.43.0.3", type: "NodePort", nodePort: 30080 }, [["10.42.0.11"], ["10.42.0.12"]]);
      await until(async () => (await probe("client", "tcp", "192.0.2.1", 30080))[0]?.includes(" ") === true);
      const outside = await probe("client", "tcp", "192.0.2.1", 30080, 20);
      expect(new Set(outside)).toEqual(new Set(["a 10.42.0.1", "b 10.42.0.1"]));
      expect(names(await probe("a", "tcp", "192.0.2.1", 30080, 20))).toEqual(new Set(["a", "b"]));
      expect(names(await probe("node", "tcp", "127.0.0.1", 30080, 20))).toEqual(new Set(["a", "b"]));
      await put("np", { clusterIP: "10.43.0.3", type: "NodePort", nodePort: 30080, externalTrafficPolicy: "Local" }, [
        ["10.42.0.11", "n1"],
        ["10.42.0.12", "other"],
      ]);
      await until(async () => (await probe("client", "tcp", "192.0.2.1", 30080))[0] === "a 192.0.2.2");
      expect(new Set(await probe("client", "tcp", "192.0.2.1", 30080, 10))).toEqual(new Set(["a 192.0.2.2"]));
      await put("np", { clusterIP: "10.43.0.3", type: "NodePort", nodePort: 30080, externalTrafficPolicy: "Local" }, [
        ["10.42.0.12", "other"],
      ]);
      await until(async () => (await probe("client", "tcp", "192.0.2.1", 30080, 1, 0, 700))[0] === "TIMEOUT");
    });

    test("session affinity holds, and survives changes of other services", async () => {
      const spec = { clusterIP: "10.43.0.4", sessionAffinity: "ClientIP" };
      await put("sticky", spec, [["10.42.0.11"], ["10.42.0.12"]]);
      await until(async () => (await probe("client", "tcp", "10.43.0.4", 80))[0]?.includes(" ") === true);
      const first = names(await probe("client", "tcp", "10.43.0.4", 80, 20));
      expect(first.size).toBe(1);
      await put("other", { clusterIP: "10.43.0.5" }, [["10.42.0.11"]]);
      await until(async () => (await probe("node", "tcp", "10.43.0.5", 80))[0]?.startsWith("a") === true);
      expect(names(await probe("client", "tcp", "10.43.0.4", 80, 20))).toEqual(first);
    });

    test("no endpoints: refused at once; external IPs; endpoints that come back", async () => {
      await put(
        "empty",
        { clusterIP: "10.43.0.6", externalIPs: ["198.51.100.7"], nodePort: 30081, type: "NodePort" },
        [],
      );
      await until(async () => (await probe("node", "tcp", "10.43.0.6", 80))[0] === "ECONNREFUSED");
      expect(await probe("client", "tcp", "198.51.100.7", 80)).toEqual(["ECONNREFUSED"]);
      expect(await probe("client", "tcp", "192.0.2.1", 30081)).toEqual(["ECONNREFUSED"]);
      expect(await probe("b", "tcp", "10.43.0.6", 80)).toEqual(["ECONNREFUSED"]);
      await put("empty", { clusterIP: "10.43.0.6", externalIPs: ["198.51.100.7"], nodePort: 30081, type: "NodePort" }, [
        ["10.42.0.12"],
      ]);
      await until(async () => (await probe("client", "tcp", "198.51.100.7", 80))[0]?.startsWith("b") === true);
      expect((await probe("client", "tcp", "192.0.2.1", 30081))[0]).toMatch(/^b /);
    });

    test("pods reach the outside under the node's address", async () => {
      expect(await probe("a", "tcp", "192.0.2.2", 8080)).toEqual(["client 192.0.2.1"]);
      expect(await probe("a", "tcp", "10.42.0.12", 8080)).toEqual(["b 10.42.0.11"]);
    });

    test("the node itself as endpoint, as the API server is", async () => {
      await put("api", { clusterIP: "10.43.0.9" }, [["192.0.2.1"]]);
      await until(async () => (await probe("a", "tcp", "10.43.0.9", 80))[0] === "node 10.42.0.11");
      expect((await probe("node", "tcp", "10.43.0.9", 80))[0]).toMatch(/^node /);
      expect((await probe("client", "tcp", "10.43.0.9", 80))[0]).toMatch(/^node /);
    });

    test("a cluster address that the node serves itself is left alone", async () => {
      await run("node", "ip addr add 10.43.0.10/32 dev lo label lo:mote scope host");
      await put("kube-dns", { clusterIP: "10.43.0.10" }, []);
      await put("marker", { clusterIP: "10.43.0.11" }, []);
      await until(async () => (await probe("a", "tcp", "10.43.0.11", 80))[0] === "ECONNREFUSED");
      expect(await probe("a", "tcp", "10.43.0.10", 8080)).toEqual(["node 10.42.0.11"]);
      expect((await probe("node", "tcp", "10.43.0.10", 8080))[0]).toMatch(/^node /);
      // With that address on the loopback device masquerade must not choose it.
      expect((await probe("node", "tcp", "10.43.0.9", 80))[0]).toMatch(/^node /);
    });

    test("IPv6: cluster addresses, from everywhere; to itself; ports that are not there", async () => {
      await put("web6", { clusterIP: "fd00:43::1" }, [["fd00:42::11"], ["fd00:42::12"]]);
      await until(async () => (await probe("node", "tcp", "fd00:43::1", 80))[0]?.includes(" ") === true);
      expect(names(await probe("node", "tcp", "fd00:43::1", 80, 20))).toEqual(new Set(["a", "b"]));
      const fromPod = await probe("a", "tcp", "fd00:43::1", 80, 30);
      expect(new Set(fromPod)).toEqual(new Set(["b fd00:42::11", "a fd00:42::1"]));
      expect(names(await probe("client", "tcp", "fd00:43::1", 80, 20))).toEqual(new Set(["a", "b"]));
      expect(await probe("node", "tcp", "fd00:43::1", 81)).toEqual(["ECONNREFUSED"]);
      expect(await probe("a", "tcp", "fd00:43::1", 81)).toEqual(["ECONNREFUSED"]);
      await put("web6", { clusterIP: "fd00:43::1" }, []);
      await until(async () => (await probe("b", "tcp", "fd00:43::1", 80))[0] === "ECONNREFUSED");
    });

    test("IPv6: UDP flows to an endpoint that has gone are forgotten", async () => {
      await put("dns6", { clusterIP: "fd00:43::2" }, [["fd00:42::11"]], "UDP");
      await until(async () => (await probe("b", "udp", "fd00:43::2", 80))[0] === "a fd00:42::12");
      expect(await probe("b", "udp", "fd00:43::2", 80, 1, 5556)).toEqual(["a fd00:42::12"]);
      await put("dns6", { clusterIP: "fd00:43::2" }, [["fd00:42::12"]], "UDP");
      await until(async () => (await probe("a", "udp", "fd00:43::2", 80))[0] === "b fd00:42::11");
      expect((await probe("b", "udp", "fd00:43::2", 80, 1, 5556))[0]).toMatch(/^b /);
    });

    test("IPv6: node ports, policy Local, affinity, the outside", async () => {
      const spec = { clusterIP: "fd00:43::3", type: "NodePort", nodePort: 30086 };
      await put("np6", { ...spec, sessionAffinity: "ClientIP" }, [["fd00:42::11"], ["fd00:42::12"]]);
      await until(async () => (await probe("client", "tcp", "2001:db8::1", 30086))[0]?.includes(" ") === true);
      expect(names(await probe("client", "tcp", "2001:db8::1", 30086, 10)).size).toBe(1);
      // The kernel does not let what comes from loopback leave the machine.
      expect(await probe("node", "tcp", "::1", 30086)).toEqual(["ECONNREFUSED"]);
      await put("np6", { ...spec, externalTrafficPolicy: "Local" }, [["fd00:42::11"], ["fd00:42::12", "other"]]);
      await until(async () => (await probe("client", "tcp", "2001:db8::1", 30086))[0] === "a 2001:db8::2");
      expect(new Set(await probe("client", "tcp", "2001:db8::1", 30086, 5))).toEqual(new Set(["a 2001:db8::2"]));
      expect(names(await probe("b", "tcp", "2001:db8::1", 30086, 20))).toEqual(new Set(["a", "b"]));
      expect(await probe("a", "tcp", "2001:db8::2", 8080)).toEqual(["client 2001:db8::1"]);
      expect(await probe("a", "tcp", "fd00:42::12", 8080)).toEqual(["b fd00:42::11"]);
    });

    test("services that go leave nothing behind; removal takes the table away", async () => {
      for (const name of [
        ...["web", "dns", "np", "sticky", "other", "empty", "api", "kube-dns", "marker"],
        ...["web6", "dns6", "np6"],
      ]) {
        await client.delete(services, { name, namespace: "default" });
        await client.delete(endpointSlices, { name, namespace: "default" });
      }
      await until(async () => {
        const text = await run("node", "nft -j list table ip mote; nft -j list table ip6 mote");
        return !text.includes("default/");
      });
      await removeServiceProxy(inside("node"));
      expect(await run("node", "nft list tables")).not.toContain("mote");
      await removeServiceProxy(inside("node"));
      await put("again", { clusterIP: "10.43.0.8" }, [["10.42.0.11"]]);
      // The table is gone: the transaction fails, and the whole is written again.
      await until(async () => (await probe("node", "tcp", "10.43.0.8", 80))[0]?.startsWith("a") === true);
    });

    async function put(
      name: string,
      spec: { clusterIP: string; nodePort?: number } & Omit<Service["spec"], "ports">,
      endpoints: readonly (readonly [ip: string, node?: string])[],
      protocol = "TCP",
    ): Promise<void> {
      const { nodePort, ...rest } = spec;
      const port = { name: "main", port: 80, protocol, ...(nodePort ? { nodePort } : {}) };
      const service: Service = { metadata: { name, namespace: "default" }, spec: { ...rest, ports: [port] } };
      const slice: EndpointSlice = {
        metadata: { name, namespace: "default", labels: { "kubernetes.io/service-name": name } },
        addressType: spec.clusterIP.includes(":") ? "IPv6" : "IPv4",
        endpoints: endpoints.map(([ip, nodeName]) => ({
          addresses: [ip],
          nodeName: nodeName ?? "n1",
          conditions: { ready: true },
        })),
        ports: [{ name: "main", port: 8080, protocol }],
      };
      const write = async <T extends { metadata: { resourceVersion?: string } }>(
        create: () => Promise<T>,
        update: () => Promise<T>,
      ) => update().catch(create);
      await write(
        () => client.create(services, service),
        () => client.update(services, service),
      );
      await write(
        () => client.create(endpointSlices, slice),
        () => client.update(endpointSlices, slice),
      );
    }
  },
);
