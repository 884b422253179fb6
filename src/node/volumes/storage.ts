// The agent's storage in one piece: persistent volumes, CSI drivers of this node, folders of local volumes, and what the
// Node says is in use. Made by agent.ts, which runs `run` beside its pods.

import { type Clock, pause, type Random } from "#base/clock.ts";
import { hasCode, isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { untilAborted } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import { Informer } from "#client/informer.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { uidOf } from "#model/object.ts";
import { nodes, persistentVolumes } from "#model/resources.ts";
import { makeFolder } from "#platform/files.ts";
import type { Commands } from "#platform/processes.ts";
import { CsiMounter } from "./csi/mounter.ts";
import { CsiNodeRecord, saysOf } from "./csi/node-info.ts";
import { CsiPlugins } from "./csi/plugins.ts";
import { ensureHostPath } from "./host-path.ts";
import { removeLocalFolders } from "./local-path.ts";
import { shareMounts } from "./mount-points.ts";
import { PersistentVolumes } from "./persistent.ts";
import type { PodTokens } from "./tokens.ts";

export interface StorageOptions {
  readonly nodeName: string;
  readonly podsFolder: string;
  readonly storageFolder: string;
  /** Default /var/lib/kubelet, which drivers' manifests name. */
  readonly kubeletFolder: string;
  /** Default ten seconds: most attachers are done by then, and a pod that is deleted meanwhile waits no longer. */
  readonly attachWaitMs?: number;
  /** Let containers see mounts below it, and mount for others there. */
  readonly sharesMounts: boolean;
}

export interface StorageDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly events: EventSink;
  readonly commands: Commands;
  readonly tokens: PodTokens;
}

/** A part that failed comes back after this. */
const restartMs = 10_000;
const retryMs = 5_000;
const attachWaitMs = 10_000;
/** After a Node has become another, the pauses until it is looked at again: what belonged to the one before is collected by then. */
const collectedMs: readonly number[] = [30_000, 60_000];

export class NodeStorage {
  readonly persistent: PersistentVolumes;
  readonly #options: StorageOptions;
  readonly #deps: StorageDeps;
  readonly #plugins: CsiPlugins;
  readonly #record: CsiNodeRecord;
  #inUseChanged = () => {};
  /** Of the Node, once it was seen. */
  #nodeUid: string | undefined;
  #nodeChanged = () => {};

  constructor(options: StorageOptions, deps: StorageDeps) {
    this.#options = options;
    this.#deps = deps;
    const record = new CsiNodeRecord({ nodeName: options.nodeName }, deps);
    this.#record = record;
    this.#plugins = new CsiPlugins(
      { folder: `${options.kubeletFolder}/plugins_registry` },
      {
        clock: deps.clock,
        log: deps.log,
        registered: (name, info) => record.add(name, info),
        isAway: (error) => hasCode(error, "NODE_SERVER_AWAY"),
        unregistered: (name) => record.remove(name),
      },
    );
    this.persistent = new PersistentVolumes(options, {
      client: deps.client,
      commands: deps.commands,
      events: deps.events,
      csi: new CsiMounter(
        { ...options, attachWaitMs: options.attachWaitMs ?? attachWaitMs },
        {
          client: deps.client,
          clock: deps.clock,
          tokens: deps.tokens,
          driver: (name) => this.#plugins.driver(name),
        },
      ),
      ensureHostPath,
      changed: () => this.#inUseChanged(),
    });
  }

  /** This node's object as it is now: what it lacks of the drivers is told again, and all of it where it is another one. */
  sawNode(node: Node): void {
    const uid = uidOf(node);
    if (this.#nodeUid !== undefined && this.#nodeUid !== uid) this.#nodeChanged();
    this.#nodeUid = uid;
    this.#plugins.tellAgain((name, info) => !saysOf(node, name, info));
  }

  /** Until the signal; each part by itself, so that a node without drivers or a writable kubelet folder still works. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, clock, random, log, events } = this.#deps;
    const volumes = new Informer(persistentVolumes, {}, {}, { client, clock, random, log });
    const parts: readonly (readonly [string, (signal: AbortSignal) => Promise<void>])[] = [
      ["volumes", (own) => volumes.run(own)],
      [
        "local folders",
        (own) =>
          removeLocalFolders(
            this.#options,
            { client, clock, log, events, volumes, isInUse: (name) => this.persistent.isInUse(name) },
            own,
          ),
      ],
      ["CSI drivers", (own) => this.#runDrivers(own)],
      ["CSINode", (own) => this.#keepRecord(own)],
      ["volumes in use", (own) => this.#keepInUse(own)],
    ];
    await Promise.all(parts.map(([name, work]) => this.#keep(name, work, signal)));
  }

  async #keep(name: string, work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      // A signal of its own, so that the agent's does not collect listeners.
      const own = new AbortController();
      const end = () => own.abort(signal.reason);
      signal.addEventListener("abort", end, { once: true });
      try {
        await work(own.signal);
      } catch (error) {
        if (!isAbort(error, own.signal)) log(this.#deps, name, error);
      } finally {
        signal.removeEventListener("abort", end);
      }
      if (!signal.aborted) await pause(this.#deps.clock, restartMs, signal);
    }
  }

  async #runDrivers(signal: AbortSignal): Promise<void> {
    await makeFolder(this.#options.kubeletFolder, 0o755);
    if (this.#options.sharesMounts) await shareMounts(this.#options.kubeletFolder, this.#deps.commands);
    await this.#plugins.run(signal);
  }

  /** The object is there from the start, empty until a driver comes; and again where the Node that owned it has gone. */
  async #keepRecord(signal: AbortSignal): Promise<void> {
    let next: number = collectedMs.length;
    while (!signal.aborted) {
      const wait = new AbortController();
      const wake = () => wait.abort();
      this.#nodeChanged = () => {
        next = 0;
        wake();
      };
      signal.addEventListener("abort", wake, { once: true });
      await this.#record.ensure();
      this.#plugins.tellAgain();
      const pauseMs = collectedMs[next++];
      if (pauseMs === undefined) await untilAborted(wait.signal);
      else await pause(this.#deps.clock, pauseMs, wait.signal);
      signal.removeEventListener("abort", wake);
    }
  }

  async #keepInUse(signal: AbortSignal): Promise<void> {
    const { client, clock, log: logger } = this.#deps;
    let told: string | undefined;
    while (!signal.aborted) {
      const wait = new AbortController();
      const wake = () => wait.abort();
      this.#inUseChanged = wake;
      signal.addEventListener("abort", wake, { once: true });
      const names = this.persistent.attachedInUse();
      const text = JSON.stringify(names);
      let pauseMs = 24 * 3600_000;
      // A node that never had an attached volume has nothing to say.
      if (text !== (told ?? "[]") || (told === undefined && names.length > 0)) {
        try {
          const patch = { status: { volumesInUse: names } };
          await client.patch(nodes, { name: this.#options.nodeName }, patch, { subresource: "status" });
          told = text;
        } catch (error) {
          // The API may be away: told again in a moment.
          logger.debug("cannot tell which volumes are in use", { error: messageOf(error) });
          pauseMs = retryMs;
        }
      }
      if (JSON.stringify(this.persistent.attachedInUse()) === text) await pause(clock, pauseMs, wait.signal);
      signal.removeEventListener("abort", wake);
    }
  }
}

const log = (deps: StorageDeps, name: string, error: unknown): void => {
  // Without a server this comes every few seconds, and says nothing new.
  const level = hasCode(error, "NODE_SERVER_AWAY") ? "debug" : "warn";
  deps.log[level]("a part of the node's storage failed, trying again", { part: name, error: messageOf(error) });
};
