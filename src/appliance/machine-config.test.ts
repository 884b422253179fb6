import { describe, expect, test } from "vitest";
import { parseFlags } from "#cli/flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { defaultMachineConfig, parseMoteYaml, type ServerKeys } from "./machine-config.ts";

const keys: ServerKeys = {
  names: serverFlags.map((flag) => flag.name),
  check: (key, value) =>
    void parseFlags(serverFlags, { args: [], env: {}, files: [{ path: "mote.yaml", values: { [key]: value } }] }),
};
const parse = (text: string) => parseMoteYaml(text, keys);

describe("mote.yaml", () => {
  test("nothing given is the default", () => {
    for (const text of ["", "# nothing\n", "machine:\n", "{}"]) {
      expect(parse(text)).toEqual({ server: {}, machine: defaultMachineConfig, problems: [] });
    }
  });

  test("everything given", () => {
    const { server, machine, problems } = parse(`
node-label: [a=b]
tls-san: device.example
machine:
  hostname: Pump-7
  interfaces:
  - name: eth0
    addresses: [192.168.1.2/24, 10.0.0.2/8]
    gateway: 192.168.1.1
    mtu: 1400
  - mac: 52-54-00-12-34-AB
    vlan: 10
  - name: eth1
    addresses: [192.168.2.2/24, FD00:88:0::2/64]
    gateway: [192.168.2.1, fe80::1]
  wifi: {ssid: 12345678, password: 87654321, country: de}
  proxy: {http: "http://user:pw@proxy:3128", exclude: [10.0.0.0/8, .local]}
  ntp: [time.example, 192.168.1.1]
  dns: {servers: [192.168.1.1, "fd00:88::1"], search: [Example.org]}
  clock: {notBefore: 2026-11-21}
  watchdog: off
  labels: {site: hall-3, example.org/rack: 7, empty: ""}
`);
    expect(problems).toEqual([]);
    expect(server).toEqual({ "node-label": ["a=b"], "tls-san": "device.example" });
    expect(machine).toEqual({
      hostname: "pump-7",
      interfaces: [
        {
          ...{ name: "eth0", mtu: 1400, dhcp: false },
          ...{ addresses: ["192.168.1.2/24", "10.0.0.2/8"], gateways: ["192.168.1.1"] },
        },
        { mac: "52:54:00:12:34:ab", vlan: 10, addresses: [], gateways: [], dhcp: true },
        {
          ...{ name: "eth1", dhcp: false },
          ...{ addresses: ["192.168.2.2/24", "fd00:88::2/64"], gateways: ["192.168.2.1", "fe80::1"] },
        },
      ],
      wifi: [{ ssid: "12345678", password: "87654321", hidden: false }],
      wifiCountry: "DE",
      proxy: { http: "http://user:pw@proxy:3128", exclude: ["10.0.0.0/8", ".local"] },
      ntp: ["time.example", "192.168.1.1"],
      dns: { servers: ["192.168.1.1", "fd00:88::1"], search: ["example.org"] },
      notBeforeMs: Date.UTC(2026, 10, 21),
      watchdog: false,
      labels: { site: "hall-3", "example.org/rack": "7", empty: "" },
    });
  });

  test.each([
    ["tokn: x", "tokn: unknown key; did you mean token?"],
    ["quantum: x", "quantum: unknown key"],
    ["data-dir: /x", "data-dir: is not allowed here; the device decides it"],
    [
      "https-listen-port: 70000",
      'https-listen-port (mote.yaml): "70000" is not allowed; use a whole number from 1 to 65535',
    ],
    [
      "machine: 5",
      "machine: 5 is not allowed; use a map with hostname, interfaces, wifi, proxy, ntp, dns, clock, watchdog, labels",
    ],
    ["machine: {hostnam: a}", "machine.hostnam: unknown key; did you mean hostname?"],
    [
      "machine: {colour: a}",
      "machine.colour: unknown key; allowed are hostname, interfaces, wifi, proxy, ntp, dns, clock, watchdog, labels",
    ],
    [
      "machine: {hostname: a_b}",
      `machine.hostname: "a_b" is not allowed; use letters, digits and '-', at most 63 characters`,
    ],
    [
      "machine: {interfaces: [{vlan: 5000}]}",
      "machine.interfaces[0].vlan: 5000 is not allowed; use a whole number from 1 to 4094",
    ],
    [
      "machine: {interfaces: [{mac: 1:2:3}]}",
      'machine.interfaces[0].mac: "1:2:3" is not allowed; use a hardware address such as 52:54:00:12:34:56',
    ],
    [
      "machine: {interfaces: [{addresses: [10.0.0.1]}]}",
      'machine.interfaces[0].addresses: ["10.0.0.1"] is not allowed; use a list of: an IP address with prefix length such as 192.168.1.2/24',
    ],
    ...["fd00::1", "fd00::1/129", "fd00::1/0", "10.0.0.1/33", "fd00::1%eth0/64"].map((address) => [
      `machine: {interfaces: [{addresses: "${address}"}]}`,
      `machine.interfaces[0].addresses: "${address}" is not allowed; use a list of: an IP address with prefix length such as 192.168.1.2/24`,
    ]),
    [
      "machine: {interfaces: [{addresses: 10.0.0.2/8, gateway: [10.0.0.1, 10.0.0.3]}]}",
      'machine.interfaces[0].gateway: ["10.0.0.1","10.0.0.3"] is not allowed; use an IP address such as 192.168.1.1, or a list with one of each IP family',
    ],
    [
      "machine: {interfaces: [{gateway: 10.0.0.1}]}",
      "machine.interfaces[0].gateway: has no meaning without addresses; it is skipped",
    ],
    [
      "machine: {interfaces: [{dhcp: false}]}",
      "machine.interfaces[0]: neither dhcp nor addresses; the interface stays without address",
    ],
    [
      "machine: {interfaces: [{ip: 1}]}",
      "machine.interfaces[0].ip: unknown key; allowed are name, mac, dhcp, addresses, gateway, vlan, mtu",
    ],
    ["machine: {wifi: [{password: 12345678}]}", "machine.wifi[0].ssid: is missing; without it the entry is skipped"],
    [
      "machine: {dns: nowhere}",
      'machine.dns.servers: "nowhere" is not allowed; use a list of: an IP address such as 192.168.1.2',
    ],
    [
      "machine: {dns: 300.1.1.1}",
      'machine.dns.servers: "300.1.1.1" is not allowed; use a list of: an IP address such as 192.168.1.2',
    ],
    ["machine: {watchdog: maybe}", 'machine.watchdog: "maybe" is not allowed; use true or false'],
    [
      "machine: {clock: {notBefore: 1999-01-01}}",
      'machine.clock.notBefore: "1999-01-01" is not allowed; use a date such as 2026-11-21 or 2026-11-21T08:00:00Z',
    ],
    ["machine: {labels: {'a b': c}}", 'machine.labels: "a b" is not allowed as a name; use [PREFIX/]NAME'],
    [
      "machine: {labels: {a: 'b c'}}",
      `machine.labels.a: "b c" is not allowed; use letters, digits, '-', '_', '.', at most 63`,
    ],
  ])("%s", (text, problem) => expect(parse(text).problems).toEqual([problem]));

  test("what is valid is kept beside what is not", () => {
    const { server, machine, problems } = parse(
      "tls-san: a\nfoo: 1\nmachine: {hostname: ok, wifi: [{ssid: a}, {ssid: ''}], mtu: 3}",
    );
    expect(server).toEqual({ "tls-san": "a" });
    expect(machine.hostname).toBe("ok");
    expect(machine.wifi).toEqual([{ ssid: "a", hidden: false }]);
    expect(problems).toHaveLength(4);
  });

  test("no sentence repeats a secret", () => {
    const { problems } = parse(`machine: {wifi: {ssid: a, password: hush}, proxy: {http: "hush:hush@x"}}`);
    expect(problems).toHaveLength(2);
    expect(parse("machine: {wifi: hush, proxy: hush}").problems.concat(problems).join()).not.toContain("hush");
  });

  test.each(["a: [", "- a", "word", "a: 1\na: 2"])("refuses %j as a whole", (text) =>
    expect(() => parse(text)).toThrow(),
  );

  test("any map gives a configuration that is allowed, and never fails", () => {
    const random = seededRandom(11);
    const words = [
      "machine",
      "hostname",
      "interfaces",
      "name",
      "mac",
      "dhcp",
      "addresses",
      "gateway",
      "vlan",
      "wifi",
      "ssid",
    ];
    words.push("password", "proxy", "http", "no", "ntp", "servers", "dns", "search", "clock", "notBefore", "watchdog");
    words.push("labels", "tls-san", "__proto__", "constructor", "10.0.0.1/8", "10.0.0.1", "eth0", "");
    const pick = <T>(list: readonly T[]) => list[Math.floor(random.float() * list.length)]!;
    const value = (depth: number): unknown => {
      const kind = random.float();
      if (depth === 0 || kind < 0.3) return pick<unknown>([...words, 1, 5000, true, false, null, -1.5]);
      const size = Math.floor(random.float() * 4);
      if (kind < 0.5) return Array.from({ length: size }, () => value(depth - 1));
      return Object.fromEntries(Array.from({ length: size + 1 }, () => [pick(words), value(depth - 1)]));
    };
    for (let i = 0; i < 2000; i++) {
      const { machine } = parse(JSON.stringify({ machine: value(4), [pick(words)]: value(2) }));
      for (const one of machine.interfaces) expect(one.vlan ?? 1).toBeLessThan(4095);
      expect(machine.wifi.every((network) => network.ssid.length > 0)).toBe(true);
    }
  });
});
