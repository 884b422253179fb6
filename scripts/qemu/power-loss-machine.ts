// A recording of the whole built image in QEMU, from the first power-on: every write of the disk, by boot loader, first
// boot and work, goes through `blklogwrites` into a log. In the middle the machine is reset without warning, so that a
// start after a crash is on record too. And the other way round: the start of an image as a power cut left it.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Transport } from "#client/transport.ts";
import { UserError } from "#scripts/stages.ts";
import { forwardedKubeconfig, kubeconfigIn } from "./console.ts";
import { dropFiles, freePort, imageOf } from "./device.ts";
import { createDisk, type Partition, partitionOf } from "./disk.ts";
import { findFlow } from "./machines.ts";
import { copySparse, openReader, type Window } from "./power-loss-disk.ts";
import { countLogEntries, sectorBytes } from "./power-loss-log.ts";
import { type Recording, type RecordOptions, transportOf } from "./power-loss-record.ts";
import { runWorkload, type Workload } from "./power-loss-workload.ts";
import { Vm } from "./vm.ts";

/** The loader without variables of its own: nothing of the machine is outside the disk. */
export const machineFlow = findFlow({ arch: "amd64", firmware: "bios" });
/** Emulated, and not alone on this host. */
const timeouts = { boot: 600_000, kubeconfig: 60_000 };
const apiPort = 6443;
const secret = "power-loss-0123456789abcdef";
/** A little more than the image, so that the data partition grows at first boot and copies stay small. */
export const machineDiskBytes = 2560 * 1024 * 1024;

export async function recordInMachine(options: RecordOptions): Promise<Recording> {
  const { folder, say } = options;
  const token = join(folder, "token");
  const config = join(folder, "mote.yaml");
  await writeFile(token, `${secret}\n`);
  await writeFile(config, "machine:\n  hostname: power-loss\n");
  const disk = join(folder, "disk.img");
  await createDisk(await imageOf(machineFlow), disk, machineDiskBytes);
  await dropFiles(disk, { token, "mote.yaml": config });
  const baseFile = join(folder, "base.img");
  const logFile = join(folder, "log.img");
  await copySparse(disk, baseFile);
  await writeFile(logFile, "");
  const log = openReader(logFile);
  const markNow = () => countLogEntries(log.read);
  const workload: Workload = { changes: [], sightings: [] };
  const recorded = [
    "format=blklogwrites",
    "log.driver=file",
    `log.filename=${logFile}`,
    `log-sector-size=${sectorBytes}`,
  ];
  const machine = await Machine.start(disk, folder, recorded.join(","));
  try {
    await machine.vm.waitForMarker("data", timeouts.boot);
    const formattedAt = markNow();
    say(`data mounted at entry ${formattedAt}`);
    const transport = await machine.untilReady();
    const setUpAt = markNow();
    say(`node Ready at entry ${setUpAt}`);
    await work(workload, transport, markNow, options);
    say(`${workload.changes.length} changes, entry ${markNow()}; reset`);
    machine.vm.expectBoot();
    await machine.vm.qmp("system_reset");
    const again = await machine.untilReady();
    say(`node Ready again at entry ${markNow()}`);
    await work(workload, again, markNow, options);
    say(`${workload.changes.length} changes, entry ${markNow()}`);
    // Not a kill: QEMU's own part of the log has to be complete.
    await machine.vm.qmp("quit");
    await machine.vm.waitForExit(20_000);
    const window = windowOf(await partitionOf(disk, "data"));
    const boot = { window: windowOf(await partitionOf(disk, "BOOT")), name: "token", secret };
    return { logFile, baseFile, window, formattedAt, setUpAt, workload, boot };
  } finally {
    await machine.vm.kill();
    log.close();
    await rm(disk, { force: true });
  }
}

const windowOf = (partition: Partition): Window => ({
  firstSector: partition.offsetBytes / sectorBytes,
  sectorCount: partition.sizeBytes / sectorBytes,
});

function work(workload: Workload, transport: Transport, markNow: () => number, options: RecordOptions): Promise<void> {
  const endMs = performance.now() + (options.seconds * 1000) / 2;
  return runWorkload(workload, {
    transport,
    random: options.random,
    markNow,
    writers: 3,
    untilMs: () => performance.now() > endMs,
    pauseMs: 20,
    pause: (ms) => sleep(ms),
  });
}

/** The image on an emulated computer, with its API reachable from here. */
export class Machine {
  readonly vm: Vm;
  readonly #port: number;
  readonly #kubeconfig: string;

  private constructor(vm: Vm, port: number, folder: string) {
    this.vm = vm;
    this.#port = port;
    this.#kubeconfig = join(folder, "kubeconfig.yaml");
  }

  /** `devices`: more arguments for QEMU. */
  static async start(
    disk: string,
    folder: string,
    diskOptions?: string,
    devices: readonly string[] = [],
  ): Promise<Machine> {
    const port = await freePort();
    const vm = await Vm.start({
      flow: { ...machineFlow, machine: [...machineFlow.machine, ...devices] },
      folder,
      disk,
      forwards: [{ hostPort: port, guestPort: apiPort }],
      fwCfg: [{ name: "opt/mote/console-kubeconfig", value: "1" }],
      ...(diskOptions === undefined ? {} : { diskOptions }),
    });
    return new Machine(vm, port, folder);
  }

  /** Waits for `mote: node ready`, and gives a client. */
  async untilReady(): Promise<Transport> {
    await this.vm.waitForMarker("node", timeouts.boot);
    const text = () => kubeconfigIn(this.vm.bootLines().map((line) => line.text));
    for (let waitedMs = 0; text() === undefined; waitedMs += 200) {
      if (waitedMs > timeouts.kubeconfig) throw new UserError(`the device shows no kubeconfig\n${this.vm.tail()}`);
      await sleep(200);
    }
    await writeFile(this.#kubeconfig, forwardedKubeconfig(text()!, this.#port), { mode: 0o600 });
    return transportOf(this.#kubeconfig);
  }
}
