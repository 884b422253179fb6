// What the image weighs and how it behaves on an emulated board: sizes by part, time from power-on to PID 1, API, Ready and
// first pod (first and warm start), memory in use, bytes and flushes that reach the block device per idle hour. All under
// TCG: times compare builds with each other, not with hardware. Figures are kept in build/qemu/bench-image.json as they come,
// for as long as the image is the same, so that a run may be made in parts; the JSON at the end holds all of them.
//   --arch A       once per architecture (default: those whose image is built)
//   --only PART    sizes, boot, memory or idle; the last two are taken on the first architecture
//   --minutes N    idle time before and while counting writes (default 5)
//   --memory LIST  MiB of smaller guests to look at too (default 384,256)
//   --control      positive control: a config map that changes every second must show in the idle figures
import { existsSync } from "node:fs";
import { open, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Device, freePort, freshDisk, imageFolder, imageOf } from "#scripts/qemu/device.ts";
import { createDisk, FatPartition, findImage, partitionOf } from "#scripts/qemu/disk.ts";
import { type Flow, findFlow, flows } from "#scripts/qemu/machines.ts";
import { ensureTools } from "#scripts/qemu/tools.ts";
import { UserError } from "#scripts/stages.ts";

const bootTimeoutMs = 900_000;
const podTimeoutMs = 300_000;
const offTimeoutMs = 180_000;
const mib = 1024 ** 2;

interface Times {
  readonly pid1S: number;
  readonly apiS: number;
  readonly readyS: number;
  readonly podS: number;
}

const parts = ["sizes", "boot", "memory", "idle"] as const;
type Part = (typeof parts)[number];
const keptPath = join("build", "qemu", "bench-image.json");

export async function image(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      arch: { type: "string", multiple: true },
      only: { type: "string", multiple: true },
      minutes: { type: "string", default: "5" },
      memory: { type: "string", default: "384,256" },
      control: { type: "boolean" },
    },
  });
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new UserError(`--minutes ${values.minutes}: a number above 0`);
  const unknown = (values.only ?? []).filter((name) => !parts.some((part) => part === name));
  if (unknown.length > 0) throw new UserError(`--only ${unknown.join(", ")}: use ${parts.join(", ")}`);
  const wants = (part: Part) => values.only?.includes(part) ?? true;
  const built: Flow[] = [];
  for (const arch of values.arch ?? new Set(flows.map((flow) => flow.arch))) {
    if (values.arch || (await findImage(imageFolder, arch))) built.push(findFlow({ arch }));
  }
  const [first] = built;
  if (!first) throw new UserError(`no image in ${imageFolder}: run \`npm run image -- --arch amd64\``);
  console.log(`host tools: ${await ensureTools(built)}`);
  for (const flow of built) {
    if (wants("sizes")) await keep(flow, sizeFigures(flow, await sizesOf(flow)));
    const onFirst = { idle: flow === first && wants("idle"), memory: flow === first && wants("memory") };
    if (!wants("boot") && !onFirst.idle && !onFirst.memory) continue;
    const folder = join("build", "qemu", `bench-${flow.name}`);
    const disk = await startedDisk(flow, folder, wants("boot"));
    const warm = await startedDevice(flow, folder, disk);
    const times = await timesOf(warm, false);
    showTimes(flow, "warm start", times);
    if (wants("boot")) await keep(flow, timeFigures(flow, "", times));
    if (onFirst.idle) await keep(flow, await idle(warm, minutes, values.control === true));
    if (onFirst.memory) {
      if (!onFirst.idle) await sleep(60_000);
      const used = await usedMib(warm);
      row(`${flow.arch} in use of ${flow.defaultMemoryMib} MiB, idle`, `${used} MiB`);
      await keep(flow, { used_mib_idle: used });
    }
    await off(warm);
    for (const memoryMib of onFirst.memory ? values.memory.split(",").map(Number) : []) {
      const used = await usedOf(flow, folder, disk, memoryMib);
      row(`${flow.arch} in use of ${memoryMib} MiB, idle`, used === undefined ? "not Ready" : `${used} MiB`);
      if (used !== undefined) await keep(flow, { [`used_mib_idle_in_${memoryMib}`]: used });
    }
  }
  return Object.assign({}, ...Object.values(await kept()).map(({ figures }) => figures));
}

/** By architecture: figures, and when the image they are of was made. */
type Kept = Record<string, { readonly imageMs: number; readonly figures: Readonly<Record<string, number>> }>;

/** What earlier runs found out about the images that are here now. */
async function kept(): Promise<Kept> {
  if (!existsSync(keptPath)) return {};
  const all = JSON.parse(await readFile(keptPath, "utf8")) as Kept;
  const current: Kept = {};
  for (const [arch, entry] of Object.entries(all)) {
    const path = await findImage(imageFolder, arch);
    if (path && (await stat(path)).mtimeMs === entry.imageMs) current[arch] = entry;
  }
  return current;
}

async function keep(flow: Flow, figures: Readonly<Record<string, number>>): Promise<void> {
  const all = await kept();
  const { mtimeMs } = await stat(await imageOf(flow));
  const entry = { imageMs: mtimeMs, figures: { ...all[flow.arch]?.figures, ...figures } };
  await writeFile(keptPath, `${JSON.stringify({ ...all, [flow.arch]: entry }, undefined, 2)}\n`);
}

function sizeFigures(flow: Flow, sizes: Readonly<Record<string, number>>): Record<string, number> {
  for (const [part, bytes] of Object.entries(sizes)) row(`${flow.arch} ${part}`, `${round(bytes / mib, 1)} MiB`);
  const slot = round(((sizes["root"] ?? 0) + (sizes["verity"] ?? 0)) / mib, 1);
  const whole = round(sum(Object.values(sizes)) / mib, 1);
  row(`${flow.arch} slot (root and verity)`, `${slot} MiB`, "goal 90, then 64");
  row(`${flow.arch} slot with kernel and what starts it`, `${whole} MiB`);
  return { [`slot_mib_${flow.arch}`]: slot, [`slot_and_kernel_mib_${flow.arch}`]: whole };
}

function timeFigures(flow: Flow, prefix: string, times: Times): Record<string, number> {
  return {
    [`${prefix}pid1_s_${flow.arch}`]: times.pid1S,
    [`${prefix}api_s_${flow.arch}`]: times.apiS,
    [`${prefix}ready_s_${flow.arch}`]: times.readyS,
    [`${prefix}pod_s_${flow.arch}`]: times.podS,
  };
}

/** A disk that has been started once and holds the pod; the one of an earlier run where its first start need not be timed. */
async function startedDisk(flow: Flow, folder: string, isTimed: boolean): Promise<string> {
  const markPath = join(folder, "started");
  const imageMs = String((await stat(await imageOf(flow))).mtimeMs);
  const disk = join(folder, "disk.img");
  const mark = existsSync(markPath) && existsSync(disk) ? await readFile(markPath, "utf8") : "";
  if (!isTimed && mark === imageMs) return disk;
  await freshDisk(flow, folder, {});
  const device = await startedDevice(flow, folder, disk);
  const times = await timesOf(device, true);
  showTimes(flow, "first start", times);
  await keep(flow, timeFigures(flow, "first_", times));
  await off(device);
  await writeFile(markPath, imageMs);
  return disk;
}

/** Bytes of what a slot holds, read from the image itself. */
async function sizesOf(flow: Flow): Promise<Readonly<Record<string, number>>> {
  const disk = join("build", "qemu", `bench-${flow.name}.img`);
  await createDisk(await imageOf(flow), disk);
  const slot = await FatPartition.of(disk, "boot-a");
  const sizes = await slot.sizes();
  const cfg = await slot.read("slot.cfg");
  const dataBlocks = Number(/mote\.verity=[0-9a-f]+:(\d+):/.exec(cfg)?.[1]);
  if (!(dataBlocks > 0)) throw new UserError("slot.cfg names no mote.verity=HASH:BLOCKS:SALT");
  const root = await open(disk, "r");
  try {
    const superblock = Buffer.alloc(96);
    await root.read(superblock, 0, 96, (await partitionOf(disk, "root-a")).offsetBytes);
    if (superblock.toString("latin1", 0, 4) !== "hsqs") throw new UserError("root-a holds no squashfs");
    const squashfs = Number(superblock.readBigUInt64LE(40));
    return { root: squashfs, verity: verityBlocks(dataBlocks) * 4096, ...sizes };
  } finally {
    await root.close();
  }
}

/** Blocks of a SHA-256 tree over `blocks`: 128 hashes in each, up to one. */
function verityBlocks(blocks: number): number {
  let total = 0;
  for (let level = blocks; level > 1; ) {
    level = Math.ceil(level / 128);
    total += level;
  }
  return total;
}

async function startedDevice(flow: Flow, folder: string, disk: string, memoryMib?: number): Promise<Device> {
  if (!existsSync(disk)) throw new UserError(`${disk} is gone`);
  return Device.start({ flow, folder, disk, apiPort: await freePort(), memoryMib });
}

const sleepingPod = (name: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  terminationGracePeriodSeconds: 0
  containers: [{ name: main, image: "mote.local/busybox:1", command: ["sleep", "1000000"] }]
`;

/** At the first start the pod is created when the node is Ready; at a warm one it is there and started again. */
async function timesOf(device: Device, isFirst: boolean): Promise<Times> {
  const pid1S = (await device.vm.waitForMarker("pid1", bootTimeoutMs)) / 1000;
  const apiS = (await device.vm.waitForMarker("api", bootTimeoutMs)) / 1000;
  const readyS = (await device.vm.waitForMarker("node", bootTimeoutMs)) / 1000;
  await device.fetchKubeconfig(60_000);
  // The default account comes a moment after the API.
  if (isFirst) {
    await device.until(
      ["get", "serviceaccount", "default", "-o", "name"],
      (text) => text.includes("default"),
      podTimeoutMs,
    );
    await device.kubectl(["apply", "-f", "-"], { input: sleepingPod("first") });
  }
  await device.until(
    ["get", "pod", "first", "-o", "jsonpath={.status.phase} {.status.conditions[?(@.type=='Ready')].status}"],
    (text) => text === "Running True",
    podTimeoutMs,
  );
  const podS = device.vm.sinceBootMs / 1000;
  return { pid1S: round(pid1S, 1), apiS: round(apiS, 1), readyS: round(readyS, 1), podS: round(podS, 1) };
}

function showTimes(flow: Flow, kind: string, times: Times): void {
  row(
    `${flow.name} ${kind}`,
    `PID 1 ${times.pid1S} s, API ${times.apiS} s, Ready ${times.readyS} s, first pod ${times.podS} s`,
    kind === "warm start" ? `goal Ready ${goals[flow.arch]} s` : "",
  );
}

const goals = { amd64: 30, arm64: 40, armhf: 55 } as const;

interface BlockStats {
  readonly qdev?: string;
  readonly device?: string;
  readonly stats: { readonly wr_bytes: number; readonly flush_operations: number; readonly wr_operations: number };
}

/** Bytes and flushes the guest sends to its disk while nothing happens, one pod running. */
async function idle(device: Device, minutes: number, isControl: boolean): Promise<Record<string, number>> {
  console.log(`idle for ${minutes} minute(s), then counting for as long …`);
  if (isControl) await device.kubectl(["create", "configmap", "control", "--from-literal=n=0"]);
  await sleep(minutes * 60_000);
  const before = await diskStats(device);
  const endMs = performance.now() + minutes * 60_000;
  for (let n = 1; performance.now() < endMs; n++) {
    if (isControl) await device.kubectl(["patch", "configmap", "control", "-p", `{"data":{"n":"${n}"}}`]);
    await sleep(Math.min(1000, Math.max(0, endMs - performance.now())));
  }
  const after = await diskStats(device);
  const perHour = (from: number, to: number) => Math.round(((to - from) / minutes) * 60);
  const figures = {
    bytes_per_idle_hour: perHour(before.wr_bytes, after.wr_bytes),
    flushes_per_idle_hour: perHour(before.flush_operations, after.flush_operations),
  };
  row("bytes per idle hour", String(figures.bytes_per_idle_hour), "goal 10 MiB, then 1 MiB/day");
  row("flushes per idle hour", String(figures.flushes_per_idle_hour), "goal 2");
  return figures;
}

async function diskStats(device: Device): Promise<BlockStats["stats"]> {
  const all = await device.vm.qmp<readonly BlockStats[]>("query-blockstats");
  const disk = all.find((one) => one.device === "disk0" || one.device?.startsWith("sd"));
  if (!disk) throw new UserError(`QEMU has no disk among ${all.map((one) => one.device).join(", ")}`);
  return disk.stats;
}

/** MemTotal less MemAvailable, with one pod running; a container sees the machine's. */
async function usedMib(device: Device): Promise<number> {
  const { output } = await device.kubectl(["exec", "first", "--", "cat", "/proc/meminfo"]);
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(output)?.[1]);
  return round((kib("MemTotal") - kib("MemAvailable")) / 1024, 0);
}

/** The same in a smaller guest, a minute after its pod runs; undefined when the node gets nowhere. */
async function usedOf(flow: Flow, folder: string, disk: string, memoryMib: number): Promise<number | undefined> {
  const device = await startedDevice(flow, folder, disk, memoryMib);
  try {
    await timesOf(device, false);
    await sleep(60_000);
    return await usedMib(device);
  } catch (error) {
    console.log(`${memoryMib} MiB: ${(error as Error).message}`);
    return undefined;
  } finally {
    await off(device);
  }
}

async function off(device: Device): Promise<void> {
  const isOff = await device.powerDown(offTimeoutMs).catch(() => false);
  if (!isOff) {
    console.log("it did not switch itself off; its power is cut");
    await device.vm.kill();
  }
}

function row(name: string, value: string, anchor = ""): void {
  console.log(`${name.padEnd(38)}${value.padStart(14)}   ${anchor}`);
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const round = (value: number, digits: number): number => Number(value.toFixed(digits));
