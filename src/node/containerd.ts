// containerd as mote runs it: own configuration, socket, root and state, so that a system containerd is left alone; in a
// session of its own, so that it and the pods outlive mote and the next mote adopts it: found by its command line, as a
// pid file may be lost to a crash, and two of them would wait for each other's database for ever. It is started again
// when it dies; its shims keep the containers meanwhile. The log is cut at start, when it has grown past a bound.
// Counterpart: k3s's containerd package.
import { type Clock, pause } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import { everyStep } from "#base/every-step.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { findProcesses, isRunning, killTree, signalProcess, startDaemon } from "#platform/daemons.ts";
import { exists, makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile, removeTree, renamePath, writePlainFile } from "#platform/folders.ts";
import { fileFacts } from "#platform/open-file.ts";
import type { Commands } from "#platform/processes.ts";
import { removeAllCgroups } from "./cgroups.ts";
import { createCri } from "./cri.ts";
import { isMounted, mountPoints, unshareMounts } from "./volumes/mount-points.ts";

export interface ContainerdOptions {
  /** Default /usr/bin/containerd. */
  readonly binary?: string;
  /** Images and snapshots: survives reboots. */
  readonly root: string;
  /** Sockets, pid file and mounts of running containers: does not. */
  readonly state: string;
  /** Folder of the generated configuration. */
  readonly configDir: string;
  /** Folder of the log; default `configDir`. On devices it lies in memory. */
  readonly logDir?: string;
  readonly cniBinDir: string;
  readonly cniConfDir: string;
  readonly pauseImage: string;
  /** Default overlayfs. */
  readonly snapshotter?: string;
  /** Handler of pods without a runtime class. Default runc. */
  readonly defaultRuntime?: string;
  /** Where programs of other runtimes are looked for; default where distributions put them. */
  readonly runtimeFolders?: readonly string[];
  /** Registry hosts files; default `<configDir>/certs.d`. */
  readonly certsDir?: string;
  /** Process that `beginContainerd` started for this run: it is young and may take its time to answer. */
  readonly begun?: Promise<number | undefined>;
}

export interface ContainerdDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

export const socketOf = (options: Pick<ContainerdOptions, "state">): string => `${options.state}/containerd.sock`;
/** Where containerd looks for how to reach registries. */
export const certsFolderOf = (options: Pick<ContainerdOptions, "certsDir" | "configDir">): string =>
  options.certsDir ?? `${options.configDir}/certs.d`;
export const pidFileOf = (options: Pick<ContainerdOptions, "state">): string => `${options.state}/containerd.pid`;

const startTimeoutMs = 60_000;
/** One that was there before answers soon, or its socket is gone and it never will. */
const adoptTimeoutMs = 10_000;
/** It ends within a second, also while it starts. */
const endTimeoutMs = 10_000;
const checkMs = 2_000;
/**
 * Of containerd and, by it, of its shims: garbage is collected at two fifths above what lives instead of at twice that, which
 * saves 3 to 6 MiB and costs a tenth of a second of processor per start and per 15 pods. A limit in bytes would make it collect all
 * the time.
 */
const defaultEnv = { GOGC: "40" } as const;
/** As with k3s: CONTAINERD_HTTPS_PROXY is the proxy of pulls, and of nothing else. */
const ownPrefix = "CONTAINERD_";
/** One old log is kept beside the current one. */
const maxLogBytes = 5 * 1024 * 1024;
export const defaultBinary = "/usr/bin/containerd";

/** Keeps containerd running. Ready when CRI answers. Leaves it running when it ends. */
export function createContainerd(options: ContainerdOptions, deps: ContainerdDeps): Service {
  const binary = options.binary ?? defaultBinary;
  const { clock, log } = deps;
  const logPath = logPathOf(options);

  return {
    name: "containerd",
    async run(signal, ready) {
      // Not before its program is the one that runs, or two would be started.
      await options.begun;
      if (!(await exists(configPathOf(options)))) await endForgotten(options, deps);
      else await endOutdated(options, deps);
      await prepare(options);
      let pid = (await adopt(options, deps, signal)) ?? (await start(options));
      await waitUntilAnswers(pid, options, clock, signal);
      ready();
      while (!signal.aborted) {
        // Ends early only because the signal aborted.
        await pause(clock, checkMs, signal);
        await cutLog(logPath);
        if (signal.aborted || (await isRunning(pid, binary))) continue;
        log.warn("containerd ended, starting it again", { pid, logPath });
        pid = await start(options);
        await waitUntilAnswers(pid, options, clock, signal).catch((error: unknown) => {
          // The next check starts it once more.
          if (!signal.aborted) log.error("containerd did not come back", { error: messageOf(error) });
        });
      }
    },
  };
}

/**
 * Starts containerd where none runs, before whoever keeps it: it takes seconds in which the API server can start. Fails
 * silently, because the service does it all again and tells. The new process, for `ContainerdOptions.begun`.
 */
export async function beginContainerd(options: ContainerdOptions, log: Logger): Promise<number | undefined> {
  try {
    if ((await livePids(options)).length > 0) return undefined;
    await prepare(options);
    return await start(options);
  } catch (error) {
    log.debug("containerd cannot be started early", { error: messageOf(error) });
    return undefined;
  }
}

/** For a start that failed: what `beginContainerd` started for it has nobody to keep it. One that ran before stays. */
export async function endBegunContainerd(
  options: ContainerdOptions,
  begun: Promise<number | undefined>,
  { clock, log }: ContainerdDeps,
): Promise<void> {
  const pid = await begun;
  if (pid === undefined) return;
  log.info("ending containerd, which this start began", { pid });
  await endProcess(pid, options, clock);
  await removeFile(pidFileOf(options));
}

async function prepare(options: ContainerdOptions): Promise<void> {
  for (const folder of [options.root, options.state, options.configDir, options.cniConfDir]) {
    await makeFolder(folder, 0o711);
  }
  const path = configPathOf(options);
  const text = await containerdConfig(options);
  // Most starts change nothing, and a write is a flush.
  if ((await readFileIfExists(path))?.toString("utf8") !== text) await writeFileDurable(path, text, 0o600);
}

const configPathOf = (options: ContainerdOptions): string => `${options.configDir}/config.toml`;
const logPathOf = (options: ContainerdOptions): string => `${options.logDir ?? options.configDir}/containerd.log`;

/** While containerd runs, its log cannot be renamed away from it; it appends, so that cutting the file is safe. */
async function cutLog(path: string): Promise<void> {
  const facts = await fileFacts(path);
  if (facts && facts.sizeBytes > maxLogBytes) await writePlainFile(path, "", 0o640);
}

async function start(options: ContainerdOptions): Promise<number> {
  const logPath = logPathOf(options);
  const facts = await fileFacts(logPath);
  if (facts && facts.sizeBytes > maxLogBytes) await renamePath(logPath, `${logPath}.1`);
  const args = ["--config", configPathOf(options)];
  const pid = await startDaemon(options.binary ?? defaultBinary, args, logPath, { defaults: defaultEnv, ownPrefix });
  await writeFileDurable(pidFileOf(options), `${pid}\n`);
  return pid;
}

async function waitUntilAnswers(
  pid: number,
  options: ContainerdOptions,
  clock: Clock,
  signal: AbortSignal,
  timeoutMs = startTimeoutMs,
): Promise<void> {
  const logPath = logPathOf(options);
  const deadlineMs = clock.monotonicMs() + timeoutMs;
  for (;;) {
    const cri = createCri({ socketPath: socketOf(options) });
    try {
      await cri.version();
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (!(await isRunning(pid, options.binary ?? defaultBinary))) {
        throw new AppError("NODE_CONTAINERD", `containerd ended while starting; see ${logPath}`, { logPath });
      }
      if (clock.monotonicMs() > deadlineMs) {
        throw new AppError("NODE_CONTAINERD", `containerd does not answer: ${messageOf(error)}; see ${logPath}`);
      }
    } finally {
      cri.close();
    }
    await clock.sleep(100, signal);
  }
}

/** The running containerd, if it answers. One that does not is ended, which its containers do not notice. */
async function adopt(
  options: ContainerdOptions,
  { clock, log }: ContainerdDeps,
  signal: AbortSignal,
): Promise<number | undefined> {
  const pids = await livePids(options);
  const [pid] = pids;
  if (pid === undefined) return undefined;
  try {
    const isYoung = pid === (await options.begun);
    await waitUntilAnswers(pid, options, clock, signal, isYoung ? startTimeoutMs : adoptTimeoutMs);
    if (!isYoung) log.info("adopted running containerd", { pid });
    // Others only wait for the database of the first.
    for (const other of pids.slice(1)) signalProcess(other, "SIGKILL");
    return pid;
  } catch (error) {
    signal.throwIfAborted();
    log.warn("running containerd does not answer, starting another", { pids: pids.join(","), error: messageOf(error) });
    for (const each of pids) signalProcess(each, "SIGKILL");
    return undefined;
  }
}

/** One whose folder was deleted below it writes to files that nobody sees, and finds no network any more. */
async function endForgotten(options: ContainerdOptions, { clock, log }: ContainerdDeps): Promise<void> {
  const pids = await livePids(options);
  if (pids.length === 0) return;
  log.warn("the data folder was deleted while containerd ran, starting another", { pids: pids.join(",") });
  for (const pid of pids) signalProcess(pid, "SIGKILL");
  const binary = options.binary ?? defaultBinary;
  for (const pid of pids) {
    for (let waitedMs = 0; waitedMs < 5000 && (await isRunning(pid, binary)); waitedMs += 50) await clock.sleep(50);
  }
}

/**
 * One that was started with another configuration, such as the network plugins of another overlay, knows nothing of this one.
 * Its containers do not notice that it ends. The file still has what it was started with.
 */
async function endOutdated(options: ContainerdOptions, deps: ContainerdDeps): Promise<void> {
  const pids = await livePids(options);
  if (pids.length === 0) return;
  const text = (await readFileIfExists(configPathOf(options)))?.toString("utf8");
  if (text === (await containerdConfig(options))) return;
  deps.log.info("containerd's configuration has changed, starting it again", { pids: pids.join(",") });
  for (const pid of pids) await endProcess(pid, options, deps.clock);
}

/** In order where it does that in time. */
async function endProcess(pid: number, options: ContainerdOptions, clock: Clock): Promise<void> {
  const binary = options.binary ?? defaultBinary;
  signalProcess(pid, "SIGTERM");
  for (let waitedMs = 0; waitedMs < endTimeoutMs && (await isRunning(pid, binary)); waitedMs += 50) {
    await clock.sleep(50);
  }
  if (await isRunning(pid, binary)) signalProcess(pid, "SIGKILL");
}

/** Every containerd that runs with this configuration, oldest first. */
async function livePids(options: ContainerdOptions): Promise<number[]> {
  const wanted = [options.binary ?? defaultBinary, "--config", configPathOf(options)].join("\0");
  return (await findProcesses(({ args }) => args.join("\0") === wanted)).map(({ pid }) => pid);
}

/** Linux capability 24. Without it containers cannot get a lower OOM score than containerd's own. */
const capSysResource = 24n;

export async function containerdConfig(options: ContainerdOptions): Promise<string> {
  const status = (await readFileIfExists("/proc/self/status"))?.toString("utf8") ?? "";
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
  const restrictOom = (effective & (1n << capSysResource)) === 0n;
  const quote = (text: string) => JSON.stringify(text);
  // Snapshotters and services that nothing here uses cost memory and probe file systems at start.
  const disabled = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.monitor.v1.cgroups",
  ];
  const plugin = `plugins."io.containerd.grpc.v1.cri"`;
  const others = await otherRuntimes(options.runtimeFolders ?? programFolders);
  const { defaultRuntime = "runc" } = options;
  if (defaultRuntime !== "runc" && !others.handlers.includes(defaultRuntime)) {
    const there = ["runc", ...others.handlers].join(", ");
    throw new AppError("NODE_RUNTIME", `the default runtime ${defaultRuntime} is not installed; there are ${there}`);
  }
  return `# Written by mote at every start; changes are lost.
version = 2
root = ${quote(options.root)}
state = ${quote(options.state)}
disabled_plugins = [${disabled.map(quote).join(", ")}]
oom_score = ${restrictOom ? 0 : -999}

[grpc]
  address = ${quote(socketOf(options))}

[ttrpc]
  address = ${quote(`${socketOf(options)}.ttrpc`)}

[${plugin}]
  sandbox_image = ${quote(options.pauseImage)}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = ${restrictOom}
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  stats_collect_period = 60

[${plugin}.cni]
  bin_dir = ${quote(options.cniBinDir)}
  conf_dir = ${quote(options.cniConfDir)}

[${plugin}.containerd]
  snapshotter = ${quote(options.snapshotter ?? "overlayfs")}
  discard_unpacked_layers = true
  default_runtime_name = ${quote(defaultRuntime)}

[${plugin}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[${plugin}.containerd.runtimes.runc.options]
  SystemdCgroup = false

[${plugin}.registry]
  config_path = ${quote(certsFolderOf(options))}
${others.text}`;
}

/** Programs that may run containers beside runc, by the handler's name: what is installed is offered to RuntimeClasses. */
const runtimePrograms: Readonly<Record<string, { readonly program: string; readonly type: string }>> = {
  crun: { program: "crun", type: "io.containerd.runc.v2" },
  youki: { program: "youki", type: "io.containerd.runc.v2" },
  nvidia: { program: "nvidia-container-runtime", type: "io.containerd.runc.v2" },
  kata: { program: "containerd-shim-kata-v2", type: "io.containerd.kata.v2" },
  spin: { program: "containerd-shim-spin-v2", type: "io.containerd.spin.v2" },
  wasmedge: { program: "containerd-shim-wasmedge-v1", type: "io.containerd.wasmedge.v1" },
  wasmtime: { program: "containerd-shim-wasmtime-v1", type: "io.containerd.wasmtime.v1" },
};
const programFolders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/usr/local/nvidia/toolkit"];

async function otherRuntimes(
  folders: readonly string[],
): Promise<{ readonly text: string; readonly handlers: readonly string[] }> {
  let text = "";
  const handlers: string[] = [];
  for (const [handler, { program, type }] of Object.entries(runtimePrograms)) {
    const found: string[] = [];
    for (const folder of folders) if (await exists(`${folder}/${program}`)) found.push(`${folder}/${program}`);
    if (found.length === 0) continue;
    handlers.push(handler);
    text += `\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.${handler}]\n  runtime_type = "${type}"\n`;
    if (type !== "io.containerd.runc.v2") continue;
    text += `\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.${handler}.options]\n`;
    text += `  BinaryName = ${JSON.stringify(found[0])}\n  SystemdCgroup = false\n`;
  }
  return { text, handlers };
}

export interface TeardownDeps extends ContainerdDeps {
  readonly commands: Commands;
}

/**
 * Takes everything down that outlives mote: all pods, containerd, its mounts and those below `podsDir`. For `npm run
 * down`; the node agent itself must have ended.
 */
export async function stopAllPods(
  options: ContainerdOptions & {
    readonly podsDir?: string;
    /** Where CSI drivers have mounted volumes for pods. */
    readonly kubeletDir?: string;
    /** The cgroup of all pods; default /kubepods. */
    readonly podsCgroup?: string;
    readonly graceSeconds: number;
  },
  deps: TeardownDeps,
): Promise<void> {
  const pids = await livePids(options);
  const pid = pids[0] ?? (await restartForTeardown(options, deps));
  if (pid !== undefined) {
    const cri = createCri({ socketPath: socketOf(options) });
    try {
      const containers = await cri.listContainers();
      await Promise.all(containers.map((c) => attempt(deps.log, () => cri.stopContainer(c.id, options.graceSeconds))));
      for (const sandbox of await cri.listSandboxes()) {
        await attempt(deps.log, () => cri.stopSandbox(sandbox.id));
        await attempt(deps.log, () => cri.removeSandbox(sandbox.id));
      }
    } catch (error) {
      // A containerd that does not answer is ended all the same; what it leaves is unmounted below.
      deps.log.warn("cannot stop pods in order", { error: messageOf(error) });
    } finally {
      cri.close();
    }
    for (const other of pids.slice(1)) signalProcess(other, "SIGKILL");
    await endProcess(pid, options, deps.clock);
  }
  // What could not be ended in order is ended all the same, or it would keep its mounts and addresses.
  const socket = socketOf(options);
  const isOurs = ({ args }: { args: readonly string[] }) =>
    /(^|\/)containerd-shim/.test(args[0] ?? "") && args[args.indexOf("-address") + 1] === socket;
  const { kubeletDir, podsDir } = options;
  const ofPods = [
    ...(podsDir ? [podsDir] : []),
    ...(kubeletDir ? [`${kubeletDir}/pods`, `${kubeletDir}/plugins`] : []),
  ];
  await everyStep(
    [
      [
        "processes of pods",
        async () => {
          for (const shim of await findProcesses(isOurs)) await killTree(shim.pid);
        },
      ],
      ["containerd's pid file", () => removeFile(pidFileOf(options))],
      ["mounts", () => unmountBelow([options.state, options.root, ...ofPods], deps)],
      ...(kubeletDir ? [[kubeletDir, () => unshareMounts(kubeletDir, deps.commands)] as const] : []),
      [options.state, () => removeTree(options.state)],
      ["cgroups", () => removeAllCgroups(options.podsCgroup)],
    ],
    deps.log,
  );
}

/** Shims outlive a containerd that died: only a new one can end their containers in order. */
async function restartForTeardown(options: ContainerdOptions, deps: TeardownDeps): Promise<number | undefined> {
  if (!(await exists(options.state)) || !(await exists(configPathOf(options)))) return undefined;
  try {
    const pid = await start(options);
    await waitUntilAnswers(pid, options, deps.clock, new AbortController().signal);
    return pid;
  } catch (error) {
    // Mounts and folders are still taken away below.
    deps.log.warn("cannot start containerd to stop pods", { error: messageOf(error) });
    return undefined;
  }
}

async function attempt(log: Logger, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    // One pod that resists must not keep the others up.
    log.warn("cannot stop a pod", { error: messageOf(error) });
  }
}

/** Unmounts everything mounted at or below the folders, deepest first. */
export async function unmountBelow(folders: readonly string[], deps: TeardownDeps): Promise<void> {
  const points = (await mountPoints())
    .filter((point) => folders.some((folder) => point === folder || point.startsWith(`${folder}/`)))
    .sort((a, b) => b.length - a.length);
  for (const point of points) {
    const result = await deps.commands.run("umount", ["-l", point]);
    // Who goes may have taken it along.
    if (result.code !== 0 && (await isMounted(point)))
      deps.log.warn("cannot unmount", { point, error: result.stderr.trim() });
  }
}
