import { describe, expect, test } from "vitest";
import { difference } from "./difference.ts";
import type { Kernel, KernelLink } from "./kernel.ts";
import type { Backend, Peer } from "./peers.ts";
import { type PlanInput, planOverlay, podMtu } from "./plan.ts";
import { underlayOf } from "./underlay.ts";
import { vtepMac } from "./vtep.ts";

const mac = "de:ad:be:ef:00:01";
const link = (ifname: string, addresses: readonly string[], more: Partial<KernelLink> = {}): KernelLink => ({
  ifname,
  mtu: 1500,
  flags: ["UP"],
  addr_info: addresses.map((text) => {
    const [local, bits] = text.split("/");
    return { family: text.includes(":") ? "inet6" : "inet", local: local!, prefixlen: Number(bits), scope: "0" };
  }),
  ...more,
});
const kernel = (links: readonly KernelLink[], more: Partial<Kernel> = {}): Kernel => ({
  links,
  routes: { 4: [], 6: [] },
  neighbours: [],
  forwards: [],
  ...more,
});
const eth0 = link("eth0", ["192.0.2.1/24", "2001:db8::1/64"]);
const peer = (name: string, n: number, publicIp: string, more: Partial<Peer> = {}): Peer => ({
  name,
  backend: "vxlan",
  sides: { 4: { subnet: `10.42.${n}.0/24`, publicIp, vtepMac: mac } },
  mtu: undefined,
  ...more,
});
const input = (backend: Backend, peers: readonly Peer[], more: Partial<PlanInput> = {}): PlanInput => ({
  nodeName: "me",
  ...{ backend, peers, vtepMac: vtepMac("me"), isDeviceFixed: false, kernel: kernel([eth0]) },
  ranges: { 4: "10.42.0.0/24" },
  underlay: { device: "eth0", mtu: 1500, addresses: { 4: "192.0.2.1", 6: "2001:db8::1" } },
  ...more,
});
const scripts = (given: PlanInput) => difference(planOverlay(given), given.kernel);
const none = { devices: [], forwards: [], routes: [] };

describe("vxlan", () => {
  test("from nothing", () => {
    expect(scripts(input("vxlan", [peer("b", 1, "192.0.2.2"), peer("c", 2, "198.51.100.9", { mtu: 1350 })]))).toEqual({
      devices: [
        `link add flannel.1 address ${vtepMac("me")} mtu 1450 type vxlan id 1 local 192.0.2.1 dstport 8472 nolearning`,
        "link set dev flannel.1 alias mote",
        "addr replace 10.42.0.0/32 dev flannel.1",
        "link set dev flannel.1 up",
        `neigh replace 10.42.1.0 lladdr ${mac} dev flannel.1 nud permanent`,
        `neigh replace 10.42.2.0 lladdr ${mac} dev flannel.1 nud permanent`,
      ],
      forwards: [
        `fdb replace ${mac} dev flannel.1 dst 192.0.2.2 self permanent`,
        `fdb replace ${mac} dev flannel.1 dst 198.51.100.9 self permanent`,
      ],
      routes: [
        "route replace 10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink proto 109",
        "route replace 10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink proto 109 mtu 1350",
      ],
    });
  });

  const vxlan = (more: Partial<KernelLink> = {}, info: Readonly<Record<string, unknown>> = {}): KernelLink =>
    link("flannel.1", ["10.42.0.0/32"], {
      ...{ mtu: 1450, address: vtepMac("me"), ifalias: "mote" },
      linkinfo: { info_kind: "vxlan", info_data: { id: 1, port: 8472, learning: false, local: "192.0.2.1", ...info } },
      ...more,
    });
  const there = (device: KernelLink): Kernel =>
    kernel([eth0, device], {
      routes: { 4: [{ dst: "10.42.1.0/24", gateway: "10.42.1.0", dev: "flannel.1", protocol: "109" }], 6: [] },
      neighbours: [{ dst: "10.42.1.0", dev: "flannel.1", lladdr: mac, state: ["PERMANENT"] }],
      forwards: [{ mac, ifname: "flannel.1", dst: "192.0.2.2" }],
    });
  const recreate = expect.arrayContaining([
    "link delete dev flannel.1",
    expect.stringMatching(/^link add flannel\.1 /),
  ]);
  test.each<[string, KernelLink, readonly Peer[], unknown]>([
    ["all there: nothing is touched", vxlan(), [peer("b", 1, "192.0.2.2")], none],
    ["down", vxlan({ flags: [] }), [peer("b", 1, "192.0.2.2")], { ...none, devices: ["link set dev flannel.1 up"] }],
    [
      "another MTU",
      vxlan({ mtu: 1400 }),
      [peer("b", 1, "192.0.2.2")],
      { ...none, devices: ["link set dev flannel.1 mtu 1450"] },
    ],
    [
      "our own address has changed",
      vxlan({}, { local: "192.0.2.77" }),
      [peer("b", 1, "192.0.2.2")],
      { ...none, devices: ["link change flannel.1 type vxlan id 1 local 192.0.2.1"] },
    ],
    [
      "k3s's device is taken over",
      vxlan({ ifalias: "" }),
      [peer("b", 1, "192.0.2.2")],
      { ...none, devices: ["link set dev flannel.1 alias mote"] },
    ],
    [
      "a peer has another address",
      vxlan(),
      [peer("b", 1, "192.0.2.3")],
      { ...none, forwards: [`fdb replace ${mac} dev flannel.1 dst 192.0.2.3 self permanent`] },
    ],
    [
      "a peer has gone",
      vxlan(),
      [],
      {
        devices: ["route delete 10.42.1.0/24 dev flannel.1 proto 109", "neigh delete 10.42.1.0 dev flannel.1"],
        forwards: [`fdb delete ${mac} dev flannel.1 dst 192.0.2.2 self`],
        routes: [],
      },
    ],
    [
      "a device that learns is made anew, with all that was on it",
      vxlan({}, { learning: true }),
      [peer("b", 1, "192.0.2.2")],
      {
        devices: recreate,
        forwards: [`fdb replace ${mac} dev flannel.1 dst 192.0.2.2 self permanent`],
        routes: ["route replace 10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink proto 109"],
      },
    ],
  ])("%s", (_, device, peers, expected) => {
    expect(scripts(input("vxlan", peers, { kernel: there(device) }))).toEqual(expected);
  });

  test("another backend's device goes with its routes; one that is not ours stays", () => {
    const given = input("host-gw", [], { kernel: there(vxlan()) });
    expect(scripts(given).devices).toEqual([
      "route delete 10.42.1.0/24 dev flannel.1 proto 109",
      "link delete dev flannel.1",
    ]);
    const foreign = kernel([eth0, vxlan({ ifalias: "" })]);
    expect(scripts(input("none", [], { kernel: foreign }))).toEqual(none);
  });

  test("a fixed device, both families", () => {
    const side = { subnet: "fd00:42:0:1::/64", publicIp: "2001:db8::2", vtepMac: mac };
    const both = peer("b", 1, "192.0.2.2");
    const given = input("vxlan", [{ ...both, sides: { ...both.sides, 6: side } }], {
      ranges: { 4: "10.42.0.0/24", 6: "fd00:42::/64" },
      isDeviceFixed: true,
    });
    const { devices, forwards, routes } = scripts(given);
    expect(devices).toContain(
      `link add flannel-v6.1 address ${vtepMac("me")} mtu 1430 type vxlan id 1 local 2001:db8::1 dev eth0 dstport 8472 nolearning`,
    );
    expect(devices).toContain("addr replace fd00:42::/128 dev flannel-v6.1");
    expect(forwards).toContain(`fdb replace ${mac} dev flannel-v6.1 dst 2001:db8::2 self permanent`);
    expect(routes).toContain("route replace fd00:42:0:1::/64 via fd00:42:0:1:: dev flannel-v6.1 onlink proto 109");
  });

  test("a node without an IPv6 address says so once, and only where somebody would be reached", () => {
    const both = (n: number) =>
      peer(`n${n}`, n, "192.0.2.9", {
        sides: {
          4: { subnet: `10.42.${n}.0/24`, publicIp: "192.0.2.9", vtepMac: mac },
          6: { subnet: `fd00:42:0:${n}::/64`, publicIp: "2001:db8::9", vtepMac: mac },
        },
      });
    const given = {
      ranges: { 4: "10.42.0.0/24", 6: "fd00:42::/64" },
      underlay: { device: "eth0", mtu: 1500, addresses: { 4: "192.0.2.1" } },
    };
    const reasons = (peers: readonly Peer[]) => planOverlay(input("vxlan", peers, given)).problems.map((p) => p.reason);
    expect(reasons([both(1), both(2)])).toEqual(["OverlayAddressMissing"]);
    expect(reasons([peer("b", 1, "192.0.2.2")])).toEqual([]);
  });
  test.each<[string, Partial<Peer>, string]>([
    ["of another backend", { backend: "host-gw" }, "OverlayBackendDiffers"],
    [
      "without a device",
      { sides: { 4: { subnet: "10.42.1.0/24", publicIp: "192.0.2.2", vtepMac: undefined } } },
      "OverlayPeerUnreachable",
    ],
  ])("a peer %s is told of", (_, more, reason) => {
    const { problems, routes } = planOverlay(input("vxlan", [peer("b", 1, "192.0.2.2", more)]));
    expect([problems.map((one) => one.reason), routes]).toEqual([[reason], []]);
  });
});

describe("host-gw", () => {
  const gw = (name: string, n: number, ip: string) => peer(name, n, ip, { backend: "host-gw" });
  test("peers on our network get a route, others an event", () => {
    const given = input("host-gw", [gw("b", 1, "192.0.2.2"), gw("far", 2, "198.51.100.9")]);
    expect(scripts(given)).toEqual({
      ...none,
      routes: ["route replace 10.42.1.0/24 via 192.0.2.2 dev eth0 proto 109"],
    });
    expect(planOverlay(given).problems).toMatchObject([{ node: "far", reason: "OverlayPeerNotOnLink" }]);
  });
  test("the bridge of the pods is no way to a node", () => {
    const bridged = kernel([link("mote0", ["192.0.2.254/24"])]);
    const given = input("host-gw", [gw("b", 1, "192.0.2.2")], { kernel: bridged });
    expect(planOverlay(given).problems).toHaveLength(1);
  });
  test("a route by another way is replaced, and nobody else's route goes", () => {
    const routes = [
      { dst: "10.42.1.0/24", gateway: "192.0.2.9", dev: "eth0", protocol: "109" },
      { dst: "10.42.7.0/24", gateway: "192.0.2.9", dev: "eth0", protocol: "4" },
    ];
    const given = input("host-gw", [gw("b", 1, "192.0.2.2")], {
      kernel: kernel([eth0], { routes: { 4: routes, 6: [] } }),
    });
    expect(scripts(given)).toEqual({
      ...none,
      routes: ["route replace 10.42.1.0/24 via 192.0.2.2 dev eth0 proto 109"],
    });
  });
});

describe("underlay", () => {
  const wlan0 = link("wlan0", ["198.51.100.5/24"], { mtu: 1400 });
  const pods = link("mote0", ["10.42.0.1/24"]);
  const routes = { 4: [{ dst: "default", gateway: "198.51.100.1", dev: "wlan0", protocol: "16" }], 6: [] };
  test.each([
    ["the configured address", "192.0.2.1", undefined, "eth0", "192.0.2.1"],
    ["after it has gone the default route's", "192.0.2.99", undefined, "wlan0", "198.51.100.5"],
    ["a fixed device", "192.0.2.1", "wlan0", "wlan0", "198.51.100.5"],
    ["a fixed device that is not there", "192.0.2.1", "ppp0", undefined, undefined],
    ["not the pods' bridge", "10.42.0.1", undefined, "wlan0", "198.51.100.5"],
  ])("%s", (_, nodeIp, device, name, address) => {
    const found = underlayOf(kernel([pods, eth0, wlan0], { routes }), { nodeIps: [nodeIp], device });
    expect([found?.device, found?.addresses[4]]).toEqual([name, address]);
  });
  test("of both families the configured ones", () => {
    const eth1 = link("eth1", ["192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64", "2001:db8::8/64"]);
    const found = underlayOf(kernel([eth0, eth1]), { nodeIps: ["192.0.2.8", "2001:db8::8"], device: undefined });
    expect(found).toMatchObject({ device: "eth1", addresses: { 4: "192.0.2.8", 6: "2001:db8::8" } });
  });
  test("without any network there is none", () => {
    expect(
      underlayOf(kernel([link("lo", ["127.0.0.1/8"])]), { nodeIps: ["127.0.0.1"], device: undefined }),
    ).toBeUndefined();
  });
});

test.each([
  ["vxlan", 1500, {}, 1450],
  ["vxlan", 1400, {}, 1350],
  ["vxlan", 1500, { 6: "fd00::/64" }, 1430],
  ["host-gw", 1500, {}, 1500],
  ["vxlan", undefined, {}, 1450],
] as const)("packets of pods: %s over %s", (backend, mtu, ranges, expected) => {
  const underlay = mtu === undefined ? undefined : { device: "eth0", mtu, addresses: {} };
  expect(podMtu(backend, underlay, ranges)).toBe(expected);
});

test("a node's hardware address is always the same, unicast and local", () => {
  expect(vtepMac("a")).toBe(vtepMac("a"));
  expect(vtepMac("a")).not.toBe(vtepMac("b"));
  expect(vtepMac("a")).toMatch(/^.[26ae](:[0-9a-f]{2}){5}$/);
});

test("a thousand peers that are all there cost little", () => {
  const peers = Array.from({ length: 1000 }, (_, i) => {
    const subnet = `10.${42 + Math.floor(i / 250)}.${i % 250}.0/24`;
    const vtepMac = `02:00:00:00:${(i >> 8).toString(16).padStart(2, "0")}:${(i & 255).toString(16).padStart(2, "0")}`;
    return peer(`n${i}`, 0, "", { sides: { 4: { subnet, publicIp: `198.18.${i >> 8}.${i & 255}`, vtepMac } } });
  });
  const device = link("flannel.1", ["10.42.0.0/32"], {
    ...{ mtu: 1450, address: vtepMac("me"), ifalias: "mote" },
    linkinfo: { info_kind: "vxlan", info_data: { id: 1, port: 8472, learning: false, local: "192.0.2.1" } },
  });
  const given = input("vxlan", peers, { kernel: kernel([eth0, device]) });
  const wanted = planOverlay(given);
  const full = kernel([eth0, device], {
    routes: {
      4: wanted.routes.map(({ subnet, via, device: dev }) => ({ dst: subnet, gateway: via!, dev, protocol: "109" })),
      6: [],
    },
    neighbours: wanted.neighbours.map(({ ip, mac: lladdr, device: dev }) => ({
      ...{ dst: ip, lladdr, dev },
      state: ["PERMANENT"],
    })),
    forwards: wanted.forwards.map(({ device: ifname, mac: to, to: dst }) => ({ ifname, mac: to, dst })),
  });
  // Each is looked at a few times, however many there are; a look at all for each would be millions.
  let looks = 0;
  const counted = <T extends object>(list: readonly T[]): T[] =>
    list.map(
      (item) =>
        new Proxy(item, {
          get(target, key) {
            looks++;
            return Reflect.get(target, key, target);
          },
        }),
    );
  const watched = {
    ...full,
    routes: { 4: counted(full.routes[4]), 6: [] },
    neighbours: counted(full.neighbours),
    forwards: counted(full.forwards),
  };
  expect(difference(wanted, watched)).toEqual(none);
  expect(looks).toBeLessThan(100_000);
});
