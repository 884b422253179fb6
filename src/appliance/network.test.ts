import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Clock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { systemClock } from "#platform/clock.ts";
import type { Commands } from "#platform/processes.ts";
import { until } from "#test/harness/until.ts";
import { defaultMachineConfig, type MachineConfig } from "./machine-config.ts";
import { startNetwork } from "./network.ts";
import type { Client, NetworkClients } from "./network-clients.ts";

const speed = 100;
/** Hundred times as fast, with real files below. */
const clock: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() * speed,
  sleep: (ms, signal) => systemClock.sleep(ms / speed, signal),
};

let folder: string;
let commands: string[];
let running: Map<string, Client>;
let starts: string[];
let stop: AbortController;
let done: Promise<void> | undefined;
let told: (readonly string[])[];
/** How often `ip link set … up` fails before it works. */
let refusals: number;

beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-network-");
  mkdirSync(`${folder}/sys/class/net`, { recursive: true });
  mkdirSync(`${folder}/etc`);
  [commands, running, starts, told] = [[], new Map(), [], []];
  stop = new AbortController();
  done = undefined;
  refusals = 0;
});
afterEach(async () => {
  stop.abort(new Error("stop"));
  await done;
  rmSync(folder, { recursive: true });
});

function plug(name: string, index: number, more: { carrier?: boolean; isVirtual?: boolean } = {}): void {
  const link = `${folder}/sys/class/net/${name}`;
  mkdirSync(more.isVirtual ? link : `${link}/device`, { recursive: true });
  const facts = { type: 1, ifindex: index, address: `52:54:00:00:00:0${index}`, carrier: more.carrier ? 1 : 0 };
  for (const [file, value] of Object.entries(facts)) writeFileSync(`${link}/${file}`, `${value}\n`);
}
const pull = (name: string) => rmSync(`${folder}/sys/class/net/${name}`, { recursive: true });

/** Starts the network and follows it. */
async function start(machine: Partial<MachineConfig> = {}): Promise<readonly string[]> {
  const recorded: Commands = {
    async run(program, args, options) {
      commands.push([program.replace(folder, ""), ...args, options?.env?.["interface"] ?? ""].join(" ").trim());
      const code = args.at(-1) === "up" && refusals-- > 0 ? 1 : 0;
      return { code, stdout: "", stderr: "" };
    },
  };
  const clients: NetworkClients = {
    async keep(client) {
      if (running.get(client.name)?.index === client.index) return;
      starts.push(`${client.name} ${client.index}`);
      running.set(client.name, client);
    },
    async end(name) {
      running.delete(name);
    },
  };
  const network = await startNetwork(
    {
      ...{ machine: { ...defaultMachineConfig, ...machine }, hostname: "pump", sysfs: `${folder}/sys` },
      ...{ folder: `${folder}/run`, etcDir: `${folder}/etc` },
    },
    { commands: recorded, clients, clock, log: silentLogger },
  );
  done = network.follow((problems) => told.push(problems)).run(stop.signal, () => {});
  return network.problems;
}

/** Long enough for several looks. */
const looks = () => clock.sleep(20_000);

describe("links that come and go", () => {
  test("an adapter that appears after the start is configured, and its problem is over", async () => {
    expect(await start()).toEqual(["there is no wired network; found none"]);
    expect(starts).toEqual([]);
    plug("eth0", 2, { carrier: true });
    await until(() => told.length > 0);
    expect(starts).toEqual(["dhcp-eth0 2"]);
    expect(told).toEqual([[]]);
    expect(commands).toContain("ip link set dev eth0 up");
  });

  test("one more leaves the first alone", async () => {
    plug("eth1", 2, { carrier: true });
    expect(await start()).toEqual([]);
    const before = commands.length;
    plug("eth0", 3, { carrier: true });
    plug("veth1", 4, { isVirtual: true, carrier: true });
    await until(() => commands.some((command) => command.includes("eth0")));
    await looks();
    expect(starts).toEqual(["dhcp-eth1 2"]);
    expect(commands.slice(before).filter((command) => !command.includes("eth0"))).toEqual([]);
  });

  test("a fixed address by name is given when the link is there, the others once only", async () => {
    plug("eth0", 2, { carrier: true });
    const entry = (name: string, address: string) => ({ name, dhcp: false, addresses: [address], gateways: [] });
    const interfaces = [entry("eth0", "10.0.0.2/8"), entry("eth5", "10.5.0.2/16")];
    expect(await start({ interfaces })).toEqual([
      "machine.interfaces[1]: there is no interface eth5; found eth0 (52:54:00:00:00:02)",
    ]);
    plug("eth5", 5);
    await until(() => told.length > 0);
    expect(told).toEqual([[]]);
    await looks();
    const addresses = commands.filter((command) => command.includes("address replace"));
    expect(addresses).toEqual(["ip address replace 10.0.0.2/8 dev eth0", "ip address replace 10.5.0.2/16 dev eth5"]);
  });

  test("an adapter that is pulled out and plugged in again gets a new client; its old one ends", async () => {
    plug("usb0", 2, { carrier: true });
    await start();
    pull("usb0");
    await until(() => told.length > 0);
    expect(running.size).toBe(0);
    expect(commands).toContain("/run/dhcp.sh deconfig usb0");
    plug("usb0", 7, { carrier: true });
    await until(() => told.length > 1);
    expect(starts).toEqual(["dhcp-usb0 2", "dhcp-usb0 7"]);
    expect(told).toEqual([["there is no wired network; found none"], []]);
  });

  test("one that cannot be brought up is tried again at the next look, and then no more", async () => {
    plug("eth0", 2, { carrier: true });
    const ups = () => commands.filter((command) => command === "ip link set dev eth0 up").length;
    refusals = 1;
    await start();
    // Once to see its cable, once by the plan.
    expect(ups()).toBe(2);
    await until(() => ups() > 2);
    await looks();
    expect(ups()).toBe(3);
  });

  test("links that cannot be read are not gone", async () => {
    plug("eth0", 2, { carrier: true });
    await start();
    await looks();
    const net = `${folder}/sys/class/net`;
    renameSync(net, `${net}-away`);
    writeFileSync(net, "");
    await looks();
    expect([...running.keys()]).toEqual(["dhcp-eth0"]);
    rmSync(net);
    renameSync(`${net}-away`, net);
    plug("eth1", 3, { carrier: true });
    await until(() => commands.some((command) => command.includes("eth1")));
    expect(commands.filter((command) => command.includes("deconfig"))).toEqual([]);
  });

  test("a client that ends is started again", async () => {
    plug("eth0", 2, { carrier: true });
    await start();
    running.clear();
    await until(() => starts.length > 1);
    expect(starts).toEqual(["dhcp-eth0 2", "dhcp-eth0 2"]);
    expect(told).toEqual([]);
  });
});
