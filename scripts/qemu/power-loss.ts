// `npm run test:power-loss`: power lost at random moments. Every write and flush of a disk at work is recorded; from the
// record images are made as the disk may be after a cut: what was flushed is there, the rest kept, dropped, reordered or
// torn at 512 bytes. Each is checked off-line, some are started again, and the same with flushes forgotten must be seen
// to lose something, or the test proves nothing.
//
//   npm run test:power-loss [-- --source image|host --images 1000 --boots 20 --seed N --seconds 45]
//   ... -- --recording FOLDER --seed N --only 17    one image again, which is kept when it fails
//   ... -- --recording FOLDER --until 150              cuts only before entry 150, e.g. in the first moments
//   ... -- --recording FOLDER --seed N --part 2/4      the second quarter of the same images, boots and controls
//
// source "image": the built image in QEMU, recorded from power-on, boots are boots of the whole image to "node ready".
// source "host": this kernel's ext4 and mote's server (power-loss-record.ts); a boot is a mount and a start of the server.
import { existsSync, readFileSync, statfsSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { planFor } from "#appliance/data-file-system.ts";
import { decodeMarker, markerBytes, markerOffset } from "#appliance/data-marker.ts";
import type { DataPlan } from "#appliance/data-plan.ts";
import { messageOf } from "#base/errors.ts";
import { readAt } from "#platform/block-devices.ts";
import { run } from "#scripts/run-command.ts";
import { main, seconds, UserError } from "#scripts/stages.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { bootHoldsSecret, checkImage, fileVersions } from "./power-loss-check.ts";
import { openReader, Replayer, type Window } from "./power-loss-disk.ts";
import { type CrashPlan, planCrash, planOf } from "./power-loss-images.ts";
import { type LogEntry, parseLog, type ReadAt, sectorBytes } from "./power-loss-log.ts";
import { Machine, machineDiskBytes, machineFlow, recordInMachine } from "./power-loss-machine.ts";
import { HostServer, type Recording, recordOnHost } from "./power-loss-record.ts";
import { type Expectation, judgeObjects, readObjects, seenRevisionAt } from "./power-loss-workload.ts";
import { ensureTools } from "./tools.ts";

interface Numbered {
  readonly number: number;
  readonly plan: CrashPlan;
}

interface Run {
  readonly recording: Recording;
  readonly entries: readonly LogEntry[];
  readonly readLog: ReadAt;
  /** Images are made and thrown away here. */
  readonly scratch: string;
  readonly versions: ReadonlyMap<string, ReadonlySet<string>>;
}

const counts = { passed: 0, failed: 0 };
/** More of the same tells no more. */
const maxShown = 20;
const maxKept = 3;
/** Of the boots, so many at most are of images with a torn superblock. */
const maxTornBoots = 2;

async function recordingIn(options: {
  readonly folder: string;
  readonly source: "host" | "image";
  readonly isReused: boolean;
  readonly seconds: number;
  readonly seed: number;
}): Promise<Recording> {
  const { folder, source, isReused, seed } = options;
  const description = join(folder, "recording.json");
  if (isReused) {
    if (!existsSync(description)) throw new UserError(`${folder} holds no recording`);
    return JSON.parse(readFileSync(description, "utf8")) as Recording;
  }
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const say = (what: string) => console.log(`recording: ${what}`);
  await ensureTools(source === "image" ? [machineFlow] : []);
  const record = source === "host" ? recordOnHost : recordInMachine;
  const recording = await record({ folder, seconds: options.seconds, random: seededRandom(seed), say });
  writeFileSync(description, JSON.stringify(recording));
  return recording;
}

/** Memory when there is plenty: images live for a fraction of a second. */
function scratchRoot(): string {
  const memory = "/dev/shm";
  const neededBytes = 2 * 1024 ** 3;
  if (existsSync(memory)) {
    const { bavail, bsize } = statfsSync(memory);
    if (bavail * bsize > neededBytes) return memory;
  }
  return resolve("build/power-loss");
}

function plansOf(run: Run, count: number, seed: number, ignoreFlushes: boolean): Numbered[] {
  // A cut of a control that forgets flushes has to be where something was acknowledged.
  const from = ignoreFlushes ? Math.min(run.recording.setUpAt, run.entries.length) : 0;
  return Array.from({ length: count }, (_, number) => {
    const random = seededRandom(seed * 1_000 + number);
    return { number, plan: planCrash(run.entries, { random, from, ignoreFlushes }) };
  }).sort(inOrder);
}

/** The order in which a replayer can make them. */
const inOrder = (a: Numbered, b: Numbered): number => a.plan.durableUntil - b.plan.durableUntil || a.number - b.number;

const replayerOf = (run: Run, window: Window = run.recording.window, name = "work"): Promise<Replayer> =>
  Replayer.open({
    baseFile: run.recording.baseFile,
    workFile: join(run.scratch, `${name}.img`),
    entries: run.entries,
    readLog: run.readLog,
    window,
  });

function expectationAt(run: Run, cut: number): Expectation {
  const { changes, sightings } = run.recording.workload;
  return { changes, seenRevision: seenRevisionAt(sightings, cut), cut };
}

/** Contents of the files of the set-up; of those that never change while we look. */
async function collectVersions(run: Run): Promise<Map<string, ReadonlySet<string>>> {
  const { entries, recording } = run;
  const versions = new Map<string, Set<string>>();
  const replayer = await replayerOf(run);
  const image = join(run.scratch, "image.img");
  const span = entries.length - recording.setUpAt;
  for (const share of [0, 0.3, 0.6, 1]) {
    const cut = recording.setUpAt + Math.floor(span * share);
    await replayer.make(planOf(entries, { cut, durableUntil: cut, kind: "kept", random: seededRandom(1) }), image);
    for (const [path, hash] of await fileVersions(image, join(run.scratch, "files"))) {
      const known = versions.get(path);
      if (known) known.add(hash);
      // What comes later than the set-up is not of it.
      else if (share === 0) versions.set(path, new Set([hash]));
    }
  }
  replayer.close();
  for (const [path, hashes] of versions) if (hashes.size > 1) versions.delete(path);
  if (versions.size === 0) throw new UserError("the recording shows no file that has to be whole");
  return versions;
}

async function check(run: Run, replayer: Replayer, plan: CrashPlan, markers?: Replayer) {
  const image = join(run.scratch, "image.img");
  await replayer.make(plan, image);
  const { recording } = run;
  // Before anything is repaired.
  const decision = markers && (await decisionFor(run, markers, plan, image));
  const result = await checkImage({
    image,
    folder: join(run.scratch, "files"),
    expected: expectationAt(run, plan.cut),
    isFormatted: plan.cut >= recording.formattedAt,
    isSetUp: plan.cut >= recording.setUpAt,
    files: run.versions,
    ...(recording.boot ? { secret: recording.boot.secret } : {}),
  });
  return { ...result, decision };
}

/** What a device would do with its data partition after this cut. */
async function decisionFor(run: Run, markers: Replayer, plan: CrashPlan, image: string): Promise<DataPlan["kind"]> {
  const file = join(run.scratch, "marker.img");
  await markers.make(plan, file);
  const marker = decodeMarker(await readAt(file, 0, markerBytes));
  const bytes = run.recording.window.sectorCount * sectorBytes;
  return (await planFor({ path: image, bytes }, marker)).kind;
}

/** A used partition is never formatted; one that was not may be, and is never left alone. */
function judgeDecision(decision: DataPlan["kind"] | undefined, isFormatted: boolean): string[] {
  if (decision === "refuse") return ["the device would refuse its data partition"];
  return decision === "format" && isFormatted ? ["the device would format its data partition"] : [];
}

/** The boot partition of the same cut: what a person put there is there still, if it is not on the data partition yet. */
async function checkBoot(run: Run, replayer: Replayer, plan: CrashPlan): Promise<string[]> {
  const { boot } = run.recording;
  if (!boot) return [];
  const image = join(run.scratch, "boot.img");
  await replayer.make(plan, image);
  const isThere = await bootHoldsSecret(image, boot.name, boot.secret);
  return isThere ? [] : [`${boot.name} is neither on the boot partition nor on the data partition`];
}

/** Returns the images whose superblock is torn: a start has to cope with them too. */
async function checkAll(run: Run, plans: readonly Numbered[]): Promise<Numbered[]> {
  const torn: Numbered[] = [];
  const replayer = await replayerOf(run);
  const { boot } = run.recording;
  const bootReplayer = boot && (await replayerOf(run, boot.window, "boot-work"));
  // A recording of the host has no disk around its partition.
  const markerWindow = { firstSector: markerOffset / sectorBytes, sectorCount: 1 };
  const markers = boot && (await replayerOf(run, markerWindow, "marker-work"));
  const decisions = new Map<string, number>();
  const startedMs = performance.now();
  const sums = { withLoss: 0, lostWrites: 0, onBoot: 0 };
  const kinds = new Map<string, number>();
  for (const [index, { number, plan }] of plans.entries()) {
    const result = await check(run, replayer, plan, markers);
    const lost = result.holdsSecret || !bootReplayer ? [] : await checkBoot(run, bootReplayer, plan);
    if (bootReplayer && !result.holdsSecret && lost.length === 0) sums.onBoot++;
    if (result.usedBackup && plan.cut >= run.recording.formattedAt) torn.push({ number, plan });
    if (plan.lostWrites > 0) sums.withLoss++;
    sums.lostWrites += plan.lostWrites;
    kinds.set(plan.kind, (kinds.get(plan.kind) ?? 0) + 1);
    const decided =
      result.decision === undefined ? [] : judgeDecision(result.decision, plan.cut >= run.recording.formattedAt);
    if (result.decision) decisions.set(result.decision, (decisions.get(result.decision) ?? 0) + 1);
    const problems = [...result.problems, ...lost, ...decided];
    judge(problems, `image ${number}, ${describe(plan)}`);
    if (problems.length > 0) await keep(run, replayer, plan, `image-${number}`);
    if ((index + 1) % 100 === 0 || index + 1 === plans.length) {
      const each = (performance.now() - startedMs) / (index + 1);
      console.log(
        `checked ${index + 1} of ${plans.length} images, ${counts.failed} failed, ${Math.round(each)} ms each`,
      );
    }
  }
  replayer.close();
  bootReplayer?.close();
  markers?.close();
  if (plans.length === 0) return torn;
  console.log(`fates: ${[...kinds].map(([kind, n]) => `${n} ${kind}`).join(", ")}`);
  console.log(`${sums.withLoss} images lack writes, ${sums.lostWrites} in all`);
  if (boot) console.log(`${sums.onBoot} images have ${boot.name} on the boot partition still, the others on data`);
  if (markers) console.log(`the device would: ${[...decisions].map(([kind, n]) => `${kind} ${n}`).join(", ")}`);
  if (torn.length > 0) console.log(`${torn.length} images have a torn superblock, which e2fsck took from a backup`);
  return torn;
}

/** For whoever looks into it: the partition as the cut left it. */
async function keep(run: Run, replayer: Replayer, plan: CrashPlan, name: string): Promise<void> {
  if (counts.failed > maxKept) return;
  const file = join(dirname(run.recording.logFile), `failed-${name}.img`);
  await replayer.make(plan, file);
  console.log(`    kept as ${file}`);
}

const describe = (plan: CrashPlan): string =>
  `cut at ${plan.cut}, durable until ${plan.durableUntil}, ${plan.kind}, ${plan.lostWrites} writes lost`;

function judge(problems: readonly string[], what: string): void {
  if (problems.length === 0) {
    counts.passed++;
    return;
  }
  counts.failed++;
  if (counts.failed > maxShown) return;
  console.log(`FAILED ${what}`);
  for (const problem of problems.slice(0, 5)) console.log(`    ${problem}`);
  if (problems.length > 5) console.log(`    and ${problems.length - 5} more`);
}

async function bootAll(run: Run, plans: readonly Numbered[], source: "host" | "image"): Promise<void> {
  if (plans.length === 0) return;
  const wholeDisk = { firstSector: 0, sectorCount: machineDiskBytes / 512 };
  const replayer = await replayerOf(run, source === "image" ? wholeDisk : run.recording.window);
  const boot = source === "image" ? bootMachine : bootOnHost;
  for (const [index, { number, plan }] of plans.entries()) {
    const image = join(run.scratch, "image.img");
    await replayer.make(plan, image);
    const startedMs = performance.now();
    const problems = await boot(run, plan, image).catch((error: unknown) => [messageOf(error)]);
    judge(problems, `boot ${number}, ${describe(plan)}`);
    if (problems.length > 0) await keep(run, replayer, plan, `boot-${number}`);
    const said = problems.length === 0 ? "ready, all there" : "FAILED";
    const took = seconds(performance.now() - startedMs);
    console.log(`boot ${index + 1} of ${plans.length}: ${describe(plan)}: ${said} (${took})`);
  }
  replayer.close();
}

/** The whole image starts from the disk as the cut left it, until the node is Ready, and serves what was promised. */
async function bootMachine(run: Run, plan: CrashPlan, image: string): Promise<string[]> {
  const machine = await Machine.start(image, join(run.scratch, "machine"));
  try {
    const transport = await machine.untilReady();
    return judgeObjects(await readObjects(transport), expectationAt(run, plan.cut));
  } finally {
    await machine.vm.kill();
  }
}

/** The kernel replays the journal, mote's server starts on what is there and serves it. */
async function bootOnHost(run_: Run, plan: CrashPlan, image: string): Promise<string[]> {
  const mountPoint = join(run_.scratch, "mnt");
  await mkdir(mountPoint, { recursive: true });
  // As a device does before it mounts.
  await run("e2fsck", ["-fy", image], { ok: [0, 1] });
  await run("mount", ["-o", "loop,noatime", image, mountPoint]);
  try {
    const server = await HostServer.start(mountPoint, join(run_.scratch, "run"));
    try {
      return judgeObjects(await readObjects(server.transport), expectationAt(run_, plan.cut));
    } finally {
      await server.kill("SIGKILL");
    }
  } finally {
    await run("umount", [mountPoint]);
  }
}

/** The same checks on a disk that lies about its flushes: they have to find something. */
async function controlAll(run: Run, plans: readonly Numbered[]): Promise<void> {
  if (plans.length === 0) return;
  const replayer = await replayerOf(run);
  let caught = 0;
  let example = "";
  for (const { plan } of plans) {
    const { problems } = await check(run, replayer, plan);
    if (problems.length === 0) continue;
    caught++;
    example ||= problems[0]!;
  }
  replayer.close();
  judge(caught > 0 ? [] : ["nothing is found amiss although flushes are ignored"], "positive control");
  console.log(
    `positive control: ${caught} of ${plans.length} images with forgotten flushes were found out, e.g. ${example}`,
  );
}

await main(async () => {
  const { values } = parseArgs({
    options: {
      source: { type: "string", default: "image" },
      images: { type: "string", default: "1000" },
      boots: { type: "string", default: "20" },
      controls: { type: "string", default: "40" },
      seed: { type: "string" },
      seconds: { type: "string", default: "45" },
      recording: { type: "string" },
      only: { type: "string" },
      until: { type: "string" },
      part: { type: "string", default: "1/1" },
    },
  });
  const seed = Number(values.seed ?? Date.now() % 1_000_000);
  const count = (text: string, name: string) => {
    const number = Number(text);
    if (!Number.isInteger(number) || number < 0) throw new UserError(`--${name} ${text} is not a number of things`);
    return number;
  };
  const images = count(values.images, "images");
  const boots = count(values.boots, "boots");
  const controls = count(values.controls, "controls");
  const { source } = values;
  if (source !== "host" && source !== "image") {
    throw new UserError(`--source ${source} is not allowed; use image or host`);
  }
  const only = values.only === undefined ? undefined : count(values.only, "only");
  const [part, parts] = values.part.split("/").map((text) => count(text, "part"));
  if (!part || !parts || part > parts) throw new UserError(`--part ${values.part} is not allowed; use 2/4`);
  const inPart = ({ number }: Numbered): boolean => number % parts === part - 1;
  const startedMs = performance.now();
  console.log(`seed ${seed}`);
  const folder = resolve(values.recording ?? `build/power-loss/${source}`);
  const isReused = values.recording !== undefined;
  const recording = await recordingIn({ folder, source, isReused, seconds: Number(values.seconds), seed });
  const log = openReader(recording.logFile);
  const { entries, sizeBytes } = parseLog(log.read);
  const { changes, sightings } = recording.workload;
  const flushes = entries.filter((entry) => entry.flush).length;
  console.log(
    `recorded: ${entries.length} entries, ${flushes} flushes, ${Math.round(sizeBytes / 1e6)} MB; ` +
      `${changes.filter((change) => change.mark !== undefined).length} acknowledged changes, ${sightings.length} revisions seen`,
  );
  if (flushes < 10 || changes.length < 10) throw new UserError("the recording holds too little to prove anything");
  const scratch = await mkdtemp(join(scratchRoot(), "mote-power-loss-"));
  try {
    const basis = { recording, entries, readLog: log.read, scratch, versions: new Map() };
    const versions = await collectVersions(basis);
    console.log(`files that must be whole: ${versions.size}`);
    const all = { ...basis, versions };
    const first = values.until === undefined ? entries : entries.slice(0, count(values.until, "until"));
    const chosen = plansOf({ ...all, entries: first }, images, seed, false).filter((one) =>
      only === undefined ? inPart(one) : one.number === only,
    );
    const torn = await checkAll(all, chosen);
    const more = torn.slice(0, Math.min(boots, maxTornBoots));
    const started = plansOf(all, boots - more.length, seed + 500_000, false).filter(inPart);
    await bootAll(all, [...started, ...more].sort(inOrder), source);
    await controlAll(all, plansOf(all, controls, seed + 700_000, true).filter(inPart));
  } finally {
    log.close();
    await rm(scratch, { recursive: true, force: true });
  }
  console.log(
    `${counts.passed} passed, ${counts.failed} failed (${seconds(performance.now() - startedMs)}, seed ${seed})`,
  );
  if (counts.failed > 0) {
    console.log(
      `again: npm run test:power-loss -- --recording ${folder} --seed ${seed} --images ${images} --only NUMBER`,
    );
    process.exitCode = 1;
  }
});
