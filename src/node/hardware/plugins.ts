// Device plugins: programs that offer devices of a resource. They register at a socket, list their devices and keep the list
// current; a plugin that goes away leaves its devices unhealthy, and after a while unknown. Which device whose container has is
// the manager's business. Counterpart: pkg/kubelet/cm/devicemanager (plugin/v1beta1).
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { untilAborted } from "#base/service.ts";
import { makeFolder } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { openGrpcServer } from "#platform/grpc-server.ts";
import { encodeFrame, GrpcError } from "#wire/grpc.ts";
import {
  apiVersion,
  codec,
  PluginConnection,
  type PluginDevice,
  type RegisterRequest,
  registerPath,
} from "./plugin-protocol.ts";

export interface ResourceDevices {
  /** All that the plugin has told of, by id: the NUMA nodes each is near to. */
  readonly healthy: ReadonlyMap<string, readonly number[]>;
  readonly unhealthy: ReadonlySet<string>;
}

export interface PluginsDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** `/var/lib/kubelet/device-plugins` */
  readonly folder: string;
  readonly onChange: () => void;
}

interface Plugin {
  readonly connection: PluginConnection;
  readonly options: NonNullable<RegisterRequest["options"]>;
  readonly stop: AbortController;
  devices: readonly PluginDevice[];
  isLive: boolean;
  endedMs: number;
}

/** A plugin may be restarted meanwhile; upstream's grace for its resource to stay known. */
const endpointGraceMs = 5 * 60_000;
/** A resource per plugin; more is a mistake. */
const maxPlugins = 64;
const maxMessageBytes = 64 * 1024;
const stopGraceMs = 500;

const refused = (why: string): GrpcError => new GrpcError("INVALID_ARGUMENT", why);

const isResourceName = (name: string): boolean =>
  /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/.test(name) &&
  !/(^|\.)kubernetes\.io\//.test(name);

export class DevicePlugins {
  readonly #deps: PluginsDeps;
  readonly #plugins = new Map<string, Plugin>();
  readonly #tasks = new Set<Promise<void>>();

  constructor(deps: PluginsDeps) {
    this.#deps = deps;
  }

  /** Devices by resource name, as plugins tell of them now. */
  resources(): ReadonlyMap<string, ResourceDevices> {
    const nowMs = this.#deps.clock.monotonicMs();
    const out = new Map<string, ResourceDevices>();
    for (const [name, plugin] of this.#plugins) {
      if (!plugin.isLive && nowMs - plugin.endedMs > endpointGraceMs) continue;
      const healthy = new Map<string, readonly number[]>();
      const unhealthy = new Set<string>();
      for (const device of plugin.devices) {
        if (plugin.isLive && device.health === "Healthy") {
          healthy.set(
            device.ID,
            (device.topology?.nodes ?? []).map((n) => Number(n.ID)),
          );
        } else unhealthy.add(device.ID);
      }
      out.set(name, { healthy, unhealthy });
    }
    return out;
  }

  /** The plugin of a resource; undefined while none is there. */
  of(resource: string): { readonly connection: PluginConnection; readonly options: Plugin["options"] } | undefined {
    const plugin = this.#plugins.get(resource);
    return plugin?.isLive ? plugin : undefined;
  }

  /** Serves registrations until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { folder, log } = this.#deps;
    const socketPath = `${folder}/kubelet.sock`;
    await makeFolder(folder, 0o750);
    await removeFile(socketPath);
    const server = await openGrpcServer(
      { listen: { socketPath }, maxMessageBytes, log },
      new Map([
        [
          registerPath,
          {
            kind: "unary" as const,
            handle: async (message: Uint8Array) => {
              this.#register(codec.decode<RegisterRequest & object>("RegisterRequest", message), signal);
              return encodeFrame(codec.encode("Empty", {}));
            },
          },
        ],
      ]),
    );
    try {
      await untilAborted(signal);
    } finally {
      for (const plugin of this.#plugins.values()) plugin.stop.abort(signal.reason);
      await server.close(stopGraceMs);
      await Promise.allSettled([...this.#tasks]);
      for (const plugin of this.#plugins.values()) plugin.connection.close();
      this.#plugins.clear();
    }
  }

  #register(request: RegisterRequest, signal: AbortSignal): void {
    const { folder, log } = this.#deps;
    const { resourceName, endpoint } = request;
    if (request.version !== apiVersion) {
      throw refused(
        `requested API version "${request.version}" is not supported by kubelet. Supported version is "${apiVersion}"`,
      );
    }
    if (!isResourceName(resourceName)) {
      throw refused(`the ResourceName "${resourceName}" is invalid`);
    }
    if (endpoint === "" || endpoint.includes("/"))
      throw refused(`the endpoint "${endpoint}" is not a name in ${folder}`);
    const old = this.#plugins.get(resourceName);
    if (!old && this.#plugins.size >= maxPlugins) throw refused("too many device plugins");
    old?.stop.abort(new Error("registered again"));
    old?.connection.close();
    const plugin: Plugin = {
      connection: new PluginConnection(`${folder}/${endpoint}`),
      options: request.options ?? { preStartRequired: false, getPreferredAllocationAvailable: false },
      stop: new AbortController(),
      devices: old?.devices ?? [],
      isLive: false,
      endedMs: this.#deps.clock.monotonicMs(),
    };
    if (signal.aborted) plugin.stop.abort(signal.reason);
    this.#plugins.set(resourceName, plugin);
    log.info("device plugin registered", { resource: resourceName, endpoint });
    const task = this.#follow(resourceName, plugin);
    this.#tasks.add(task);
    // Its failures are told inside.
    void task.finally(() => this.#tasks.delete(task));
  }

  async #follow(resource: string, plugin: Plugin): Promise<void> {
    const { clock, log, onChange } = this.#deps;
    try {
      for await (const devices of plugin.connection.devices(plugin.stop.signal)) {
        plugin.devices = devices;
        plugin.isLive = true;
        onChange();
      }
      log.info("device plugin ended", { resource });
    } catch (error) {
      if (!plugin.stop.signal.aborted) log.warn("device plugin is gone", { resource, error: messageOf(error) });
    }
    plugin.isLive = false;
    plugin.endedMs = clock.monotonicMs();
    if (this.#plugins.get(resource) === plugin) onChange();
  }
}
