// The name server over real UDP and TCP on loopback, with a resolver of our own behind it.
import { type Answer, type DecodedPacket, decode, encode, type RecordType } from "dns-packet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import { InformerFactory } from "#client/informer.ts";
import type { Node, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { endpointSlices, namespaces, nodes, services } from "#model/resources.ts";
import { systemClock } from "#platform/clock.ts";
import { connectTcp, listenTcp, openUdp } from "#platform/datagram.ts";
import { readFileIfExists } from "#platform/files.ts";
import { type Commands, runChecked, systemCommands } from "#platform/processes.ts";
import { systemRandom } from "#platform/random.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { until } from "#test/harness/until.ts";
import { createClusterDns, dnsServiceObjects, ensureDnsService, removeClusterDns } from "./cluster-dns.ts";
import { framed, messagesIn } from "./dns/forwarder.ts";

const address = "127.0.0.1";
const client = new Client(new FakeTransport());
const stop = new AbortController();
let port = 0;
let running: Promise<unknown>[] = [];
const closers: (() => Promise<void>)[] = [];
/** Questions the resolver behind us was asked, in order. */
const forwarded: string[] = [];

beforeAll(async () => {
  const upstream = await startUpstream();
  port = await freePort();
  await client.create(namespaces, { metadata: { name: "default" }, spec: {} });
  await put("web", { clusterIP: "10.43.0.7" }, ["10.42.0.3"]);
  await put("db", { clusterIP: "None" }, ["10.42.0.5", "10.42.0.6"]);
  await put("ext", { type: "ExternalName", externalName: "alias.example.org." }, []);
  const many = Array.from({ length: 60 }, (_, i) => `10.42.1.${i + 1}`);
  await put("many", { clusterIP: "None" }, many);
  const node: Node = {
    metadata: { name: "edge-1" },
    spec: {},
    status: { addresses: [{ type: "InternalIP", address: "192.0.2.9" }] },
  };
  await client.create(nodes, node);
  const informers = new InformerFactory({}, { client, clock: systemClock, random: systemRandom, log: silentLogger });
  const dns = createClusterDns(
    {
      addresses: [address],
      port,
      clusterDomain: "cluster.local",
      addsAddress: false,
      upstreams: [{ address, port: upstream }],
    },
    { informers, commands: systemCommands, clock: systemClock, random: systemRandom, log: silentLogger },
  );
  await new Promise<void>((ready) => {
    running = [dns.run(stop.signal, ready), informers.run(stop.signal, () => {})];
  });
});

afterAll(async () => {
  stop.abort();
  await Promise.all(running);
  for (const close of closers) await close();
});

const zoneName = (name: string) => `${name}.default.svc.cluster.local`;
const dataOf = (packet: DecodedPacket) => (packet.answers ?? []).map((a) => ("data" in a ? a.data : ""));
const rcodeOf = (packet: DecodedPacket) => (packet as DecodedPacket & { rcode: string }).rcode;

describe("cluster names", () => {
  test("a service, over UDP and TCP", async () => {
    for (const ask of [askUdp, askTcp]) {
      const response = await ask(query(zoneName("web"), "A"));
      expect(dataOf(response)).toEqual(["10.43.0.7"]);
      expect(response.answers?.[0]).toMatchObject({ ttl: 5, name: zoneName("web") });
      expect([response.id, response.flag_aa, response.flag_ra, response.flag_tc]).toEqual([7, true, true, false]);
    }
  });

  test("a headless service gives all endpoints", async () => {
    expect(dataOf(await askUdp(query(zoneName("db"), "A"))).sort()).toEqual(["10.42.0.5", "10.42.0.6"]);
    expect(dataOf(await askUdp(query(`10-42-0-5.${zoneName("db")}`, "A")))).toEqual(["10.42.0.5"]);
  });

  test("SRV, PTR of services and endpoints, node names", async () => {
    const srv = await askUdp(query(`_main._tcp.${zoneName("web")}`, "SRV"));
    expect(srv.answers?.[0]).toMatchObject({ data: { priority: 0, weight: 100, port: 80, target: zoneName("web") } });
    expect(srv.additionals?.[0]).toMatchObject({ type: "A", data: "10.43.0.7" });
    expect(dataOf(await askUdp(query("7.0.43.10.in-addr.arpa", "PTR")))).toEqual([zoneName("web")]);
    expect(dataOf(await askUdp(query("5.0.42.10.in-addr.arpa", "PTR")))).toEqual([`10-42-0-5.${zoneName("db")}`]);
    expect(dataOf(await askUdp(query("edge-1", "A")))).toEqual(["192.0.2.9"]);
  });

  test("names that are not there say so with the zone's SOA", async () => {
    const missing = await askUdp(query(zoneName("nope"), "A"));
    expect([rcodeOf(missing), missing.answers?.length]).toEqual(["NXDOMAIN", 0]);
    expect(missing.authorities?.[0]).toMatchObject({ type: "SOA", name: "cluster.local", data: { minimum: 5 } });
    const noData = await askUdp(query(zoneName("web"), "AAAA"));
    expect([rcodeOf(noData), noData.authorities?.[0]?.type]).toEqual(["NOERROR", "SOA"]);
  });

  test("follows changes", async () => {
    await put("late", { clusterIP: "10.43.0.99" }, []);
    await until(async () => dataOf(await askUdp(query(zoneName("late"), "A")))[0] === "10.43.0.99");
    await client.delete(services, { name: "late", namespace: "default" });
    await until(async () => rcodeOf(await askUdp(query(zoneName("late"), "A"))) === "NXDOMAIN");
  });

  test("an answer too large for UDP is cut and marked, and whole over TCP", async () => {
    const cut = await askUdp(query(zoneName("many"), "A"));
    expect(cut.flag_tc).toBe(true);
    expect(cut.answers?.length).toBeGreaterThan(0);
    const wider = await askUdp(query(zoneName("many"), "A", 1232));
    expect(wider.answers?.length).toBeGreaterThan(cut.answers?.length ?? 0);
    expect(wider.additionals?.some((a) => a.type === "OPT")).toBe(true);
    const whole = await askTcp(query(zoneName("many"), "A"));
    expect([whole.flag_tc, whole.answers?.length]).toEqual([false, 60]);
  });
});

describe("other names", () => {
  test("are forwarded, and asked for once", async () => {
    const first = await askUdp(query("one.example.org", "A"));
    expect(dataOf(first)).toEqual(["203.0.113.1"]);
    const again = await askUdp(query("ONE.example.org", "A"));
    expect(dataOf(again)).toEqual(["203.0.113.1"]);
    expect(again.questions?.[0]?.name).toBe("ONE.example.org");
    expect(forwarded.filter((q) => q.startsWith("udp one.example.org"))).toHaveLength(1);
  });

  test("an answer that was cut is fetched over TCP", async () => {
    const response = await askTcp(query("big.example.org", "TXT"));
    expect(response.answers?.length).toBe(8);
    expect(forwarded).toContain("tcp big.example.org");
    const small = await askUdp(query("big.example.org", "TXT"));
    expect([small.flag_tc, small.answers?.length]).toEqual([true, 0]);
  });

  test("ExternalName: the alias and what it leads to", async () => {
    const response = await askUdp(query(zoneName("ext"), "A"));
    expect(dataOf(response)).toEqual(["alias.example.org", "203.0.113.1"]);
  });

  test("no answer from the resolver is SERVFAIL", async () => {
    const response = await askUdp(query("silent.example.org", "A"));
    expect(rcodeOf(response)).toBe("SERVFAIL");
  });
});

describe("malformed input", () => {
  const header = (counts: number[]) => Buffer.from([0, 7, 1, 0, ...counts.flatMap((n) => [0, n])]);
  test.each<[string, Buffer, string]>([
    ["no question", header([0, 0, 0, 0]), "FORMERR"],
    ["name runs over the end", Buffer.concat([header([1, 0, 0, 0]), Buffer.from([60, 97])]), "FORMERR"],
    ["pointer to itself", Buffer.concat([header([1, 0, 0, 0]), Buffer.from([0xc0, 12, 0, 1, 0, 1])]), "FORMERR"],
    ["more records than bytes", Buffer.concat([header([1, 0, 0, 1]), Buffer.from([0, 0, 1, 0, 1])]), "FORMERR"],
    ["an opcode nobody serves", Buffer.from(query("x", "A").map((b, i) => (i === 2 ? 0x28 : b))), "NOTIMP"],
  ])("%s", async (_, message, rcode) => {
    expect(rcodeOf(await askUdp(message))).toBe(rcode);
  });

  test("garbage and responses are ignored, and the server lives on", async () => {
    const socket = await openUdp({ address, port: 0, onMessage: () => {}, onError: () => {} });
    socket.send(Buffer.from([1, 2, 3]), port, address);
    socket.send(Buffer.alloc(600, 0xff), port, address);
    await socket.close();
    expect(dataOf(await askUdp(query(zoneName("web"), "A")))).toEqual(["10.43.0.7"]);
  });
});

test("a port that is taken does not hold up the node, and is used once it is free", async () => {
  const port = await freePort();
  const holder = await openUdp({ address, port, onMessage: () => {}, onError: () => {} });
  const quiet = new AbortController();
  const deps = { client, clock: systemClock, random: systemRandom, log: silentLogger };
  const informers = new InformerFactory({}, deps);
  const dns = createClusterDns(
    { addresses: [address], port, clusterDomain: "cluster.local", addsAddress: false, upstreams: [] },
    { ...deps, informers, commands: systemCommands },
  );
  let work: Promise<unknown>[] = [];
  await new Promise<void>((ready) => {
    work = [dns.run(quiet.signal, ready), informers.run(quiet.signal, () => {})];
  });
  await holder.close();
  await until(async () => {
    const answer = await askUdp(query(zoneName("web"), "A"), 200, port).catch(() => undefined);
    return answer !== undefined && dataOf(answer)[0] === "10.43.0.7";
  });
  // Nobody to forward to.
  expect(rcodeOf(await askUdp(query("example.org", "A"), 30_000, port))).toBe("SERVFAIL");
  quiet.abort();
  await Promise.all(work);
});

const ns = `mrd${process.pid.toString(36)}`;
const hasIpv6 = (await readFileIfExists("/proc/net/if_inet6")) !== undefined;
const canMakeNamespaces =
  process.getuid?.() === 0 &&
  (await systemCommands.run("sh", ["-c", "ip netns add $0 && ip netns delete $0", ns])).code === 0;

test.skipIf(!canMakeNamespaces)("the addresses are added once and taken away (needs namespaces)", async () => {
  await runChecked(systemCommands, "ip", ["netns", "add", ns]);
  const inside: Commands = {
    run: (program, args, options) => systemCommands.run("ip", ["netns", "exec", ns, program, ...args], options),
  };
  const addresses = async () => {
    const shown = await runChecked(inside, "ip", ["-j", "addr", "show", "dev", "lo"]);
    const all = (JSON.parse(shown) as { addr_info: { local: string; deprecated?: true }[] }[])[0]?.addr_info;
    return all?.map(({ local, deprecated }) => `${local}${deprecated ? " deprecated" : ""}`);
  };
  const own = hasIpv6 ? ["127.0.0.1", "::1"] : ["127.0.0.1"];
  const added = hasIpv6 ? ["10.43.0.10", "fd00:43::a"] : ["10.43.0.10"];
  try {
    await runChecked(inside, "ip", ["link", "set", "lo", "up"]);
    for (let i = 0; i < 2; i++) {
      const quiet = new AbortController();
      const deps = { client, clock: systemClock, random: systemRandom, log: silentLogger };
      const informers = new InformerFactory({}, deps);
      // The socket is opened outside of the namespace, where the address is not: that part fails and is no matter here.
      const dns = createClusterDns(
        { addresses: added, port: await freePort(), clusterDomain: "cluster.local", addsAddress: true },
        { ...deps, informers, commands: inside },
      );
      let work: Promise<unknown>[] = [];
      await new Promise<void>((ready) => {
        work = [dns.run(quiet.signal, ready), informers.run(quiet.signal, () => {})];
      });
      quiet.abort();
      await Promise.all(work);
      const shown = await addresses();
      // The kernel must not choose it for what the machine sends by itself.
      const expected = [...own, "10.43.0.10", ...(hasIpv6 ? ["fd00:43::a deprecated"] : [])];
      expect(shown?.sort()).toEqual(expected.sort());
    }
    await removeClusterDns(inside);
    expect(await addresses()).toEqual(own);
    await removeClusterDns(inside);
  } finally {
    await runChecked(systemCommands, "ip", ["netns", "delete", ns]);
  }
});

test("the kube-dns objects are created once, and a Service of another is left alone", async () => {
  await ensureDnsService(client, ["10.43.0.10"]);
  await ensureDnsService(client, ["10.43.0.10"]);
  expect((await client.get(services, "kube-dns", "kube-system")).spec.clusterIP).toBe("10.43.0.10");
  const slices = await client.list(endpointSlices, { namespace: "kube-system" });
  expect(slices.items.map((s) => s.endpoints[0]?.addresses)).toEqual([["10.43.0.10"]]);
  const other = new Client(new FakeTransport());
  const { service } = dnsServiceObjects(["10.43.0.10"]);
  await other.create(services, { ...service, spec: { ...service.spec, selector: { "k8s-app": "coredns" } } });
  await ensureDnsService(other, ["10.43.0.10"]);
  expect((await other.list(endpointSlices, { namespace: "kube-system" })).items).toEqual([]);
});

test("with two families the kube-dns Service has both addresses, and a slice for each", () => {
  const { service, slices } = dnsServiceObjects(["10.43.0.10", "fd00:43::a"]);
  expect(service.spec).toMatchObject({
    ...{ clusterIP: "10.43.0.10", clusterIPs: ["10.43.0.10", "fd00:43::a"] },
    ...{ ipFamilies: ["IPv4", "IPv6"], ipFamilyPolicy: "RequireDualStack" },
  });
  expect(slices.map(({ metadata, addressType }) => [metadata.name, addressType])).toEqual([
    ["kube-dns-mote", "IPv4"],
    ["kube-dns-mote-ipv6", "IPv6"],
  ]);
});

test.skipIf(!hasIpv6)("one of two addresses that cannot be had holds up no other", async () => {
  const quiet = new AbortController();
  const deps = { client, clock: systemClock, random: systemRandom, log: silentLogger };
  const informers = new InformerFactory({}, deps);
  const port = await freePort();
  const dns = createClusterDns(
    { addresses: ["2001:db8::53", address], port, clusterDomain: "cluster.local", addsAddress: false, upstreams: [] },
    { ...deps, informers, commands: systemCommands },
  );
  let work: Promise<unknown>[] = [];
  await new Promise<void>((ready) => {
    work = [dns.run(quiet.signal, ready), informers.run(quiet.signal, () => {})];
  });
  expect(dataOf(await askUdp(query(zoneName("web"), "A"), 30_000, port))).toEqual(["10.43.0.7"]);
  quiet.abort();
  await Promise.all(work);
});

async function freePort(): Promise<number> {
  const socket = await openUdp({ address, port: 0, onMessage: () => {}, onError: () => {} });
  await socket.close();
  return socket.port;
}

function query(name: string, type: RecordType, udpPayloadSize?: number): Buffer {
  const opt = {
    type: "OPT",
    name: ".",
    udpPayloadSize,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
  return encode({
    type: "query",
    id: 7,
    flags: 0x100,
    questions: [{ name, type }],
    ...(udpPayloadSize ? { additionals: [opt as unknown as Answer] } : {}),
  });
}

async function askUdp(message: Buffer, timeoutMs = 30_000, to = port): Promise<DecodedPacket> {
  let take: (answer: Buffer) => void = () => {};
  const answer = new Promise<Buffer>((resolve) => {
    take = resolve;
  });
  const socket = await openUdp({ address, port: 0, onMessage: take, onError: () => {} });
  try {
    socket.send(message, to, address);
    const late = systemClock.sleep(timeoutMs).then(() => Promise.reject(new Error("no answer")));
    late.catch(() => {});
    return decode(await Promise.race([answer, late]));
  } finally {
    await socket.close();
  }
}

async function askTcp(message: Buffer): Promise<DecodedPacket> {
  const abort = new AbortController();
  const connection = await connectTcp(address, port, abort.signal);
  try {
    // In two pieces: a message may arrive in any.
    connection.write(framed(message).subarray(0, 5));
    await systemClock.sleep(20);
    connection.write(framed(message).subarray(5));
    for await (const response of messagesIn(connection.chunks)) return decode(response);
    throw new Error("connection closed");
  } finally {
    connection.close();
  }
}

/** example.org: `one` and `alias` have an address, `big` needs TCP, `silent` is never answered. */
async function startUpstream(): Promise<number> {
  const respond = (message: Buffer, transport: "udp" | "tcp"): Buffer | undefined => {
    const request = decode(message);
    const question = request.questions?.[0];
    const name = question?.name.toLowerCase() ?? "";
    forwarded.push(`${transport} ${name}`);
    if (name === "silent.example.org") return undefined;
    const isCut = name === "big.example.org" && transport === "udp";
    const texts = Array.from({ length: 8 }, (_, i) => ({
      type: "TXT" as const,
      name,
      ttl: 60,
      data: "x".repeat(200) + i,
    }));
    const big = name === "big.example.org" ? texts : [{ type: "A" as const, name, ttl: 60, data: "203.0.113.1" }];
    return encode({
      type: "response",
      id: request.id ?? 0,
      flags: 0x180 | (isCut ? 0x200 : 0),
      questions: request.questions ?? [],
      answers: isCut ? [] : big,
    });
  };
  const udp = await openUdp({
    address,
    port: 0,
    onMessage(message, from) {
      const response = respond(message, "udp");
      if (response) udp.send(response, from.port, from.address);
    },
    onError: () => {},
  });
  const tcp = await listenTcp({
    address,
    port: udp.port,
    maxConnections: 10,
    onConnection(connection) {
      const work = async () => {
        for await (const message of messagesIn(connection.chunks)) {
          const response = respond(message, "tcp");
          if (response) connection.write(framed(response));
        }
      };
      running.push(work());
    },
  });
  closers.push(
    () => udp.close(),
    () => tcp.close(),
  );
  return udp.port;
}

async function put(name: string, spec: Service["spec"], addresses: readonly string[]): Promise<void> {
  const service: Service = {
    metadata: { name, namespace: "default" },
    spec: { ...spec, ports: [{ name: "main", port: 80, protocol: "TCP" }] },
  };
  const slice: EndpointSlice = {
    metadata: { name, namespace: "default", labels: { "kubernetes.io/service-name": name } },
    addressType: "IPv4",
    endpoints: addresses.map((ip) => ({ addresses: [ip], conditions: { ready: true } })),
    ports: [{ name: "main", port: 8080, protocol: "TCP" }],
  };
  await client.create(services, service);
  await client.create(endpointSlices, slice);
}
