import { generateKeyPairSync } from "node:crypto";
import { describe, expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { type Commands, runChecked, systemCommands } from "#platform/processes.ts";
import { difference } from "./difference.ts";
import type { Kernel, KernelLink } from "./kernel.ts";
import { ownAnnotations, type Peer, peersOf } from "./peers.ts";
import { type PlanInput, planOverlay, podMtu } from "./plan.ts";
import { endpointsOf, parseWireguard, type WireguardState, wireguardCalls } from "./wireguard.ts";
import { explainWireguard, ownWireguardKey, readWireguard } from "./wireguard-kernel.ts";

const keyOf = (n: number): string => Buffer.alloc(32, n).toString("base64");
const own = { publicKey: keyOf(1), file: "/var/lib/mote/agent/wireguard.key" };
const eth0: KernelLink = {
  ...{ ifname: "eth0", mtu: 1500, flags: ["UP"] },
  addr_info: [{ family: "inet", local: "192.0.2.1", prefixlen: 24, scope: "0" }],
};
const kernel = (...links: KernelLink[]): Kernel => ({
  ...{ links: [eth0, ...links], routes: { 4: [], 6: [] }, neighbours: [], forwards: [] },
});
const peer = (name: string, n: number, more: Partial<Peer> = {}): Peer => ({
  ...{ name, backend: "wireguard", mtu: undefined },
  sides: {
    4: { subnet: `10.42.${n}.0/24`, publicIp: `192.0.2.${n}`, vtepMac: undefined, publicKey: keyOf(n) },
  },
  ...more,
});
const input = (peers: readonly Peer[], more: Partial<PlanInput> = {}): PlanInput => ({
  nodeName: "me",
  ...{ backend: "wireguard-native", peers, vtepMac: "02:00:00:00:00:01", isDeviceFixed: false, kernel: kernel() },
  wireguardKey: own,
  ranges: { 4: "10.42.0.0/24" },
  underlay: { device: "eth0", mtu: 1500, addresses: { 4: "192.0.2.1", 6: "2001:db8::1" } },
  ...more,
});
const nowSeconds = 1_800_000_000;
const calls = (given: PlanInput, states: readonly WireguardState[] = [], endpoints = new Map<string, string>()) =>
  wireguardCalls(planOverlay(given), { states, endpoints, nowSeconds });
const settings = (n: number) => `endpoint 192.0.2.${n}:51820 persistent-keepalive 25 allowed-ips 10.42.${n}.0/24`;

describe("from nothing", () => {
  const given = input([peer("b", 2), peer("c", 3, { mtu: 1350 })]);
  test("a device, its peers, then the routes", () => {
    expect(difference(planOverlay(given), given.kernel)).toEqual({
      devices: [
        "link add flannel-wg mtu 1420 type wireguard",
        "link set dev flannel-wg alias mote",
        "addr replace 10.42.0.0/32 dev flannel-wg",
        "link set dev flannel-wg up",
      ],
      forwards: [],
      routes: [
        "route replace 10.42.2.0/24 dev flannel-wg proto 109",
        "route replace 10.42.3.0/24 dev flannel-wg proto 109 mtu 1350",
      ],
    });
    expect(calls(given).map((args) => args.join(" "))).toEqual([
      `set flannel-wg listen-port 51820 private-key ${own.file} peer ${keyOf(2)} ${settings(2)} peer ${keyOf(3)} ${settings(3)}`,
    ]);
    expect(podMtu("wireguard-native", given.underlay, given.ranges)).toBe(1420);
  });

  test("of both families each has its device, with one key", () => {
    const six = { subnet: "fd00:42:0:2::/64", publicIp: "2001:db8::2", vtepMac: undefined, publicKey: keyOf(2) };
    const both = peer("b", 2);
    const ranges = { 4: "10.42.0.0/24", 6: "fd00:42::/64" };
    const dual = input([{ ...both, sides: { ...both.sides, 6: six } }], { ranges });
    expect(difference(planOverlay(dual), dual.kernel).devices).toContain(
      "link add flannel-wg-v6 mtu 1420 type wireguard",
    );
    expect(calls(dual)[1]?.join(" ")).toBe(
      `set flannel-wg-v6 listen-port 51821 private-key ${own.file} peer ${keyOf(2)} endpoint [2001:db8::2]:51821 persistent-keepalive 25 allowed-ips fd00:42:0:2::/64`,
    );
  });

  test("without any peer the key is set all the same; many peers are several calls", () => {
    expect(calls(input([]))).toEqual([["set", "flannel-wg", "listen-port", "51820", "private-key", own.file]]);
    const sides = (i: number) => ({
      4: {
        ...{ subnet: `10.42.${i}.0/24`, publicIp: `198.18.0.${i}`, vtepMac: undefined },
        publicKey: Buffer.from(`key ${i}`.padEnd(32)).toString("base64"),
      },
    });
    const many = Array.from({ length: 450 }, (_, i) => peer(`n${i}`, 0, { sides: sides(i) }));
    const all = calls(input(many));
    expect(all.map((args) => args.filter((arg) => arg === "peer").length)).toEqual([200, 200, 50]);
    expect(all.map((args) => args.includes("private-key"))).toEqual([true, false, false]);
  });
});

describe("of what is there only differences are written", () => {
  const state = (more: Partial<WireguardState["peers"][number]> = {}): WireguardState => ({
    ...{ device: "flannel-wg", publicKey: own.publicKey, port: 51_820 },
    peers: [
      {
        ...{ publicKey: keyOf(2), endpoint: "192.0.2.2:51820", subnets: ["10.42.2.0/24"] },
        ...{ handshakeSeconds: nowSeconds - 60, keepaliveSeconds: 25 },
        ...more,
      },
    ],
  });
  const set = (rest: string) => `set flannel-wg ${rest}`;
  const elsewhere = "203.0.113.7:40000";
  const saidBefore = new Map([[`flannel-wg ${keyOf(2)}`, "192.0.2.77:51820"]]);
  const saidTheSame = new Map([[`flannel-wg ${keyOf(2)}`, "192.0.2.2:51820"]]);
  test.each<[string, WireguardState, readonly Peer[], Map<string, string>, string | undefined]>([
    ["all there", state(), [peer("b", 2)], saidTheSame, undefined],
    ["never answered, but where it says", state({ handshakeSeconds: 0 }), [peer("b", 2)], saidTheSame, undefined],
    ["answers from elsewhere: left there", state({ endpoint: elsewhere }), [peer("b", 2)], saidTheSame, undefined],
    ["the same after our restart", state({ endpoint: elsewhere }), [peer("b", 2)], new Map(), undefined],
    [
      "says that it has moved",
      state({ endpoint: "192.0.2.77:51820" }),
      [peer("b", 2)],
      saidBefore,
      `peer ${keyOf(2)} endpoint 192.0.2.2:51820`,
    ],
    [
      "answers no more from elsewhere",
      state({ endpoint: elsewhere, handshakeSeconds: nowSeconds - 200 }),
      [peer("b", 2)],
      saidTheSame,
      `peer ${keyOf(2)} endpoint 192.0.2.2:51820`,
    ],
    [
      "a handshake of the future proves nothing",
      state({ endpoint: elsewhere, handshakeSeconds: nowSeconds + 9 }),
      [peer("b", 2)],
      saidTheSame,
      `peer ${keyOf(2)} endpoint 192.0.2.2:51820`,
    ],
    ["other addresses", state({ subnets: [] }), [peer("b", 2)], new Map(), `peer ${keyOf(2)} allowed-ips 10.42.2.0/24`],
    [
      "no keepalive",
      state({ keepaliveSeconds: 0 }),
      [peer("b", 2)],
      new Map(),
      `peer ${keyOf(2)} persistent-keepalive 25`,
    ],
    ["gone", state(), [], new Map(), `peer ${keyOf(2)} remove`],
    [
      "flashed anew: the old key goes first",
      state({ publicKey: keyOf(9) }),
      [peer("b", 2)],
      new Map(),
      `peer ${keyOf(9)} remove peer ${keyOf(2)} ${settings(2)}`,
    ],
    ["our key is another", { ...state(), publicKey: keyOf(8) }, [peer("b", 2)], new Map(), `private-key ${own.file}`],
  ])("%s", (_, now, peers, endpoints, expected) => {
    const said = calls(input(peers), [now], endpoints).map((args) => args.join(" "));
    expect(said).toEqual(expected === undefined ? [] : [set(expected)]);
  });

  test("the next look knows where each said it was", () => {
    expect(endpointsOf(planOverlay(input([peer("b", 2)])))).toEqual(saidTheSame);
  });

  test("a device that stays is not touched; routes of a new one are written again", () => {
    const device: KernelLink = {
      ...{ ifname: "flannel-wg", mtu: 1420, flags: ["UP"], ifalias: "mote", linkinfo: { info_kind: "wireguard" } },
      addr_info: [{ family: "inet", local: "10.42.0.0", prefixlen: 32, scope: "0" }],
    };
    const routes = { 4: [{ dst: "10.42.2.0/24", dev: "flannel-wg", protocol: "109" }], 6: [] };
    const there = { ...kernel(device), routes };
    const given = input([peer("b", 2)], { kernel: there });
    expect(difference(planOverlay(given), there)).toEqual({ devices: [], forwards: [], routes: [] });
    const other = { ...kernel({ ...device, linkinfo: { info_kind: "dummy" } }), routes };
    const again = difference(planOverlay(given), other);
    expect(again.devices.slice(0, 2)).toEqual([
      "link delete dev flannel-wg",
      "link add flannel-wg mtu 1420 type wireguard",
    ]);
    expect(again.routes).toHaveLength(1);
    const vxlan = difference(planOverlay({ ...given, backend: "vxlan", peers: [] }), there);
    expect(vxlan.devices).toContain("link delete dev flannel-wg");
  });
});

describe("what nodes tell", () => {
  const prefix = "flannel.alpha.coreos.com/";
  const node = (name: string, n: number, data: string): Node =>
    ({
      metadata: {
        name,
        annotations: {
          ...{ [`${prefix}backend-type`]: "wireguard", [`${prefix}backend-data`]: data },
          ...{ [`${prefix}kube-subnet-manager`]: "true", [`${prefix}public-ip`]: `192.0.2.${n}` },
        },
      },
      spec: { podCIDR: `10.42.${n}.0/24` },
    }) as unknown as Node;
  const told = (key: unknown) => JSON.stringify({ PublicKey: key });
  const options = {
    nodeName: "me",
    vtepMac: "02:00:00:00:00:01",
    publicKey: own.publicKey,
    clusterCidrs: ["10.42.0.0/16"],
  };
  const keysOf = (...nodes: Node[]) => peersOf(nodes, options).map(({ sides }) => sides[4]?.publicKey);

  test.each<[string, unknown, string | undefined]>([
    ["a key", keyOf(2), keyOf(2)],
    ["a command", `${keyOf(2)} remove`, undefined],
    ["too short", keyOf(2).slice(4), undefined],
    ["not a text", 7, undefined],
    ["ours", own.publicKey, undefined],
  ])("%s", (_, key, expected) => {
    expect(keysOf(node("b", 2, told(key)))).toEqual([expected]);
  });
  test("of two with one key the first has it, and the other is told of", () => {
    const peers = peersOf([node("b", 2, told(keyOf(2))), node("c", 3, told(keyOf(2)))], options);
    expect(peers.map(({ sides }) => sides[4]?.publicKey)).toEqual([keyOf(2), undefined]);
    const { problems, routes } = planOverlay(input(peers));
    expect(problems.map((one) => [one.node, one.reason])).toEqual([["c", "OverlayPeerUnreachable"]]);
    expect(routes.map(({ subnet }) => subnet)).toEqual(["10.42.2.0/24"]);
  });
  test("a node of another backend is told of", () => {
    const { problems } = planOverlay(input([peer("b", 2, { backend: "vxlan" })]));
    expect(problems.map(({ reason }) => reason)).toEqual(["OverlayBackendDiffers"]);
  });
  test("this node tells its own as flannel does", () => {
    const facts = { backend: "wireguard-native" as const, vtepMac: options.vtepMac, mtu: 1420, externalIps: {} };
    const written = ownAnnotations(node("me", 0, "null"), {
      ...{ ...facts, publicKey: own.publicKey, publicIps: { 4: "192.0.2.1" } },
    });
    expect(written).toMatchObject({
      [`${prefix}backend-type`]: "wireguard",
      [`${prefix}backend-data`]: `{"PublicKey":"${own.publicKey}"}`,
    });
  });
});

describe("wg", () => {
  test("its dump", () => {
    const columns = [
      [keyOf(0), own.publicKey, "51820", "off"],
      [keyOf(2), "(none)", "192.0.2.2:51820", "10.42.2.0/24,10.42.9.0/24", "1800000000", "10", "20", "25"],
      [keyOf(3), "(none)", "(none)", "(none)", "0", "0", "0", "off"],
    ];
    const dump = `${columns.map((line) => line.join("\t")).join("\n")}\n`;
    expect(parseWireguard("flannel-wg", dump)).toEqual({
      ...{ device: "flannel-wg", publicKey: own.publicKey, port: 51_820 },
      peers: [
        {
          ...{ publicKey: keyOf(2), endpoint: "192.0.2.2:51820", subnets: ["10.42.2.0/24", "10.42.9.0/24"] },
          ...{ handshakeSeconds: 1_800_000_000, keepaliveSeconds: 25 },
        },
        { publicKey: keyOf(3), endpoint: undefined, subnets: [], handshakeSeconds: 0, keepaliveSeconds: 0 },
      ],
    });
  });

  test("a machine without it, or without the module, is told what to do", async () => {
    const without: Commands = {
      run: () => Promise.reject(new AppError("COMMAND_START", "cannot start wg: spawn wg ENOENT")),
    };
    await expect(readWireguard(without, kernel())).rejects.toMatchObject({
      code: "NETWORK_WIREGUARD",
      message: expect.stringContaining("apt-get install wireguard-tools"),
    });
    const said = "ip: Error: Unknown device type. (link add flannel-wg mtu 1420 type wireguard)";
    expect(explainWireguard(new AppError("NETWORK_OVERLAY", said))).toMatchObject({
      code: "NETWORK_WIREGUARD",
      message: expect.stringContaining("module wireguard"),
    });
    const other = new AppError("NETWORK_OVERLAY", "ip: Error: Nexthop has invalid gateway.");
    expect(explainWireguard(other)).toBe(other);
  });

  test("our key is made once, kept from others, and of the kind that it wants", async () => {
    const folder = (await runChecked(systemCommands, "mktemp", ["-d"])).trim();
    try {
      const file = `${folder}/agent/wireguard.key`;
      const key = await ownWireguardKey(file);
      expect(await ownWireguardKey(file)).toEqual(key);
      expect(Buffer.from(key.publicKey, "base64")).toHaveLength(32);
      expect(await runChecked(systemCommands, "stat", ["-c", "%a", file])).toBe("600\n");
      expect(String(await readFileIfExists(file))).not.toContain(key.publicKey);
      await writeFileDurable(file, "broken\n");
      expect((await ownWireguardKey(file)).publicKey).not.toBe(key.publicKey);
    } finally {
      await runChecked(systemCommands, "rm", ["-rf", folder]);
    }
  });

  test("the public half belongs to the private one", async () => {
    const folder = (await runChecked(systemCommands, "mktemp", ["-d"])).trim();
    try {
      const { d, x } = generateKeyPairSync("x25519").privateKey.export({ format: "jwk" });
      const base64 = (text: string) => Buffer.from(text, "base64url").toString("base64");
      await writeFileDurable(`${folder}/key`, `${base64(d!)}\n`);
      expect((await ownWireguardKey(`${folder}/key`)).publicKey).toBe(base64(x!));
    } finally {
      await runChecked(systemCommands, "rm", ["-rf", folder]);
    }
  });
});
