// Hands out processors, memory nodes and devices to containers, and remembers to whom across restarts, in one small file that
// is written only when something of this kind changes. Reserved when a pod is admitted, prepared when a container starts,
// given back when the pod has ended. Counterpart: the kubelet's container manager with its cpu, memory, device and topology
// managers.
import { type Clock, pause } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import type { Amounts } from "../capacity.ts";
import type { NodeConfiguration } from "../configuration.ts";
import type { Cri } from "../cri.ts";
import type { Refusal } from "../pods/admission.ts";
import type { PodObservation } from "../pods/observation.ts";
import type { Allocation } from "./plugin-protocol.ts";
import { DevicePlugins, type ResourceDevices } from "./plugins.ts";
import { type Reservations, reserve, sharedProcessors } from "./reservations.ts";
import { formatList, parseList, readTopology, type Topology } from "./topology.ts";

/** The file. */
interface Kept {
  readonly held: Reservations;
  /** Names that plugins have registered: without its plugin such a resource is short, not unknown. */
  readonly resources: readonly string[];
}

/** What a container gets beside what its spec says. */
export interface Extras {
  readonly cpusetCpus: string;
  readonly cpusetMems: string;
  readonly allocations: readonly Allocation[];
}

export interface HardwareDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly cri: Cri;
  readonly configuration: NodeConfiguration;
  readonly dataFolder: string;
  readonly pluginFolder: string;
  readonly memoryBytes: number;
  /** What runs, to move containers to what is left of the shared processors. */
  readonly observed: () => readonly PodObservation[];
  /** Default: the machine's. */
  readonly topology?: (memoryBytes: number) => Promise<Topology>;
  readonly onChange: () => void;
}

/** Plugins come and go over a node's life; names of long ago are forgotten. */
const maxNames = 64;
/** A container that was being made while processors changed hands is on the wrong ones no longer than this. */
const reconcileMs = 10_000;

export class Hardware {
  readonly #deps: HardwareDeps;
  readonly #plugins: DevicePlugins;
  #topology: Topology = { processors: [], nodes: [] };
  #reservedProcessors: ReadonlySet<number> = new Set();
  #held: Reservations = {};
  #names: ReadonlySet<string> = new Set();
  /** What plugins answered, by uid/container/resource; asked again after a restart. */
  readonly #allocations = new Map<string, Allocation>();
  #saving: Promise<void> = Promise.resolve();
  /** By id of a running container: the processors that the runtime was last told. */
  readonly #placed = new Map<string, string>();
  #placing: Promise<void> = Promise.resolve();
  /** Will look at everything, and has not begun. */
  #nextPlacing: Promise<void> | undefined;

  constructor(deps: HardwareDeps) {
    this.#deps = deps;
    const { clock, log, pluginFolder: folder, onChange } = deps;
    this.#plugins = new DevicePlugins({
      ...{ clock, log, folder },
      onChange: () => {
        this.#learn();
        onChange();
      },
    });
  }

  async open(): Promise<void> {
    const { memoryBytes, log } = this.#deps;
    this.#topology = await (this.#deps.topology ?? readTopology)(memoryBytes);
    this.#reservedProcessors = this.#chooseReserved();
    if (this.#isStatic && this.#reservedProcessors.size === 0) {
      throw new AppError(
        "NODE_CONFIGURATION",
        "kubelet-arg cpu-manager-policy: static needs reserved-cpus, or CPU in system-reserved or kube-reserved",
      );
    }
    try {
      const text = (await readFileIfExists(this.#path))?.toString("utf8");
      const kept = text ? (JSON.parse(text) as Partial<Kept>) : {};
      this.#held = kept.held ?? {};
      this.#names = new Set(kept.resources ?? []);
    } catch (error) {
      // Pods keep what their containers have; new ones might get the same.
      log.warn("cannot read who has which devices, beginning anew", { path: this.#path, error: messageOf(error) });
    }
  }

  get #path(): string {
    return `${this.#deps.dataFolder}/hardware.json`;
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#plugins.run(signal), this.#keepPlaces(signal)]);
    await this.#saving;
  }

  get #isStatic(): boolean {
    return this.#deps.configuration.cpuManagerPolicy === "static";
  }

  async #keepPlaces(signal: AbortSignal): Promise<void> {
    while (this.#isStatic && !signal.aborted) {
      // Ends early only because the signal aborted.
      await pause(this.#deps.clock, reconcileMs, signal);
      if (!signal.aborted) await this.#place();
    }
  }

  get capacity(): Amounts {
    return Object.fromEntries(
      [...this.#resources()].map(([name, { healthy, unhealthy }]) => [name, healthy.size + unhealthy.size]),
    );
  }
  get allocatable(): Amounts {
    return Object.fromEntries([...this.#resources()].map(([name, { healthy }]) => [name, healthy.size]));
  }

  /** Of the plugins that are there, and none of those that were before a restart and have not come back yet. */
  #resources(): ReadonlyMap<string, ResourceDevices> {
    const none: ResourceDevices = { healthy: new Map(), unhealthy: new Set() };
    return new Map([...[...this.#names].map((name) => [name, none] as const), ...this.#plugins.resources()]);
  }

  #learn(): void {
    const names = [...this.#plugins.resources().keys()];
    if (names.every((name) => this.#names.has(name))) return;
    this.#names = new Set([...this.#names, ...names].slice(-maxNames));
    this.#save();
  }

  /** Reserves what the pod needs; why it cannot have it. */
  admit(pod: Pod): Refusal | undefined {
    const uid = pod.metadata.uid ?? "";
    const result = reserve({
      pod,
      held: this.#held,
      topology: this.#topology,
      reservedProcessors: this.#reservedProcessors,
      configuration: this.#deps.configuration,
      devices: this.#resources(),
    });
    if (!result.ok) return { reason: result.reason, message: result.message };
    if (Object.keys(result.shares).length === 0) return undefined;
    this.#set({ ...this.#held, [uid]: result.shares });
    return undefined;
  }

  /** Frees what pods had that are not among `uids`. */
  keep(uids: ReadonlySet<string>): void {
    for (const uid of Object.keys(this.#held)) if (!uids.has(uid)) this.release(uid);
  }

  release(uid: string): void {
    for (const key of this.#allocations.keys()) if (key.startsWith(`${uid}/`)) this.#allocations.delete(key);
    if (!this.#held[uid]) return;
    const { [uid]: _gone, ...rest } = this.#held;
    this.#set(rest);
  }

  /** Prepares the container's devices; rejects when a plugin refuses or is away. */
  async extras(pod: Pod, container: Container): Promise<Extras> {
    const uid = pod.metadata.uid ?? "";
    const share = this.#held[uid]?.[container.name];
    const hasManyNodes = this.#topology.nodes.length > 1;
    const allocations: Allocation[] = [];
    for (const [resource, ids] of Object.entries(share?.devices ?? {})) {
      const key = `${uid}/${container.name}/${resource}`;
      const plugin = this.#plugins.of(resource);
      if (!plugin) throw new Error(`the device plugin for ${resource} is not there`);
      const allocation = this.#allocations.get(key) ?? (await plugin.connection.allocate(ids));
      this.#allocations.set(key, allocation);
      if (plugin.options.preStartRequired) await plugin.connection.preStart(ids);
      allocations.push(allocation);
    }
    return {
      cpusetCpus: this.#processorsOf(uid, container.name),
      cpusetMems: hasManyNodes ? formatList(share?.memoryNodes ?? []) : "",
      allocations,
    };
  }

  #chooseReserved(): ReadonlySet<number> {
    const { configuration } = this.#deps;
    if (configuration.reservedSystemCpus !== "") return parseList(configuration.reservedSystemCpus);
    const milli = (configuration.kubeReserved["cpu"] ?? 0) + (configuration.systemReserved["cpu"] ?? 0);
    return new Set(this.#topology.processors.slice(0, Math.ceil(milli / 1000)).map((p) => p.id));
  }

  #set(held: Reservations): void {
    this.#held = held;
    this.#save();
    if (this.#isStatic) void this.#place();
  }

  /** Empty: any, because the policy is another. */
  #processorsOf(uid: string, container: string): string {
    const own = this.#held[uid]?.[container]?.processors ?? [];
    if (own.length > 0) return formatList(own);
    return this.#isStatic ? formatList(sharedProcessors(this.#topology, this.#held)) : "";
  }

  #save(): void {
    const kept: Kept = { held: this.#held, resources: [...this.#names] };
    const text = `${JSON.stringify(kept)}\n`;
    this.#saving = this.#saving
      .then(() => writeFileDurable(this.#path, text, 0o600))
      .catch((error: unknown) => {
        // The next change writes everything again.
        this.#deps.log.warn("cannot write who has which devices", { path: this.#path, error: messageOf(error) });
      });
  }

  /** Puts all that runs onto its processors, one after the other: what is told last is what holds. */
  #place(): Promise<void> {
    this.#nextPlacing ??= this.#placing = this.#placing.then(() => {
      this.#nextPlacing = undefined;
      return this.#placeAll();
    });
    return this.#nextPlacing;
  }

  async #placeAll(): Promise<void> {
    const { cri, log, observed } = this.#deps;
    const running = new Set<string>();
    for (const pod of observed()) {
      for (const { id, name, state } of pod.containers) {
        if (state !== "running") continue;
        running.add(id);
        const cpusetCpus = this.#processorsOf(pod.uid, name);
        if (this.#placed.get(id) === cpusetCpus) continue;
        try {
          await cri.updateResources(id, { cpusetCpus });
          this.#placed.set(id, cpusetCpus);
        } catch (error) {
          // It may have ended; where it has not, the next round tries again.
          log.debug("cannot move a container to other processors", { container: id, error: messageOf(error) });
        }
      }
    }
    for (const id of this.#placed.keys()) if (!running.has(id)) this.#placed.delete(id);
  }
}
