// `mote secrets-encrypt` inside the server: the keys that mote makes itself, their files in server/cred, and the stages of
// changing them. A step is on disk before it counts, and it counts at once: no restart between stages. Keys go only after
// every Secret was read and written with the key that stays. What a crash leaves is taken up at the next start.
// Upstream counterpart: k3s's secrets-encrypt handlers and controller.
import { createHash } from "node:crypto";
import type { Clock, Random } from "#base/clock.ts";
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Backend } from "#datastore/backend.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes, secrets } from "#model/resources.ts";
import { controlSocket } from "#platform/control-socket.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { collectionPrefix } from "../registry/keys.ts";
import { parseEncryptionConfiguration, refused } from "./configuration.ts";
import { rewriteAll } from "./rewrite.ts";
import type { EncryptionSlots } from "./slots.ts";
import {
  type EncryptionCommand,
  formatManaged,
  keyName,
  type ManagedKey,
  type ManagedProvider,
  type ManagedState,
  parseManaged,
  planCommand,
  planFinish,
  stageOf,
  stateLine,
} from "./stages.ts";

/** What k3s's API answers. */
export interface EncryptionStatus {
  readonly stage: string;
  readonly activekey: string;
  /** Absent: there is no configuration. */
  readonly enable?: boolean;
  readonly hashmatch?: boolean;
  readonly hasherror?: string;
  readonly inactivekeys?: readonly string[];
}

export type EncryptionRequest = { readonly command: "status" } | ({ readonly command: "config" } & EncryptionCommand);

export interface ManagedOptions {
  /** server/cred. */
  readonly folder: string;
  /** Of keys from now on. */
  readonly provider: ManagedProvider;
  /** Make a configuration where there is none. */
  readonly enable: boolean;
}

export interface ManagedDeps {
  readonly slots: EncryptionSlots;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Replaces a file, whole or not at all; for tests that stop at each step. */
  readonly write?: typeof writeFileDurable | undefined;
}

/** What there is once the API works. */
export interface ManagedServiceDeps {
  readonly backend: Backend;
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly events: EventSink;
  readonly nodeName: string;
}

/** On the node object of each server, as k3s has it. */
export const hashAnnotation = "k3s.io/encryption-config-hash";
/** What k3s makes. */
const keyBytes = 32;
/** Progress is told after so many, then after twice as many: a few events for any number of Secrets. */
const firstProgress = 50;

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

export class ManagedEncryption {
  readonly #options: ManagedOptions;
  readonly #deps: ManagedDeps;
  #state: ManagedState | undefined;
  #hash = "";
  /** Writes with what was before the last change have ended. */
  #drained: Promise<void> = Promise.resolve();
  /** Commands one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  #job: Promise<void> | undefined;

  private constructor(options: ManagedOptions, deps: ManagedDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Before anything is read from the datastore. */
  static async open(options: ManagedOptions, deps: ManagedDeps): Promise<ManagedEncryption> {
    const managed = new ManagedEncryption(options, deps);
    await managed.#load();
    if (!managed.#state && options.enable) await managed.#save(managed.#plan({ enable: true }));
    return managed;
  }

  get #configurationFile(): string {
    return `${this.#options.folder}/encryption-config.json`;
  }
  get #stateFile(): string {
    return `${this.#options.folder}/encryption-state.json`;
  }

  async #load(): Promise<void> {
    const text = (await readFileIfExists(this.#configurationFile))?.toString("utf8");
    if (text === undefined) return;
    const keys = parseManaged(text);
    const hash = sha256(text);
    const stage = stageOf((await readFileIfExists(this.#stateFile))?.toString("utf8") ?? "", hash);
    if (!stage) this.#deps.log.warn("the encryption configuration was changed by hand; its stage is taken for start");
    this.#use({ ...keys, ...(stage ?? { stage: "start", skip: false }) }, text, hash);
  }

  /** The state is written first, with that of before behind it: whichever configuration a crash leaves finds its own. */
  async #save(state: ManagedState): Promise<void> {
    const text = formatManaged(state);
    const hash = sha256(text);
    const lines = [stateLine(state, hash), ...(this.#state ? [stateLine(this.#state, this.#hash)] : [])];
    const { write = writeFileDurable } = this.#deps;
    await write(this.#stateFile, `${lines.join("\n")}\n`, 0o600);
    if (hash !== this.#hash) await write(this.#configurationFile, text, 0o600);
    this.#use(state, text, hash);
  }

  #use(state: ManagedState, text: string, hash: string): void {
    this.#state = state;
    if (hash === this.#hash) return;
    this.#hash = hash;
    const [before, now] = [this.#drained, this.#deps.slots.apply(parseEncryptionConfiguration(text))];
    this.#drained = Promise.all([before, now]).then(() => {});
  }

  #plan(command: EncryptionCommand): ManagedState {
    const { clock, random } = this.#deps;
    const type = this.#options.provider;
    const fresh: ManagedKey = {
      type,
      name: keyName(type, this.#state?.keys ?? [], rfc3339(clock.now())),
      secret: Buffer.from(random.bytes(keyBytes)).toString("base64"),
    };
    return planCommand(command, this.#state, fresh);
  }

  /** Answers `mote secrets-encrypt` on `socket`, keeps the node's annotation, and ends what was begun before a restart. */
  service(socket: string, deps: ManagedServiceDeps): Service {
    const annotate = this.#annotating(deps);
    return {
      name: "secrets-encrypt",
      run: async (signal, ready) => {
        const stage = this.#state?.stage;
        if (stage === "reencrypt_request" || stage === "reencrypt_active") void this.#start(deps, annotate, signal);
        const answer = (request: unknown): Promise<unknown> => {
          const { command, ...rest } = (request ?? {}) as Partial<EncryptionRequest>;
          if (command === "status") return this.#status(deps);
          if (command !== "config") return Promise.reject(refused("unknown request"));
          const done = this.#last.then(() => this.#command(rest as EncryptionCommand, deps, annotate, signal));
          // The next one waits for what is quick; a reencryption refuses others by its stage.
          this.#last = done.then(
            () => {},
            () => {},
          );
          return done.then(({ job, message }) => (job ? job.then(() => message) : message));
        };
        await controlSocket("secrets-encrypt", socket, answer).run(signal, ready);
        await this.#job;
      },
    };
  }

  async #command(
    command: EncryptionCommand,
    deps: ManagedServiceDeps,
    annotate: () => void,
    signal: AbortSignal,
  ): Promise<{ message: string; job?: Promise<void> }> {
    if (this.#job) throw refused(`incorrect stage: ${this.#state?.stage}: secrets are being reencrypted`);
    const { hasherror } = await this.#status(deps);
    if (hasherror !== undefined && command.force !== true) throw refused(hasherror);
    const others = command.stage === "rotate_keys" ? await this.#otherServers(deps) : [];
    if (others.length > 0) {
      // They cannot read what the new key writes before they have it.
      const names = others.map(({ name }) => name).join(", ");
      throw refused(`rotate-keys is for one server; with ${names} use prepare, rotate and reencrypt`);
    }
    await this.#save(this.#plan(command));
    annotate();
    if (this.#state?.stage !== "reencrypt_request") {
      const what = command.stage ?? (command.enable ? "enabled" : "disabled");
      return { message: command.stage ? `${what} completed successfully` : `secrets-encryption ${what}` };
    }
    const job = this.#start(deps, annotate, signal);
    return command.stage === "rotate_keys"
      ? { message: "keys rotated, reencryption finished", job }
      : { message: "reencryption started" };
  }

  /** Rejects with what went wrong, which is told as an event and in the log too. */
  #start(deps: ManagedServiceDeps, annotate: () => void, signal: AbortSignal): Promise<void> {
    const work = this.#reencrypt(deps, annotate, signal).catch((error: unknown) => {
      if (!signal.aborted) {
        const why = messageOf(error);
        this.#deps.log.error("secrets are not reencrypted", { error: why });
        this.#tell(deps, "Warning", "SecretsUpdateError", `keys are kept: ${why}`);
      }
      throw error;
    });
    const job = work
      .catch(() => {})
      .finally(() => {
        this.#job = undefined;
      });
    this.#job = job;
    return work;
  }

  async #reencrypt(deps: ManagedServiceDeps, annotate: () => void, signal: AbortSignal): Promise<void> {
    const { slots, log } = this.#deps;
    await this.#drained;
    await this.#save({ ...this.#state!, stage: "reencrypt_active" });
    annotate();
    let told = firstProgress;
    const { rewritten, unreadable } = await rewriteAll(
      {
        prefix: collectionPrefix(secrets, ""),
        slot: slots.slot(secrets),
        progress: (count) => {
          if (count < told) return;
          told *= 2;
          this.#tell(deps, "Normal", "SecretsProgress", `reencrypted ${count} secrets`);
        },
      },
      deps.backend,
      signal,
    );
    if (unreadable.length > 0) throw refused(`cannot be read: ${unreadable.join("; ")}`);
    // Values of before are history now: it goes, and readers of it list again, rather than meet a key that is gone.
    await deps.backend.compact(deps.backend.revision()).catch((error: unknown) => {
      log.warn("history with the old keys is kept until its time", { error: messageOf(error) });
    });
    await this.#save(planFinish(this.#state!));
    annotate();
    log.info("secrets are reencrypted", { count: rewritten });
    this.#tell(deps, "Normal", "SecretsUpdateComplete", `completed reencrypt of ${rewritten} secrets`);
  }

  async #status(deps: ManagedServiceDeps): Promise<EncryptionStatus> {
    const state = this.#state;
    if (!state) return { stage: "", activekey: "" };
    const line = stateLine({ ...state, skip: false }, this.#hash);
    const other = (await this.#otherServers(deps)).find((candidate) => hashOf(candidate.line) !== this.#hash);
    const [active, ...inactive] = state.keys.map(({ name }) => name);
    return {
      stage: state.stage,
      activekey: active ?? "",
      enable: state.enabled,
      ...(other
        ? { hasherror: `hash does not match between ${deps.nodeName} (${line}) and ${other.name} (${other.line})` }
        : { hashmatch: true }),
      ...(inactive.length > 0 ? { inactivekeys: inactive } : {}),
    };
  }

  /** Nodes that say which configuration they have. */
  async #otherServers({ client, nodeName }: ManagedServiceDeps): Promise<{ name: string; line: string }[]> {
    return (await client.list(nodes)).items.flatMap(({ metadata: { name = "", annotations } }) => {
      const line = annotations?.[hashAnnotation];
      return line !== undefined && name !== nodeName ? [{ name, line }] : [];
    });
  }

  /** Writes the annotation now where the node lacks it, and whenever the node comes anew. */
  #annotating({ client, informers, nodeName }: ManagedServiceDeps): () => void {
    let isWriting = false;
    const wanted = () => (this.#state ? stateLine({ ...this.#state, skip: false }, this.#hash) : undefined);
    const write = async (): Promise<void> => {
      const line = wanted();
      const found = informers.informer(nodes).get(nodeName);
      if (isWriting || line === undefined || !found || found.metadata.annotations?.[hashAnnotation] === line) return;
      isWriting = true;
      try {
        await client.patch(nodes, { name: nodeName }, { metadata: { annotations: { [hashAnnotation]: line } } });
      } catch (error) {
        this.#deps.log.warn("the node is not told of its encryption configuration", { error: messageOf(error) });
      } finally {
        isWriting = false;
      }
    };
    const look = (node: Node) => {
      if (node.metadata.name === nodeName) void write();
    };
    informers.informer(nodes).addHandler({ add: look, update: look });
    return () => void write();
  }

  #tell({ events, nodeName }: ManagedServiceDeps, type: "Normal" | "Warning", reason: string, message: string): void {
    const object = { apiVersion: "v1", kind: "Node", metadata: { name: nodeName, uid: nodeName } };
    events.record({ resource: nodes, object, type, reason, message });
  }
}

const hashOf = (line: string): string => line.slice(line.lastIndexOf("-") + 1);
