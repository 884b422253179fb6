// What a device does between its kernel and its cluster, in this order: watchdog, boot and data partitions, configuration,
// identity, /etc, clock, network, then the server, kept running until init asks it to end. Every failure becomes a line on
// the console and a sentence in mote-status.txt; only a device without its data partition gives up, and init tries again.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { withEither } from "#base/either-signal.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import { restarting, type Service, untilAborted } from "#base/service.ts";
import { exists, makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { overwriteInPlace } from "#platform/flash-files.ts";
import { removeFile, writePlainFile } from "#platform/folders.ts";
import type { Commands } from "#platform/processes.ts";
import type { Sysctl } from "#platform/sysctl.ts";
import { openWatchdog, type Watchdog } from "#platform/watchdog.ts";
import { decodeGrubenv, protect, unprotect } from "#wire/grubenv.ts";
import { type Configuration, readConfiguration } from "./configuration.ts";
import { etcFiles, proxyEnvironment } from "./etc-files.ts";
import { boardSerial, type Identity, makeDeviceKey, makeIdentity, parseIdentity } from "./identity.ts";
import type { ServerKeys } from "./machine-config.ts";
import { createMachineLog, say } from "./machine-log.ts";
import { leasedTimeServers, startNetwork } from "./network.ts";
import { networkClients } from "./network-clients.ts";
import { createStatusFile, type StatusFile } from "./status-file.ts";
import { openStorage, type Storage } from "./storage.ts";
import { createTimeKeeper, createTimeSync, persistTime, setTimeWith, startClock, type TimeDeps } from "./time.ts";

export interface MachineOptions {
  readonly version: string;
  /** When the image was made, ms since 1970. */
  readonly madeMs?: number;
  readonly bootDir: string;
  readonly dataDir: string;
  readonly etcDir: string;
  readonly runDir: string;
  /** Finds, grows, formats and mounts its own disk; else the folders are used as they are. */
  readonly hasOwnDisk: boolean;
  /** Sets up links and the host name, and waits for an address. */
  readonly hasOwnNetwork: boolean;
  /** Sets the clock. */
  readonly hasOwnClock: boolean;
  readonly hasWatchdog: boolean;
  readonly fwCfgDir: string;
  /** Of the kernel. */
  readonly commandLine: string;
  readonly debug: boolean;
}

/** The server as `mote server` runs it, with what a device wants to know of it. */
export interface DeviceServer {
  readonly keys: ServerKeys;
  readonly apiPort: number;
  /** Address that the default route leaves by, else the first there is. */
  address(): string | undefined;
  hasDefaultRoute(): boolean;
  /** Runs with the configuration in `configPath` until `signal` aborts; rejects when it cannot. */
  run(args: ServerRun): Promise<void>;
  /** Ends all pods; the server has ended. */
  stopPods(configPath: string, log: ServerRun["log"]): Promise<void>;
}

export interface ServerRun {
  readonly configPath: string;
  readonly environment: Readonly<Record<string, string>>;
  /** The server to be a node of; absent: the device is a cluster of its own. */
  readonly joins?: string;
  /** The node's address where there is no network to take it from. */
  readonly nodeIp?: string;
  readonly signal: AbortSignal;
  readonly log: ReturnType<typeof createMachineLog>["log"];
  readonly onApiReady: () => void;
  /** What keeps it from joining so far; it goes on trying. */
  readonly onProblem: (sentence: string) => void;
  /** `reason` says why it is not. */
  readonly onNode: (isReady: boolean, reason: string) => void;
}

export interface MachineDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly commands: Commands;
  readonly sysctl: Sysctl;
  readonly server: DeviceServer;
}

/** What the initramfs arms the watchdog with. */
const earlyTimeoutS = 60;
/** A driver that hangs must not keep the rest from working. */
const driversTimeoutMs = 30_000;
/** The server needs an address to be reachable; a device without network starts all the same after this. */
const addressTimeoutMs = 30_000;
/** One address may be there before that of the default route; the latter is the node's where there is one. */
const routeTimeoutMs = 10_000;
const addressCheckMs = 10_000;
const dataCheckMs = 60_000;
/** Of a device without network, on its loopback link: a cluster needs an address that is neither loopback nor link-local. From TEST-NET-1, which nobody has. */
const offlineAddress = "192.0.2.1";
/** After this without a ready node the status says why. */
const patienceMs = 5 * 60_000;
const serverRetry = { minMs: 2_000, maxMs: 60_000 } as const;
/** init waits 45 s before it goes on without us. */
const stopPodsMs = 20_000;
/** Of these, the server's own services get so much. What still runs then ends with the power. */
const stopServerMs = 15_000;
const noNetwork =
  "There is no network address so far; check the cable, or the interfaces and the Wi-Fi name and password in mote.yaml.";
const readOnlyData =
  "The data partition can no longer be written: its medium fails. Save what is needed and replace it; a restart may help for a while.";
const failurePauseMs = 30_000;

/** Runs until `signal` aborts; the exit code. */
export async function runMachine(options: MachineOptions, deps: MachineDeps, signal: AbortSignal): Promise<number> {
  const { clock } = deps;
  await makeFolder(options.runDir);
  const budgetPath = `${options.runDir}/log-budget`;
  const budgetText = (await readFileIfExists(budgetPath))?.toString("utf8");
  const machineLog = createMachineLog(
    { ringPath: `${options.runDir}/log`, budgetPath, budgetText, debug: options.debug },
    { clock },
  );
  const { log } = machineLog;
  let watchdog = options.hasWatchdog ? await armWatchdog(deps, log) : undefined;
  await reportUnfed(options.runDir, log);
  let storage: Storage | undefined;
  try {
    storage = await openStorage(
      { ...options, ...partUuidOf(options.commandLine) },
      { commands: deps.commands, random: deps.random, log },
    );
    const status = createStatusFile(storage, firstStatus(options, storage), { clock, log });
    for (const note of storage.notes) say(note);
    if (storage.dataProblem !== undefined) {
      // Starting again changes nothing; a person has to.
      await stayUp(storage.dataProblem, status, signal);
      return 0;
    }
    say("data mounted");
    await driversLoaded(options.runDir, clock, signal);
    // Its driver may be among the last.
    if (options.hasWatchdog) watchdog ??= await armWatchdog(deps, log);
    await makeFolder(`${storage.dataDir}/log`);
    machineLog.spillTo(`${storage.dataDir}/log/errors.log`);
    try {
      await runWith({ options, deps, log, storage, status, watchdog }, signal);
    } catch (error) {
      status.set({ phase: "error", detail: messageOf(error) });
      await status.flush();
      throw error;
    }
    return 0;
  } catch (error) {
    if (isAbort(error, signal)) return 0;
    log.error("the machine program fails", { error: messageOf(error) });
    say(`error ${messageOf(error)}`);
    await pause(clock, failurePauseMs, signal);
    return 1;
  } finally {
    machineLog.close();
    await storage?.close();
  }
}

/** The start script removes its file when it has loaded the drivers; storage did not need them. */
async function driversLoaded(runDir: string, clock: Clock, signal: AbortSignal): Promise<void> {
  const startMs = clock.monotonicMs();
  while (clock.monotonicMs() - startMs < driversTimeoutMs && (await exists(`${runDir}/loading-drivers`))) {
    await clock.sleep(50, signal);
  }
}

interface Machine {
  readonly options: MachineOptions;
  readonly deps: MachineDeps;
  readonly log: ServerRun["log"];
  readonly storage: Storage;
  readonly status: StatusFile;
  readonly watchdog: { readonly device: Watchdog; stop(): void } | undefined;
}

async function runWith(machine: Machine, signal: AbortSignal): Promise<void> {
  const { options, deps, log, storage, status, watchdog } = machine;
  const { clock, random, commands, server } = deps;
  const { dataDir } = storage;
  const failedSlot = await guardGrubenv(storage, log);
  const identity = await ensureIdentity(dataDir, random);
  const configuration = await readConfiguration(
    {
      fwCfgDir: options.fwCfgDir,
      ...(options.hasOwnDisk ? { cidataDir: `${options.runDir}/cidata` } : {}),
      hasCluster: (await readFileIfExists(`${dataDir}/mote/server/token`)) !== undefined,
    },
    { storage, commands, log, keys: server.keys },
  );
  say("config read");
  for (const problem of configuration.problems) say(`error ${problem}`);
  const { machine: wanted } = configuration;
  if (!wanted.watchdog && watchdog) {
    if (watchdog.device.canDisarm) {
      watchdog.stop();
      watchdog.device.disarm();
    } else configuration.notes.push("this board's watchdog cannot be switched off; it goes on");
  }
  const hostname = wanted.hostname ?? identity.hostname;
  const nodeName = await keptNodeName(dataDir, hostname);
  if (nodeName !== hostname && configuration.server["node-name"] === undefined) {
    configuration.notes.push(
      `the host name is ${hostname} now; the cluster goes on knowing this device as ${nodeName}, and its pods stay`,
    );
  }
  status.set({
    hostname,
    serial: identity.serial,
    problems: configuration.problems,
    notes: [...storage.notes, ...slotNotes(failedSlot), ...configuration.notes],
  });
  const configPath = await writeEtc(options, { identity, hostname, nodeName }, configuration);
  const setTime = options.hasOwnClock ? setTimeWith(commands) : async () => {};
  const time = { path: `${dataDir}/last-known-time`, past: [options.madeMs, wanted.notBeforeMs] };
  const onDisbelief = (sentence: string) => {
    status.set({ problems: [...status.facts.problems.filter((one) => one !== sentence), sentence] });
  };
  const timeDeps: TimeDeps = { clock, random, log, setTime, onDisbelief };
  await startClock(time, timeDeps);
  const services: Service[] = [createTimeKeeper(time, { clock })];
  const networkDir = `${options.runDir}/network`;
  if (options.hasOwnNetwork) {
    await deps.sysctl.write("kernel.hostname", hostname);
    const network = await startNetwork(
      { machine: wanted, hostname, folder: networkDir, etcDir: options.etcDir },
      { commands, clock, log, clients: networkClients(networkDir) },
    );
    let said: readonly string[] = [];
    const tell = (problems: readonly string[]) => {
      for (const problem of problems.filter((one) => !said.includes(one))) say(`error ${problem}`);
      status.set({ problems: [...status.facts.problems.filter((one) => !said.includes(one)), ...problems] });
      said = problems;
    };
    tell(network.problems);
    services.push(network.follow(tell));
  }
  if (options.hasOwnClock && wanted.ntp.length > 0) {
    const servers = async () => [...(await leasedTimeServers(networkDir)), ...wanted.ntp];
    services.push(createTimeSync({ ...time, servers }, timeDeps));
  }
  const stop = new AbortController();
  const background = services.map((service) =>
    restarting(service, { clock, log, minMs: 10_000, maxMs: 600_000 }).run(stop.signal, () => {}),
  );
  try {
    await keepServer(machine, configPath, configuration, signal);
  } finally {
    stop.abort();
    await Promise.allSettled(background);
    await stopPods(machine, configPath);
    if (clock.now() > (options.madeMs ?? 0)) await persistTime(time.path, clock);
    await status.flush();
    say("server stopped");
  }
}

/** Says it and waits to be switched off. */
async function stayUp(detail: string, status: StatusFile, signal: AbortSignal): Promise<void> {
  say(`error ${detail}`);
  status.set({ phase: "error", detail });
  await status.flush();
  await untilAborted(signal);
}

/** Runs the server, or the agent of another one, again whenever it fails or the device's address has changed. */
async function keepServer(
  machine: Machine,
  configPath: string,
  configuration: Configuration,
  signal: AbortSignal,
): Promise<void> {
  const { options, deps, log, status } = machine;
  const { clock, server } = deps;
  const cidr = (key: string, otherwise: string) => String(configuration.server[key] ?? otherwise);
  const ranges = [cidr("cluster-cidr", "10.42.0.0/16"), cidr("service-cidr", "10.43.0.0/16")];
  const environment = proxyEnvironment(configuration.machine.proxy, ranges);
  let pauseMs: number = serverRetry.minMs;
  while (!signal.aborted) {
    if (options.hasOwnNetwork) await waitForAddress(machine, signal);
    const address = server.address();
    const isOffline = options.hasOwnNetwork && address === undefined && configuration.server["node-ip"] === undefined;
    if (options.hasOwnNetwork) {
      // Taking away what is not there fails, and may.
      const verb = isOffline ? "replace" : "delete";
      await deps.commands.run("ip", ["address", verb, `${offlineAddress}/32`, "dev", "lo"]);
    }
    const detail = isOffline ? noNetwork : "";
    status.set({ phase: "starting", detail, ...(address === undefined ? {} : { address }), apiPort: server.apiPort });
    const ended = new AbortController();
    const onStop = () => ended.abort(signal.reason);
    signal.addEventListener("abort", onStop, { once: true });
    if (signal.aborted) onStop();
    let reason = "";
    let isNodeReady = false;
    /** What was said last is what keeps it from joining: no longer true once there is a node. */
    let isKeptOut = false;
    const startedMs = clock.monotonicMs();
    const cancelPatience = clock.after(patienceMs, () => {
      if (!isNodeReady) status.set({ phase: "waiting", detail: reason || "The node has not become ready so far." });
    });
    const watching = Promise.all([watchAddress(machine, address, ended), watchData(machine, ended.signal)]);
    try {
      const running = server.run({
        ...{ configPath, environment, log, signal: ended.signal },
        ...(isOffline ? { nodeIp: offlineAddress } : {}),
        ...(configuration.joins === undefined ? {} : { joins: configuration.joins }),
        onApiReady: () => say("api ready"),
        onProblem(sentence) {
          if (sentence === reason) return;
          reason = sentence;
          isKeptOut = true;
          say(`error server: ${sentence}`);
          status.set({ phase: "waiting", detail: sentence });
        },
        onNode(isReady, why) {
          reason = why;
          if (isReady === isNodeReady && !isKeptOut) return;
          isKeptOut = false;
          isNodeReady = isReady;
          if (isReady) say("node ready");
          log.info("node state", { ready: isReady, reason: why });
          status.set(isReady ? { phase: "ready", detail } : { phase: "waiting", detail: why });
        },
      });
      await endsInTime(running, machine, signal);
    } catch (error) {
      if (!signal.aborted && !ended.signal.aborted) {
        log.error("the server fails", { error: messageOf(error) });
        say(`error server: ${messageOf(error)}`);
        status.set({ phase: "error", detail: messageOf(error) });
        if (clock.monotonicMs() - startedMs > serverRetry.maxMs) pauseMs = serverRetry.minMs;
        await pause(clock, pauseMs, signal);
        pauseMs = Math.min(pauseMs * 2, serverRetry.maxMs);
      }
    } finally {
      cancelPatience();
      signal.removeEventListener("abort", onStop);
      ended.abort(new Error("the server has ended"));
      await watching;
    }
  }
}

/** Waits for the server; once the device is to be switched off only for so long. */
async function endsInTime(running: Promise<void>, { deps, log }: Machine, signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  const late = async () => {
    await withEither([signal, done.signal], untilAborted);
    if (done.signal.aborted) return;
    await pause(deps.clock, stopServerMs, done.signal);
    if (!done.signal.aborted) log.error("the server did not end in time");
  };
  try {
    await Promise.race([running, late()]);
  } finally {
    done.abort();
  }
}

/** A file system that meets errors turns read-only, and everything above it fails in its own words. */
async function watchData({ deps, log, storage, status }: Machine, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    if (!(await storage.isDataWritable())) {
      log.error("the data partition is read-only");
      say(`error ${readOnlyData}`);
      status.set({ problems: [readOnlyData, ...status.facts.problems.filter((one) => one !== readOnlyData)] });
      return;
    }
    await pause(deps.clock, dataCheckMs, signal);
  }
}

/** Certificates and the node object name the address, so that a new one needs a new start; pods go on. */
async function watchAddress(
  { options, deps, log }: Machine,
  before: string | undefined,
  ended: AbortController,
): Promise<void> {
  if (!options.hasOwnNetwork) return;
  let changed: string | undefined;
  while (!ended.signal.aborted) {
    await pause(deps.clock, addressCheckMs, ended.signal);
    const now = deps.server.address();
    // Seen twice: a lease that is being renewed has no address for a moment.
    if (now !== undefined && now !== before && now === changed && !ended.signal.aborted) {
      log.warn("the device's address has changed, starting the server again", { before, now });
      ended.abort(new Error("the address has changed"));
    }
    changed = now;
  }
}

async function waitForAddress({ deps, log }: Machine, signal: AbortSignal): Promise<void> {
  const { clock, server } = deps;
  const startMs = clock.monotonicMs();
  for (;;) {
    if (signal.aborted) return;
    const waitedMs = clock.monotonicMs() - startMs;
    const hasAddress = server.address() !== undefined;
    if (hasAddress && (server.hasDefaultRoute() || waitedMs > routeTimeoutMs)) return;
    if (!hasAddress && waitedMs > addressTimeoutMs) {
      log.warn("no address, starting without network");
      say("error no network address; the cluster starts without network");
      return;
    }
    await pause(clock, 200, signal);
  }
}

async function stopPods({ deps, log }: Machine, configPath: string): Promise<void> {
  const { clock, server } = deps;
  const timer = new AbortController();
  const late = clock.sleep(stopPodsMs, timer.signal).then(
    () => log.warn("pods did not end in time"),
    () => {},
  );
  const done = server.stopPods(configPath, log).catch((error: unknown) => {
    log.warn("cannot stop pods", { error: messageOf(error) });
  });
  await Promise.race([done, late]);
  timer.abort();
  await late;
}

async function writeEtc(
  options: MachineOptions,
  names: { readonly identity: Identity; readonly hostname: string; readonly nodeName: string },
  configuration: Configuration,
): Promise<string> {
  const { identity, hostname, nodeName } = names;
  const files = etcFiles({
    ...{
      hostname,
      nodeName,
      machineId: identity.machineId,
      machine: configuration.machine,
      server: configuration.server,
    },
    ...(configuration.token.token === undefined ? {} : { token: configuration.token.token }),
    dataDir: `${options.dataDir}/mote`,
    runDir: options.runDir,
  });
  await makeFolder(`${options.etcDir}/mote`, 0o700);
  for (const file of files) await writePlainFile(`${options.etcDir}/${file.path}`, file.text, file.mode);
  return `${options.etcDir}/mote/config.yaml`;
}

/** The name the cluster first knew this device by: with another one it would be another node, without its pods. */
async function keptNodeName(dataDir: string, hostname: string): Promise<string> {
  const path = `${dataDir}/identity/node-name`;
  const kept = (await readFileIfExists(path))?.toString("utf8").trim();
  if (kept) return kept;
  await writeFileDurable(path, `${hostname}\n`);
  return hostname;
}

async function ensureIdentity(dataDir: string, random: Random): Promise<Identity> {
  const folder = `${dataDir}/identity`;
  await makeFolder(folder, 0o700);
  const path = `${folder}/identity.json`;
  const known = parseIdentity((await readFileIfExists(path))?.toString("utf8") ?? "");
  const board = async (file: string) => (await readFileIfExists(file).catch(() => undefined))?.toString("utf8");
  const identity =
    known ??
    makeIdentity(
      boardSerial([
        await board("/sys/firmware/devicetree/base/serial-number"),
        await board("/sys/class/dmi/id/product_serial"),
        await board("/sys/class/dmi/id/board_serial"),
        await board("/sys/class/dmi/id/product_uuid"),
      ]),
      random,
    );
  if (!known) await writeFileDurable(path, `${JSON.stringify(identity, undefined, 2)}\n`, 0o600);
  if (!(await readFileIfExists(`${folder}/device.key`))) {
    const { privateKey, publicKey } = makeDeviceKey();
    await writeFileDurable(`${folder}/device.pub`, publicKey, 0o644);
    await writeFileDurable(`${folder}/device.key`, privateKey, 0o600);
  }
  return identity;
}

const slotNotes = (failed: string | undefined): string[] =>
  failed
    ? [`slot ${failed} did not start in three tries and was given up; the device runs the slot that worked before`]
    : [];

/**
 * Keeps a checked copy of the boot loader's variables and puts it back where power loss damaged them. The slot that the
 * loader has given up, if there is one.
 */
async function guardGrubenv(storage: Storage, log: ServerRun["log"]): Promise<string | undefined> {
  const path = `${storage.bootDir}/grub/grubenv`;
  const copyPath = `${storage.dataDir}/update/grubenv`;
  try {
    const block = await readFileIfExists(path);
    const copy = await readFileIfExists(copyPath);
    const good = copy && unprotect(copy);
    const variables = block && decodeGrubenv(block);
    if (variables) {
      const failed = variables.get("failed");
      if (good && Buffer.compare(good, block) === 0) return failed;
      await makeFolder(`${storage.dataDir}/update`);
      await writeFileDurable(copyPath, protect(block));
      return failed;
    }
    if (good) {
      log.error("the boot loader's variables are damaged, restoring them");
      await storage.writeBoot(() => overwriteInPlace(path, good));
    }
  } catch (error) {
    // The loader starts slot A without the file; the device works meanwhile.
    log.error("cannot look after the boot loader's variables", { error: messageOf(error) });
  }
  return undefined;
}

async function armWatchdog(deps: MachineDeps, log: ServerRun["log"]): Promise<Machine["watchdog"]> {
  const device = await openWatchdog().catch((error: unknown) => {
    // A device without one works; the initramfs' arming of it then restarts a device with a broken one.
    log.error("cannot open the watchdog", { error: messageOf(error) });
    say(`error watchdog: ${messageOf(error)}`);
    return undefined;
  });
  if (!device) return undefined;
  log.info("watchdog armed", { timeoutS: device.timeoutS });
  const { clock } = deps;
  let cancel = () => {};
  let fedMs = clock.monotonicMs();
  // A turn of the event loop feeds it: what hangs is reset.
  const feed = () => {
    const gapS = (clock.monotonicMs() - fedMs) / 1000;
    if (gapS > device.timeoutS / 2) log.warn("the watchdog was fed late", { gapS, timeoutS: device.timeoutS });
    try {
      device.feed();
    } catch (error) {
      log.error("cannot feed the watchdog", { error: messageOf(error) });
    }
    fedMs = clock.monotonicMs();
    cancel = clock.after((device.timeoutS * 1000) / 4, feed);
  };
  feed();
  return { device, stop: () => cancel() };
}

/** How long nobody fed the watchdog at a stretch from its arming in the initramfs up to this program. */
async function reportUnfed(runDir: string, log: ServerRun["log"]): Promise<void> {
  const path = `${runDir}/watchdog-since`;
  const text = (await readFileIfExists(path))?.toString("utf8");
  if (text === undefined) return;
  // Once: a later start of this program follows another one that fed it.
  await removeFile(path);
  const now = Number.parseFloat((await readFileIfExists("/proc/uptime"))?.toString("utf8") ?? "");
  // Armed, fed by PID 1's start script a few times, now; seconds of uptime.
  const fedS = [...text.trim().split(/\s+/).map(Number), now];
  const gapsS = fedS.slice(1).map((atS, i) => Math.round((atS - fedS[i]!) * 10) / 10);
  const unfedS = Math.max(...gapsS);
  log.info("the watchdog was not fed during the start", { unfedS, gapsS, timeoutS: earlyTimeoutS });
  if (unfedS > earlyTimeoutS / 2) log.warn("this board starts slowly for its watchdog", { unfedS });
}

function firstStatus(options: MachineOptions, storage: Storage) {
  const slot = /(?:^|\s)mote\.slot=(\S+)/.exec(options.commandLine)?.[1];
  return {
    phase: "starting" as const,
    version: options.version,
    ...(slot === undefined ? {} : { slot }),
    problems: [],
    notes: storage.notes,
  };
}

function partUuidOf(commandLine: string): { bootPartUuid?: string } {
  const id = /(?:^|\s)mote\.boot=PARTUUID=(\S+)/.exec(commandLine)?.[1];
  return id === undefined ? {} : { bootPartUuid: id };
}
