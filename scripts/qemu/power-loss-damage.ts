// Disks with one named damage each, started: what power loss, a worn card or a curious person leaves behind must neither
// stop a device that can be helped nor be made worse on one that cannot. The disks are the end of a recording.
//
//   node scripts/run.mjs scripts/qemu/power-loss-damage.ts [--recording build/power-loss/image] [--only NAME]
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { markerOffset } from "#appliance/data-marker.ts";
import { backupPlaces, hasMagic, superblockBytes } from "#appliance/ext4-superblock.ts";
import { messageOf } from "#base/errors.ts";
import { readAt, writeAt } from "#platform/block-devices.ts";
import { encodeCpio } from "#scripts/image/cpio.ts";
import { run } from "#scripts/run-command.ts";
import { main, seconds, UserError } from "#scripts/stages.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { FatPartition, partitionOf, partitionsOf } from "./disk.ts";
import { openReader, Replayer } from "./power-loss-disk.ts";
import { planOf } from "./power-loss-images.ts";
import { parseLog } from "./power-loss-log.ts";
import { Machine, machineDiskBytes } from "./power-loss-machine.ts";
import type { Recording } from "./power-loss-record.ts";
import { judgeObjects, readObjects, seenRevisionAt } from "./power-loss-workload.ts";

interface Case {
  readonly disk: string;
  readonly folder: string;
  /** Starts it, waits for Ready and reads what was promised; sentences on what is missing. */
  readonly startsWhole: () => Promise<string[]>;
}

interface Damage {
  readonly name: string;
  readonly does: (disk: string, folder: string) => Promise<void>;
  /** Sentences on what is wrong. */
  readonly judge: (one: Case) => Promise<string[]>;
}

const sector = 512;
const bootMs = 300_000;
/** The watchdog's minute, and what emulation adds. */
const resetMs = 180_000;
const primary = 1024;

const zero = async (disk: string, offset: number, bytes: number) =>
  writeAt(disk, [{ offset, bytes: new Uint8Array(bytes) }]);
const dataOffset = async (disk: string) => (await partitionOf(disk, "data")).offsetBytes;
const whole = (one: Case) => one.startsWhole();

/** Every superblock of the data partition. */
async function wipeSuperblocks(disk: string): Promise<void> {
  const { offsetBytes, sizeBytes } = await partitionOf(disk, "data");
  for (const { offset } of [{ offset: primary }, ...backupPlaces(sizeBytes)]) {
    if (hasMagic(await readAt(disk, offsetBytes + offset, superblockBytes))) {
      await zero(disk, offsetBytes + offset, superblockBytes);
    }
  }
}

const damages: readonly Damage[] = [
  {
    name: "loader-folder",
    does: async (disk) => {
      const { offsetBytes } = await partitionOf(disk, "BOOT");
      await run("mdeltree", ["-i", `${disk}@@${offsetBytes}`, "::grub"], { env: { MTOOLS_SKIP_CHECK: "1" } });
    },
    judge: whole,
  },
  {
    name: "partition-table",
    // As when power goes while the data partition grows: the header speaks of other entries.
    does: (disk) => writeAt(disk, [{ offset: sector + 88, bytes: Uint8Array.of(1, 2, 3, 4) }]),
    async judge(one) {
      const problems = await one.startsWhole();
      await partitionsOf(one.disk).catch((error: unknown) => problems.push(`not repaired: ${messageOf(error)}`));
      return problems;
    },
  },
  {
    name: "superblock-torn",
    does: async (disk) => zero(disk, (await dataOffset(disk)) + primary, sector),
    judge: whole,
  },
  {
    name: "superblock-torn-marker-lost",
    async does(disk) {
      await zero(disk, (await dataOffset(disk)) + primary + sector, sector);
      await writeAt(disk, [{ offset: markerOffset, bytes: Buffer.alloc(sector, 0x5a) }]);
    },
    judge: whole,
  },
  {
    name: "superblocks-gone",
    does: wipeSuperblocks,
    async judge({ disk, folder }) {
      const problems: string[] = [];
      const machine = await Machine.start(disk, folder);
      try {
        const says = (text: string) => /mote: error The data partition cannot be used/.test(text);
        await machine.vm.waitForLine(says, "what is wrong", bootMs);
        // The status file is written a moment later.
        await machine.vm.waitForExit(20_000);
        if (machine.vm.hasExited) problems.push("the device did not stay up");
      } finally {
        await machine.vm.kill();
      }
      const status = await (await FatPartition.of(disk)).read("mote-status.txt");
      if (!/cannot be used.*factory-reset/.test(status)) problems.push(`the status file says: ${status.trim()}`);
      const found = await readAt(disk, (await dataOffset(disk)) + primary, superblockBytes);
      if (hasMagic(found)) problems.push("a file system was made");
      return problems;
    },
  },
  {
    name: "hang-before-pid-1",
    async does(disk, folder) {
      const boot = await FatPartition.of(disk, "boot-a");
      const [initrd, hangs] = [join(folder, "initrd"), join(folder, "hangs")];
      await boot.take("initrd", initrd);
      // busybox prefers its own programs to files of their name, so it is a script that hangs.
      const arms = readFileSync("firmware/initramfs/watchdog.sh", "utf8");
      const script = Buffer.from(`${arms}\necho 'mote: hangs on purpose' >/dev/console\nsleep 100000\n`);
      const bytes = readFileSync(initrd);
      const padding = Buffer.alloc((4 - (bytes.length % 4)) % 4);
      // A later archive replaces files of an earlier one.
      const archive = encodeCpio([{ path: "watchdog.sh", kind: "file", mode: 0o644, data: script }], 0);
      await writeFile(hangs, Buffer.concat([bytes, padding, archive]));
      await boot.put("initrd", hangs);
    },
    async judge({ disk, folder }) {
      const devices = ["-device", "i6300esb", "-action", "watchdog=reset"];
      const machine = await Machine.start(disk, folder, undefined, devices);
      try {
        const says = (text: string) => /mote: hangs on purpose/.test(text);
        const first = await machine.vm.waitForLine(says, "the hang", bootMs);
        machine.vm.expectBoot();
        const second = await machine.vm.waitForLine(says, "the watchdog's reset", resetMs);
        console.log(`    restarted ${seconds(second.atMs - first.atMs)} after the hang`);
        return [];
      } finally {
        await machine.vm.kill();
      }
    },
  },
];

await main(async () => {
  const { values } = parseArgs({
    options: { recording: { type: "string", default: "build/power-loss/image" }, only: { type: "string" } },
  });
  const chosen = damages.filter(({ name }) => values.only === undefined || name === values.only);
  if (chosen.length === 0) throw new UserError(`--only ${values.only}: use ${damages.map((d) => d.name).join(", ")}`);
  const folder = resolve(values.recording);
  const recording = JSON.parse(readFileSync(join(folder, "recording.json"), "utf8")) as Recording;
  const log = openReader(recording.logFile);
  const { entries } = parseLog(log.read);
  const scratch = await mkdtemp(join("/dev/shm", "mote-damage-"));
  const { changes, sightings } = recording.workload;
  const cut = entries.length;
  const expected = { changes, seenRevision: seenRevisionAt(sightings, cut), cut };
  let failed = 0;
  try {
    const replayer = await Replayer.open({
      baseFile: recording.baseFile,
      workFile: join(scratch, "work.img"),
      entries,
      readLog: log.read,
      window: { firstSector: 0, sectorCount: machineDiskBytes / sector },
    });
    const plan = planOf(entries, { cut, durableUntil: cut, kind: "kept", random: seededRandom(1) });
    for (const damage of chosen) {
      const disk = join(scratch, "disk.img");
      const own = join(scratch, damage.name);
      await mkdir(own);
      await replayer.make(plan, disk);
      const startedMs = performance.now();
      const startsWhole = async () => {
        const machine = await Machine.start(disk, own);
        try {
          return judgeObjects(await readObjects(await machine.untilReady()), expected);
        } finally {
          await machine.vm.kill();
        }
      };
      let problems: string[];
      try {
        await damage.does(disk, own);
        problems = await damage.judge({ disk, folder: own, startsWhole });
      } catch (error) {
        problems = [messageOf(error)];
      }
      if (problems.length > 0) failed++;
      console.log(
        `${problems.length > 0 ? "FAILED" : "ok"} ${damage.name} (${seconds(performance.now() - startedMs)})`,
      );
      for (const problem of problems.slice(0, 5)) console.log(`    ${problem}`);
    }
    replayer.close();
  } finally {
    log.close();
    await rm(scratch, { recursive: true, force: true });
  }
  if (failed > 0) process.exitCode = 1;
});
