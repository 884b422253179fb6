// A recording of a disk at work, on this host and without an emulated machine: the kernel's own ext4 on a loop device
// whose file is qemu-storage-daemon's, where every write and flush goes through `blklogwrites` into a log; on it mote's
// server with its clients, killed and started again in between. Needs root (loop, mount) and qemu-storage-daemon.
//
//   mote server -> ext4 -> /dev/loopN -> FUSE file -> blklogwrites -> disk.img
//                                                            `-----> log.img
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "#base/clock.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { readKubeconfig } from "#client/kubeconfig.ts";
import type { Transport } from "#client/transport.ts";
import { createHttpClient } from "#platform/http-client.ts";
import { run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";
import { copySparse, openReader, type Window } from "./power-loss-disk.ts";
import { countLogEntries, sectorBytes } from "./power-loss-log.ts";
import { runWorkload, type Workload } from "./power-loss-workload.ts";

export interface Recording {
  readonly logFile: string;
  /** The disk before the first entry. */
  readonly baseFile: string;
  /** The data partition on it. */
  readonly window: Window;
  /** From this entry on there must be a file system. */
  readonly formattedAt: number;
  /** From this entry on every file of the set-up must be there. */
  readonly setUpAt: number;
  readonly workload: Workload;
  /** The boot partition of a device, and the file with a secret that was dropped there. */
  readonly boot?: { readonly window: Window; readonly name: string; readonly secret: string };
}

export interface RecordOptions {
  readonly folder: string;
  readonly seconds: number;
  readonly random: Random;
  readonly say: (what: string) => void;
}

/** Large enough for a journal of ordinary size, small enough that a thousand copies are quick. */
const diskBytes = 512 * 1024 * 1024;
const startTimeoutMs = 60_000;
/** Of Debian's qemu-system-common. */
const daemonProgram = "qemu-storage-daemon";

export async function recordOnHost(options: RecordOptions): Promise<Recording> {
  if (process.getuid?.() !== 0) throw new UserError("recording needs root: loop devices and mounts");
  const { folder } = options;
  await mkdir(folder, { recursive: true });
  const diskFile = join(folder, "disk.img");
  const baseFile = join(folder, "base.img");
  const logFile = join(folder, "log.img");
  const mountPoint = join(folder, "mnt");
  const exportFile = join(folder, "export.img");
  await mkdir(mountPoint, { recursive: true });
  for (const file of [diskFile, logFile, exportFile]) {
    await rm(file, { force: true });
    writeFileSync(file, "");
  }
  truncateSync(diskFile, diskBytes);
  await run("mkfs.ext4", ["-q", "-L", "data", "-m", "0", diskFile]);
  await copySparse(diskFile, baseFile);
  const daemon = await startDaemon({ diskFile, logFile, exportFile });
  const log = openReader(logFile);
  const markNow = () => countLogEntries(log.read);
  const workload: Workload = { changes: [], sightings: [] };
  let setUpAt = Number.POSITIVE_INFINITY;
  let loop: string | undefined;
  try {
    loop = (await run("losetup", ["-f", "--show", exportFile])).output.trim();
    await run("mount", ["-o", "noatime", loop, mountPoint]);
    // Three lives: the first ends by a kill, the second in order, the third is still at work at the end.
    const lives = 3;
    for (let life = 0; life < lives; life++) {
      const server = await HostServer.start(mountPoint, join(folder, "run"));
      try {
        if (setUpAt === Number.POSITIVE_INFINITY) {
          await run("sync", ["-f", mountPoint]);
          setUpAt = markNow();
        }
        const endMs = performance.now() + (options.seconds * 1000) / lives;
        const work = runWorkload(workload, {
          transport: server.transport,
          random: options.random,
          markNow,
          writers: 4,
          untilMs: () => performance.now() > endMs,
          pauseMs: 10,
          pause: (ms) => sleep(ms),
        });
        const kill = async () => {
          await sleep((options.seconds * 900) / lives);
          await server.kill("SIGKILL");
        };
        await Promise.all([work, ...(life === 0 ? [kill()] : [])]);
      } finally {
        await server.kill(life === 1 ? "SIGTERM" : "SIGKILL");
      }
      options.say(`life ${life + 1} of ${lives}: ${workload.changes.length} changes, ${markNow()} log entries`);
    }
  } finally {
    await run("umount", [mountPoint], { ok: [0, 1, 32] });
    if (loop) await run("losetup", ["-d", loop], { ok: [0, 1] });
    daemon.kill("SIGTERM");
    await closed(daemon);
    log.close();
  }
  const window = { firstSector: 0, sectorCount: diskBytes / sectorBytes };
  return { logFile, baseFile, window, formattedAt: 0, setUpAt, workload };
}

/** A mote server without node on a data folder of the mounted partition. */
export class HostServer {
  readonly transport: Transport;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, transport: Transport) {
    this.#child = child;
    this.transport = transport;
  }

  /** Rejects with what the server said when it is not ready in time. */
  static async start(mountPoint: string, runFolder: string): Promise<HostServer> {
    const kubeconfig = join(runFolder, "kubeconfig.yaml");
    await rm(runFolder, { recursive: true, force: true });
    await mkdir(runFolder, { recursive: true });
    // An empty one, so that this host's own configuration stays out.
    const config = join(runFolder, "config.yaml");
    writeFileSync(config, "{}\n");
    const port = 20_000 + (process.pid % 10_000);
    const child = spawn(
      "build/dist/mote",
      [
        "server",
        "--disable-agent",
        "--config",
        config,
        "--data-dir",
        join(mountPoint, "mote"),
        "--run-dir",
        runFolder,
        "--bind-address",
        "127.0.0.1",
        "--https-listen-port",
        String(port),
        "--write-kubeconfig",
        kubeconfig,
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    let said = "";
    const listen = (chunk: Buffer) => {
      said = (said + chunk.toString("utf8")).slice(-4000);
    };
    child.stdout.on("data", listen);
    child.stderr.on("data", listen);
    const endMs = performance.now() + startTimeoutMs;
    while (!(existsSync(kubeconfig) && said.includes("mote is ready"))) {
      if (child.exitCode !== null || performance.now() > endMs) {
        child.kill("SIGKILL");
        throw new UserError(`mote server does not start: ${said.trim().slice(-1000)}`);
      }
      await sleep(50);
    }
    return new HostServer(child, await transportOf(kubeconfig));
  }

  async kill(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.#child.kill(signal);
    await closed(this.#child);
  }
}

export async function transportOf(kubeconfig: string): Promise<Transport> {
  const config = await readKubeconfig(readFileSync(kubeconfig, "utf8"), {
    readFile: async (path) => readFileSync(path, "utf8"),
  });
  const { server, ca, cert, key } = config;
  const http = createHttpClient({ baseUrl: server, ...(ca ? { ca } : {}), ...(cert && key ? { cert, key } : {}) });
  return createHttpTransport({ userAgent: "mote-power-loss", requestTimeoutMs: 20_000 }, { http });
}

async function startDaemon(files: {
  readonly diskFile: string;
  readonly logFile: string;
  readonly exportFile: string;
}): Promise<ChildProcess> {
  const child = spawn(
    daemonProgram,
    [
      // Flushes count in the log; that they reach this host's disk too would only take time.
      "--blockdev",
      `driver=file,node-name=disk,filename=${files.diskFile},cache.no-flush=on`,
      "--blockdev",
      `driver=file,node-name=log,filename=${files.logFile},cache.no-flush=on`,
      "--blockdev",
      `driver=blklogwrites,node-name=recorded,file=disk,log=log,log-sector-size=${sectorBytes}`,
      "--export",
      `type=fuse,id=export,node-name=recorded,mountpoint=${files.exportFile},writable=on`,
    ],
    { stdio: "inherit" },
  );
  let failure: Error | undefined;
  child.on("error", (error) => {
    failure = error;
  });
  for (let waitedMs = 0; waitedMs < 10_000; waitedMs += 50) {
    await sleep(50);
    if (failure || child.exitCode !== null) break;
    if (/ fuse/.test(mountLine(files.exportFile))) return child;
  }
  child.kill("SIGKILL");
  throw new UserError(
    `qemu-storage-daemon exports nothing${failure ? `: ${failure.message}` : ""} (qemu-system-common)`,
  );
}

const mountLine = (path: string): string =>
  readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .find((line) => line.split(" ")[1] === path) ?? "";

function closed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once("close", () => resolve()));
}
