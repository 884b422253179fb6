import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "#platform/clock.ts";
import { systemCommands } from "#platform/processes.ts";
import { systemSysctl } from "#platform/sysctl.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { encodeGrubenv } from "#wire/grubenv.ts";
import { parseYaml } from "#wire/yaml.ts";
import { type DeviceServer, runMachine, type ServerRun } from "./machine.ts";

let folder: string;
const runs: ServerRun[] = [];
let stoppedPods = 0;
let isStuck = false;
/** What the status file said while there was a problem. */
let problemStatus = "";
/** And when it had joined and its node was not ready yet. */
let joinedStatus = "";
const notReady = "container runtime network not ready";

beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-machine-");
  for (const name of ["boot/grub", "etc"]) mkdirSync(`${folder}/${name}`, { recursive: true });
  runs.length = 0;
  stoppedPods = 0;
  isStuck = false;
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A device with a server that ends when told to, and is ready at once unless `fails` says otherwise. */
async function device(
  until: () => boolean,
  fails: () => string | undefined = () => undefined,
  clock = systemClock,
  problem?: string,
): Promise<number> {
  const stop = new AbortController();
  const server: DeviceServer = {
    keys: { names: ["tls-san"], check: () => {} },
    apiPort: 6443,
    address: () => "10.0.0.2",
    hasDefaultRoute: () => true,
    async run(args) {
      runs.push(args);
      const failure = fails();
      if (failure !== undefined) throw new Error(failure);
      if (problem !== undefined) {
        args.onProblem(problem);
        while (!args.signal.aborted && !statusSays(problem)()) await systemClock.sleep(10);
        problemStatus = status();
        args.onNode(false, notReady);
        while (!args.signal.aborted && !statusSays(notReady)()) await systemClock.sleep(10);
        joinedStatus = status();
      }
      args.onApiReady();
      args.onNode(true, "kubelet is posting ready status");
      if (isStuck) await new Promise(() => {});
      await new Promise<void>((resolve) => args.signal.addEventListener("abort", () => resolve(), { once: true }));
    },
    async stopPods() {
      stoppedPods++;
    },
  };
  const done = runMachine(
    {
      ...{ version: "v1", bootDir: `${folder}/boot`, dataDir: `${folder}/data`, etcDir: `${folder}/etc` },
      ...{ runDir: `${folder}/run`, fwCfgDir: `${folder}/none`, commandLine: "quiet mote.slot=B", debug: false },
      ...{ hasOwnDisk: false, hasOwnNetwork: false, hasOwnClock: false, hasWatchdog: false },
    },
    { clock, random: seededRandom(1), commands: systemCommands, sysctl: systemSysctl, server },
    stop.signal,
  );
  const deadlineMs = systemClock.monotonicMs() + 50_000;
  while (!until() && systemClock.monotonicMs() < deadlineMs) await systemClock.sleep(10);
  stop.abort(new Error("stop"));
  return done;
}

const status = () => readFileSync(`${folder}/boot/mote-status.txt`, "utf8").replaceAll("\r\n", "\n").trimEnd();
const statusSays = (text: string) => () =>
  readdirSync(`${folder}/boot`).includes("mote-status.txt") && status().includes(text);

test("what keeps a device from joining stands in the status until it has joined", async () => {
  writeFileSync(`${folder}/boot/token`, "server=https://10.0.0.9:6443 token=secret\n");
  const sentence = "the certificate of https://10.0.0.9:6443 is not valid at 2036-01-01T00:00: set the clock";
  expect(await device(statusSays("The device is ready."), () => undefined, systemClock, sentence)).toBe(0);
  expect(problemStatus.split("\n").slice(0, 2)).toEqual(["The device is up, but not ready yet.", sentence]);
  expect(joinedStatus.split("\n").slice(0, 2)).toEqual(["The device is up, but not ready yet.", notReady]);
  expect(runs[0]?.joins).toBe("https://10.0.0.9:6443");
});

test("a device runs the server with what its files say, and ends in order", async () => {
  writeFileSync(`${folder}/boot/token`, "secret\n");
  writeFileSync(`${folder}/boot/mote.yaml`, "tls-san: a\nmachine: {hostname: pump, labels: {site: hall}}\n");
  expect(await device(statusSays("ready"))).toBe(0);
  expect(status().split("\n").slice(0, 7)).toEqual([
    ...["The device is ready.", "", "mote v1, slot B", "name    pump"],
    ...[expect.stringMatching(/^serial {2}\S+$/), "address 10.0.0.2", "cluster https://10.0.0.2:6443"],
  ]);
  expect(readdirSync(`${folder}/boot`).sort()).toEqual(["grub", "mote-status.txt"]);
  expect(parseYaml(readFileSync(runs[0]!.configPath, "utf8"))).toMatchObject({
    ...{ "node-name": "pump", token: "secret", "tls-san": "a", "node-label": ["site=hall"] },
    "data-dir": `${folder}/data/mote`,
  });
  expect([runs.length, stoppedPods]).toEqual([1, 1]);
  expect(Date.parse(readFileSync(`${folder}/data/last-known-time`, "utf8").trim())).toBeGreaterThan(0);
});

test("identity and configuration last; the second start writes nothing to the boot partition", async () => {
  writeFileSync(`${folder}/boot/mote.yaml`, "tls-san: a\n");
  await device(statusSays("ready"));
  const identity = readFileSync(`${folder}/data/identity/identity.json`, "utf8");
  const key = readFileSync(`${folder}/data/identity/device.key`, "utf8");
  // The second start no longer tells what the first did; from then on the text stays.
  await device(() => runs.length === 2);
  const before = status();
  chmodSync(`${folder}/boot/mote-status.txt`, 0o444);
  await device(() => runs.length === 3);
  expect(status()).toBe(before);
  expect(readFileSync(`${folder}/data/identity/identity.json`, "utf8")).toBe(identity);
  expect(readFileSync(`${folder}/data/identity/device.key`, "utf8")).toBe(key);
  expect(readFileSync(runs[2]!.configPath, "utf8")).toContain("tls-san: a");
});

test("another host name does not make another node of the device", async () => {
  writeFileSync(`${folder}/boot/mote.yaml`, "machine: {hostname: pump}\n");
  await device(statusSays("ready"));
  writeFileSync(`${folder}/boot/mote.yaml`, "machine: {hostname: valve}\n");
  await device(statusSays("the cluster goes on knowing this device as pump"));
  expect(parseYaml(readFileSync(runs[1]!.configPath, "utf8"))).toMatchObject({ "node-name": "pump" });
  expect(readFileSync(`${folder}/etc/hostname`, "utf8")).toBe("valve\n");
});

test("a server that does not end holds the switching off up for fifteen seconds at most", async () => {
  isStuck = true;
  let isStopping = false;
  const sleep = (ms: number, signal?: AbortSignal) => {
    isStopping ||= ms === 15_000;
    return systemClock.sleep(ms === 15_000 ? 20 : ms, signal);
  };
  expect(await device(statusSays("ready"), () => undefined, { ...systemClock, sleep })).toBe(0);
  expect([isStopping, stoppedPods]).toEqual([true, 1]);
});

test("a server that fails is started again, and the status says why meanwhile", async () => {
  let said = "";
  const isBack = () => {
    if (said === "" && statusSays("port is taken")()) said = status();
    return runs.length === 2 && statusSays("The device is ready.")();
  };
  await device(isBack, () => (runs.length === 1 ? "port is taken" : undefined));
  expect(said).toMatch(/^The device cannot work as asked.\nport is taken\n/);
  expect(status()).toMatch(/^The device is ready.\n\n/);
});

test("a device that is told to join runs as a node of that server, and says why it cannot", async () => {
  writeFileSync(`${folder}/boot/token.txt`, "server=https://10.0.0.9:6443 token=hush\r\n");
  expect(await device(statusSays("does not take"), () => "the server does not take the token")).toBe(0);
  expect(runs[0]).toMatchObject({ joins: "https://10.0.0.9:6443" });
  expect(status()).not.toContain("hush");
});

test("how long nobody fed the watchdog is reported once", async () => {
  mkdirSync(`${folder}/run`);
  writeFileSync(`${folder}/run/watchdog-since`, "0.05 3.25\n");
  await device(() => runs.length === 1);
  await device(() => runs.length === 2);
  const log = readFileSync(`${folder}/run/log`, "utf8");
  expect(log.match(/was not fed during the start.*unfedS/g)).toHaveLength(1);
  expect(log).toMatch(/gapsS\W+3\.2\b/);
  expect(log).toMatch(/this board starts slowly/);
});

test("the boot loader's variables are restored from their copy when damaged, and copied when changed", async () => {
  const path = `${folder}/boot/grub/grubenv`;
  const block = (good: string) => Buffer.from(encodeGrubenv(new Map([["good", good]])));
  writeFileSync(path, block("A"));
  await device(() => runs.length === 1);
  writeFileSync(path, Buffer.alloc(1024));
  await device(() => runs.length === 2);
  expect(readFileSync(path)).toEqual(block("A"));
  writeFileSync(path, block("B"));
  await device(() => runs.length === 3);
  writeFileSync(path, "");
  await device(() => runs.length === 4);
  expect(readFileSync(path)).toEqual(block("B"));
  writeFileSync(path, encodeGrubenv(new Map(Object.entries({ good: "B", try: "", failed: "A" }))));
  await device(statusSays("slot A did not start in three tries"));
});
