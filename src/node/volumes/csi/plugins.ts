// Drivers introduce themselves by a socket below plugins_registry: it is asked who it is, the driver at the endpoint it
// names is asked about this node, CSINode and Node are told, and the socket hears how that went. When the socket goes, so
// does the driver. The folder is looked through at each change and once a minute.
// A driver that comes while no server can be reached serves its volumes all the same, and is told of later.
//
//   socket appears ─▶ GetInfo ─▶ NodeGetInfo ─▶ CSINode, Node ─▶ NotifyRegistrationStatus(true)
//   socket goes    ─▶ CSINode without the driver
//
// Counterpart: the kubelet's plugin manager and its CSI plugin's RegistrationHandler.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { listFolder, makeFolder } from "#platform/files.ts";
import { watchFolder } from "#platform/folder-watch.ts";
import { createGrpcClient } from "#platform/grpc-client.ts";
import { type PluginInfo, registrationMethods, registrationTable } from "#wire/gen/plugin-registration.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import { type CsiDriverClient, createCsiDriver } from "./driver.ts";
import { Failures } from "./failures.ts";

const lookMs = 60_000;
const callMs = 10_000;
/** As long as the API is away, asking costs nothing. */
const tellMs = 2_000;
/** Drivers of one node: more sockets than this are not looked at. */
const maxSockets = 64;
const csiType = "CSIPlugin";

export interface CsiNodeInfo {
  readonly nodeId: string;
  readonly maxVolumes: number;
  readonly topology: Readonly<Record<string, string>>;
}

export interface CsiPluginsDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Tells the API; may fail, and is then tried again. */
  readonly registered: (name: string, info: CsiNodeInfo) => Promise<void>;
  /** Of such a failure: there is nobody to tell. */
  readonly isAway: (error: unknown) => boolean;
  readonly unregistered: (name: string) => Promise<void>;
}

interface Known {
  readonly socket: string;
  readonly name: string;
  readonly info: CsiNodeInfo;
  readonly driver: CsiDriverClient;
}

export class CsiPlugins {
  readonly #folder: string;
  readonly #deps: CsiPluginsDeps;
  readonly #codec = createWireCodec(registrationTable);
  /** By socket path. */
  readonly #known = new Map<string, Known>();
  /** By socket: those that do not answer, or are refused. */
  readonly #failures = new Failures();
  /** By driver: what the API refuses to be told. */
  readonly #refusals = new Failures();
  readonly #gone = new Set<string>();
  /** By name: drivers that the API has not heard of. */
  readonly #untold = new Map<string, CsiNodeInfo>();
  /** Sockets of other kinds of plugins; no more than are looked at. */
  readonly #others = new Set<string>();
  #wake: () => void = () => {};

  /** `folder`: `<kubelet>/plugins_registry`. */
  constructor(options: { readonly folder: string }, deps: CsiPluginsDeps) {
    this.#folder = options.folder;
    this.#deps = deps;
  }

  driver(name: string): CsiDriverClient | undefined {
    for (const known of this.#known.values()) if (known.name === name) return known.driver;
    return undefined;
  }

  /** The API has lost what it was told: another Node, or somebody else's change of it. */
  tellAgain(isLost: (name: string, info: CsiNodeInfo) => boolean = () => true): void {
    for (const { name, info } of this.#known.values()) {
      if (!isLost(name, info) || this.#untold.has(name)) continue;
      this.#untold.set(name, info);
      this.#wake();
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    await makeFolder(this.#folder, 0o750);
    const stop = watchFolder(
      this.#folder,
      () => this.#wake(),
      (error) => log.warn("cannot watch the folder of plugins, looking once a minute", { error: error.message }),
    );
    try {
      while (!signal.aborted) {
        const wait = new AbortController();
        const wake = () => wait.abort();
        this.#wake = wake;
        signal.addEventListener("abort", wake, { once: true });
        const untilMs = await this.#look();
        await pause(clock, Math.max(100, Math.min(lookMs, untilMs - clock.monotonicMs())), wait.signal);
        signal.removeEventListener("abort", wake);
      }
    } finally {
      stop();
      for (const { driver } of this.#known.values()) driver.close();
      this.#known.clear();
    }
  }

  /** Brings what is known in line with the folder; when to look again at the latest. */
  async #look(): Promise<number> {
    const { clock, log } = this.#deps;
    const sockets = await this.#sockets();
    for (const [socket, known] of this.#known) {
      if (sockets.has(socket)) continue;
      log.info("CSI driver is gone", { driver: known.name });
      known.driver.close();
      this.#known.delete(socket);
      if (this.driver(known.name)) continue;
      this.#gone.add(known.name);
      this.#untold.delete(known.name);
      this.#refusals.forget(known.name);
    }
    let untilMs = clock.monotonicMs() + lookMs;
    const later = (ms: number) => {
      untilMs = Math.min(untilMs, ms);
    };
    for (const [name, info] of this.#untold) {
      later(
        await this.#attempt(name, "cannot tell of a driver yet", async () => {
          await this.#deps.registered(name, info);
          this.#untold.delete(name);
        }),
      );
    }
    for (const name of this.#gone) {
      later(
        await this.#attempt(name, "cannot tell that a driver is gone", async () => {
          if (!this.driver(name)) await this.#deps.unregistered(name);
          this.#gone.delete(name);
        }),
      );
    }
    for (const socket of this.#others) if (!sockets.has(socket)) this.#others.delete(socket);
    this.#failures.keep(sockets);
    for (const socket of sockets) {
      if (this.#known.has(socket) || this.#others.has(socket)) continue;
      if (this.#failures.isDue(socket, clock.monotonicMs())) {
        try {
          await this.#register(socket);
          this.#failures.forget(socket);
          continue;
        } catch (error) {
          const isNews = this.#failures.note(socket, messageOf(error), clock.monotonicMs());
          log[isNews ? "warn" : "debug"]("cannot register a plugin", { socket, error: messageOf(error) });
        }
      }
      later(this.#failures.untilMs(socket));
    }
    // Those that came this moment too.
    for (const name of this.#untold.keys()) {
      later(Math.max(this.#refusals.untilMs(name), clock.monotonicMs() + tellMs));
    }
    return untilMs;
  }

  /** Tells the API once it is time to; when it is time again, infinity where nothing is left to tell. */
  async #attempt(name: string, what: string, tell: () => Promise<void>): Promise<number> {
    const { clock, log, isAway } = this.#deps;
    if (!this.#refusals.isDue(name, clock.monotonicMs())) return this.#refusals.untilMs(name);
    try {
      await tell();
      this.#refusals.forget(name);
      return Number.POSITIVE_INFINITY;
    } catch (error) {
      const nowMs = clock.monotonicMs();
      const fields = { driver: name, error: messageOf(error) };
      if (isAway(error)) {
        log.debug(what, fields);
        return nowMs + tellMs;
      }
      log[this.#refusals.note(name, fields.error, nowMs) ? "warn" : "debug"](what, fields);
      return this.#refusals.untilMs(name);
    }
  }

  /** Sockets in the folder and one level below. */
  async #sockets(): Promise<Set<string>> {
    const found = new Set<string>();
    for (const entry of await listFolder(this.#folder)) {
      const path = `${this.#folder}/${entry.name}`;
      if (entry.isSocket()) found.add(path);
      else if (entry.isDirectory()) {
        for (const inner of await listFolder(path)) if (inner.isSocket()) found.add(`${path}/${inner.name}`);
      }
      if (found.size >= maxSockets) break;
    }
    return found;
  }

  async #tell(name: string, info: CsiNodeInfo): Promise<void> {
    try {
      await this.#deps.registered(name, info);
      this.#untold.delete(name);
    } catch (error) {
      if (!this.#deps.isAway(error)) throw error;
      this.#untold.set(name, info);
    }
  }

  async #register(socket: string): Promise<void> {
    const { log } = this.#deps;
    const grpc = createGrpcClient({ target: { socketPath: socket } });
    const notify = async (error: string): Promise<void> => {
      const row = registrationMethods["Registration/NotifyRegistrationStatus"];
      const status = { pluginRegistered: error === "", error };
      await grpc.unary(row.path, this.#codec.encode(row.request, status), { timeoutMs: callMs });
    };
    try {
      const row = registrationMethods["Registration/GetInfo"];
      const bytes = await grpc.unary(row.path, this.#codec.encode(row.request, {}), { timeoutMs: callMs });
      const info = this.#codec.decode<PluginInfo>(row.response, bytes);
      // Device plugins have a door of their own.
      if (info.type !== csiType) {
        this.#others.add(socket);
        return;
      }
      const refusal = whyNot(info);
      if (refusal !== undefined) {
        await notify(refusal);
        throw new Error(refusal);
      }
      const driver = createCsiDriver(info.endpoint === "" ? socket : info.endpoint.replace(/^unix:(\/\/)?/, ""));
      try {
        const node = await driver.call("Node/NodeGetInfo", {});
        const own = {
          nodeId: node.nodeId,
          maxVolumes: Number(node.maxVolumesPerNode),
          topology: node.accessibleTopology?.segments ?? {},
        };
        this.#known.set(socket, { socket, name: info.name, info: own, driver });
        await this.#tell(info.name, own);
        this.#gone.delete(info.name);
        await notify("");
        log.info("CSI driver registered", { driver: info.name });
      } catch (error) {
        this.#known.delete(socket);
        // Should it have been lost meanwhile: what is not registered is not told.
        if (!this.driver(info.name)) this.#untold.delete(info.name);
        driver.close();
        await notify(messageOf(error)).catch((last: unknown) =>
          log.debug("cannot answer a plugin", { error: messageOf(last) }),
        );
        throw error;
      }
    } finally {
      grpc.close();
    }
  }
}

function whyNot(info: PluginInfo): string | undefined {
  if (!/^[a-z0-9A-Z]([-a-zA-Z0-9.]{0,61}[a-zA-Z0-9])?$/.test(info.name)) return `invalid driver name "${info.name}"`;
  const isKnown = info.supportedVersions.some((version) => /^v?1\./.test(version));
  return isKnown ? undefined : `none of the versions ${info.supportedVersions.join(", ")} is supported; 1.x is`;
}
