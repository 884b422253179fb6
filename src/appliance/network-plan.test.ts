import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { defaultMachineConfig, type InterfaceConfig, type MachineConfig } from "./machine-config.ts";
import { dhcpScript, type Link, type NetworkPlan, planNetwork, wifiConfig } from "./network-plan.ts";

const link = (name: string, more: Partial<Link> = {}): Link => ({
  ...{ name, index: 1, mac: `52:54:00:00:00:0${name.at(-1)}`, isPhysical: true, isWireless: false, hasCarrier: false },
  ...more,
});
const machine = (more: Partial<MachineConfig>): MachineConfig => ({ ...defaultMachineConfig, ...more });
const entry = (more: Partial<InterfaceConfig>): InterfaceConfig => ({
  dhcp: false,
  addresses: [],
  gateways: [],
  ...more,
});
const lines = (plan: NetworkPlan) => plan.commands.map(({ args }) => args.join(" "));
const asks = (plan: NetworkPlan) => plan.dhcp.map(({ name }) => name);

describe("without interfaces", () => {
  test.each<[string, Link[], string[]]>([
    [
      "the first link with a cable",
      [link("eth10", { hasCarrier: true }), link("eth2", { hasCarrier: true }), link("eth0")],
      ["eth2"],
    ],
    [
      "every wired link when none has a cable",
      [link("eth1"), link("eth0"), link("wlan0", { isWireless: true })],
      ["eth0", "eth1"],
    ],
    ["no bridge or pod end", [link("cni0", { isPhysical: false, hasCarrier: true }), link("eth0")], ["eth0"]],
  ])("%s asks for an address", (_, links, dhcp) => {
    const plan = planNetwork(defaultMachineConfig, links);
    expect(asks(plan)).toEqual(dhcp);
    expect(plan).toMatchObject({ problems: [], isComplete: true });
  });
  test("no hardware is worth waiting for", () => {
    const plan = planNetwork(defaultMachineConfig, [link("cni0", { isPhysical: false })]);
    expect(plan).toMatchObject({ dhcp: [], isComplete: false, problems: ["there is no wired network; found none"] });
  });
});

describe("interfaces", () => {
  const links = [
    link("eth0"),
    link("eth1", { hasCarrier: true }),
    link("eth1.5", { isPhysical: false, mac: "52:54:00:00:00:01" }),
  ];
  test("static, by name", () => {
    const addresses = ["10.0.0.2/8", "10.1.0.2/16", "fd00:88::2/64"];
    const wanted = entry({ name: "eth0", addresses, gateways: ["10.0.0.1", "fe80::1"], mtu: 1400 });
    const plan = planNetwork(machine({ interfaces: [wanted] }), links);
    expect(lines(plan)).toEqual([
      "link set dev eth0 up",
      "link set dev eth0 mtu 1400",
      "address replace 10.0.0.2/8 dev eth0",
      "address replace 10.1.0.2/16 dev eth0",
      "address replace fd00:88::2/64 dev eth0",
      "route replace default via 10.0.0.1 dev eth0 onlink",
      "route replace default via fe80::1 dev eth0 onlink",
    ]);
    expect(plan).toMatchObject({ dhcp: [], isComplete: true });
  });
  test("VLAN over the hardware with that address, asking for its own", () => {
    const plan = planNetwork(
      machine({ interfaces: [entry({ mac: "52:54:00:00:00:01", vlan: 7, dhcp: true })] }),
      links,
    );
    expect(lines(plan)).toEqual([
      "link set dev eth1 up",
      "link add link eth1 name eth1.7 type vlan id 7",
      "link set dev eth1.7 up",
    ]);
    expect(plan.dhcp).toEqual([{ link: "eth1", name: "eth1.7" }]);
  });
  test("a long name leaves no room for the number", () => {
    const plan = planNetwork(machine({ interfaces: [entry({ name: "enp0s31f6abcde", vlan: 4094 })] }), [
      link("enp0s31f6abcde"),
    ]);
    expect(lines(plan)[1]).toBe("link add link enp0s31f6abcde name vlan4094 type vlan id 4094");
  });
  test("neither name nor address means the first wired link with a cable", () => {
    expect(asks(planNetwork(machine({ interfaces: [entry({ dhcp: true })] }), links))).toEqual(["eth1"]);
  });
  test("a fixed network with a way out but no name server is said", () => {
    const fixed = entry({ name: "eth0", addresses: ["10.0.0.2/8"], gateways: ["10.0.0.1"] });
    expect(planNetwork(machine({ interfaces: [fixed] }), links).problems).toEqual([
      "machine.dns: no name server is given, and no interface asks for one; images cannot be fetched",
    ]);
    const dns = { servers: ["10.0.0.1"], search: [] };
    expect(planNetwork(machine({ interfaces: [fixed], dns }), links).problems).toEqual([]);
    expect(planNetwork(machine({ interfaces: [fixed, entry({ name: "eth1", dhcp: true })] }), links).problems).toEqual(
      [],
    );
  });
  test("what is missing is named with what is there; the rest is configured", () => {
    const plan = planNetwork(
      machine({ interfaces: [entry({ name: "eth9" }), entry({ name: "eth0", dhcp: true })] }),
      links,
    );
    expect(plan.problems).toEqual([
      "machine.interfaces[0]: there is no interface eth9; found eth0 (52:54:00:00:00:00), eth1 (52:54:00:00:00:01)",
    ]);
    expect(plan.isComplete).toBe(false);
    expect(asks(plan)).toEqual(["eth0"]);
  });
});

describe("made anew when links have changed, it stays with what is in use", () => {
  const nameless = entry({ dhcp: true });
  const fixed = entry({ addresses: ["10.0.0.2/8"] });
  const down = (name: string) => link(name);
  const up = (name: string) => link(name, { hasCarrier: true });
  test.each<[string, Partial<MachineConfig>, string[], Link[], string[]]>([
    ["a first link that appears late asks", {}, [], [up("usb0")], ["usb0"]],
    ["another with a cable changes nothing", {}, ["eth1"], [up("eth0"), up("eth1")], ["eth1"]],
    ["the cable has moved to another: both ask", {}, ["eth1"], [up("eth0"), down("eth1")], ["eth0", "eth1"]],
    ["without any cable every link asks", {}, ["eth1"], [down("eth0"), down("eth1")], ["eth0", "eth1"]],
    ["nameless: stays", { interfaces: [nameless] }, ["eth1"], [up("eth0"), up("eth1")], ["eth1"]],
    ["nameless: follows the cable", { interfaces: [nameless] }, ["eth1"], [up("eth0"), down("eth1")], ["eth0"]],
  ])("%s", (_, config, inUse, links, expected) => {
    expect(asks(planNetwork(machine(config), links, new Set(inUse)))).toEqual(expected);
  });
  test("a fixed address stays where it is, cable or not", () => {
    const plan = planNetwork(machine({ interfaces: [fixed] }), [up("eth0"), down("eth1")], new Set(["eth1"]));
    expect([...plan.uses]).toEqual(["eth1"]);
  });
  test("the radio in use stays", () => {
    const wifi = [{ ssid: "a", hidden: false }];
    const radios = ["wlan0", "wlan1"].map((name) => link(name, { isWireless: true }));
    expect(planNetwork(machine({ wifi }), radios, new Set(["wlan1"])).wifi?.link).toBe("wlan1");
  });
});

describe("Wi-Fi", () => {
  const wlan = link("wlan0", { isWireless: true });
  const wifi = [
    { ssid: 'a"b', password: "p w\"'#1", hidden: true },
    { ssid: "öffen", hidden: false },
  ];
  test("asks for an address over the radio unless told otherwise", () => {
    const alone = planNetwork(machine({ wifi }), [wlan]);
    expect(alone).toMatchObject({ dhcp: [{ link: "wlan0", name: "wlan0" }], isComplete: true, problems: [] });
    const fixed = machine({ wifi, interfaces: [entry({ name: "wlan0", addresses: ["10.0.0.2/8"] })] });
    expect(planNetwork(fixed, [wlan])).toMatchObject({ dhcp: [], wifi: { link: "wlan0" } });
  });
  test("without hardware is a problem, not a failure", () => {
    expect(planNetwork(machine({ wifi }), [link("eth0")])).toMatchObject({
      ...{ dhcp: [{ name: "eth0" }], isComplete: false },
      problems: ["machine.wifi: there is no Wi-Fi hardware that this image knows; found eth0 (52:54:00:00:00:00)"],
    });
  });
  test("names are digits, passwords as they are, keys bare", () => {
    expect(wifiConfig([...wifi, { ssid: "k", password: "ab".repeat(32), hidden: false }], "DE")).toBe(`country=DE
network={
  ssid=612262
  psk="p w"'#1"
  key_mgmt=WPA-PSK WPA-PSK-SHA256 SAE
  ieee80211w=1
  scan_ssid=1
  priority=3
}
network={
  ssid=c3b66666656e
  key_mgmt=NONE
  priority=2
}
network={
  ssid=6b
  psk=${"ab".repeat(32)}
  priority=1
}
`);
  });
});

test("the lease script configures, keeps name servers of all links, and forgets those of a lost lease", () => {
  const folder = mkdtempSync("/tmp/mote-dhcp-");
  try {
    writeFileSync(`${folder}/ip`, `#!/bin/sh\necho "$@" >> ${folder}/ip.log\n`);
    writeFileSync(`${folder}/other.dns`, "nameserver 9.9.9.9\n");
    const script = dhcpScript({ folder, resolvConf: `${folder}/resolv.conf`, hasFixedDns: false });
    writeFileSync(`${folder}/dhcp.sh`, script);
    for (const name of ["ip", "dhcp.sh"]) chmodSync(`${folder}/${name}`, 0o755);
    const lease = {
      ip: "10.0.0.5",
      mask: "24",
      router: "10.0.0.1 10.0.0.2",
      dns: "10.0.0.1 10.0.0.3",
      domain: "a.example",
    };
    const call = (event: string, env: Record<string, string> = {}) =>
      execFileSync(`${folder}/dhcp.sh`, [event], {
        env: { PATH: `${folder}:${process.env["PATH"]}`, interface: "eth0", ...env },
      });
    call("bound", { ...lease, ntpsrv: "10.0.0.4", mtu: "1400" });
    expect(readFileSync(`${folder}/ip.log`, "utf8")).toBe(
      "link set dev eth0 mtu 1400\n-4 address replace 10.0.0.5/24 dev eth0\n-4 route replace default via 10.0.0.1 dev eth0 onlink\n",
    );
    expect(readFileSync(`${folder}/resolv.conf`, "utf8")).toBe(
      "search a.example\nnameserver 10.0.0.1\nnameserver 10.0.0.3\nnameserver 9.9.9.9\n",
    );
    expect(readFileSync(`${folder}/eth0.ntp`, "utf8")).toBe("10.0.0.4\n");
    call("deconfig");
    call("bound", { ip: "10.0.0.7" });
    call("renew", { ip: "10.0.0.6" });
    expect(readFileSync(`${folder}/resolv.conf`, "utf8")).toBe("nameserver 9.9.9.9\n");
    expect(readFileSync(`${folder}/ip.log`, "utf8")).toMatch(
      /address del 10.0.0.5\/24 dev eth0\n.* up\n.*replace 10.0.0.7\/24 dev eth0\n-4 address del 10.0.0.7\/24 dev eth0\n.*replace 10.0.0.6\/24 dev eth0\n$/,
    );
    expect(dhcpScript({ folder, resolvConf: "/etc/resolv.conf", hasFixedDns: true })).not.toContain("resolv.conf");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
