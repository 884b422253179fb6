// Pods from files in a folder, run without being asked of the API, and their mirrors in it. A file's pod is known by the hash
// of its text: a changed file is another pod. The mirror shows people what runs; deleting it changes nothing, it comes again.
// Counterpart: the kubelet's file source and mirror pod client.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nodes, pods } from "#model/resources.ts";
import { isAlreadyExists, isApiError, isNotFound } from "#model/status.ts";
import { listFolder, readFileIfExists } from "#platform/files.ts";
import { fileFacts } from "#platform/open-file.ts";
import { isMirrorOf, isMirrorPod, mirrorOf } from "./mirror-pods.ts";

/** Upstream looks every twenty seconds and listens in between; this only looks. */
const checkMs = 5_000;
/** Mirrors are made again at this pace when somebody deletes them. */
const mirrorMs = 10_000;
const maxFileBytes = 1024 * 1024;
const maxFiles = 200;

export interface StaticPodsDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly log: Logger;
  readonly nodeName: string;
  readonly folder: string;
  /** A pod has come, or another version of one has. */
  readonly start: (pod: Pod) => void;
  /** The file has gone or stands for another pod now. */
  readonly end: (uid: string) => void;
}

export class StaticPods {
  readonly #deps: StaticPodsDeps;
  /** By path. */
  readonly #files = new Map<string, { readonly identity: string; readonly pod: Pod | undefined }>();
  /** Mirrors as the API has them, by namespace/name. */
  readonly #mirrors = new Map<string, Pod>();
  #mirroredMs = Number.NEGATIVE_INFINITY;
  /** What was told already: it would be told every few seconds. By namespace/name, why the API does not take a mirror. */
  #hasTooMany = false;
  readonly #refusals = new Map<string, string>();

  constructor(deps: StaticPodsDeps) {
    this.#deps = deps;
  }

  /** Looks once: what is there runs before the API is asked for anything. */
  async open(): Promise<void> {
    await this.#look();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    while (!signal.aborted) {
      try {
        await this.#look();
        if (clock.monotonicMs() - this.#mirroredMs >= mirrorMs) await this.#mirror();
      } catch (error) {
        // The API may be away: static pods run all the same.
        log.debug("cannot bring static pods up to date, retrying", { error: messageOf(error) });
      }
      // Ends early only because the signal aborted.
      await pause(clock, checkMs, signal);
    }
  }

  /** A pod of the API that carries the mirror's mark. */
  saw(mirror: Pod, isGone: boolean): void {
    const key = `${mirror.metadata.namespace}/${mirror.metadata.name}`;
    if (isGone) {
      if (this.#mirrors.get(key)?.metadata.uid === mirror.metadata.uid) this.#mirrors.delete(key);
    } else this.#mirrors.set(key, mirror);
    this.#mirroredMs = Number.NEGATIVE_INFINITY;
  }

  /** Uid of the mirror that shows exactly this pod; undefined while there is none. */
  mirrorUid(pod: Pod): string | undefined {
    const mirror = this.#mirrors.get(`${pod.metadata.namespace}/${pod.metadata.name}`);
    return mirror && isMirrorOf(mirror, pod) && !mirror.metadata.deletionTimestamp ? mirror.metadata.uid : undefined;
  }

  async #look(): Promise<void> {
    const { folder, log, nodeName, clock } = this.#deps;
    const entries = (await listFolder(folder)).filter((e) => !e.name.startsWith(".") && !e.isDirectory());
    const names = entries.map((e) => `${folder}/${e.name}`).sort();
    const hasTooMany = names.length > maxFiles;
    if (hasTooMany && !this.#hasTooMany)
      log.warn("too many static pods; the rest is left out", { folder, files: names.length });
    this.#hasTooMany = hasTooMany;
    const present = new Set(names.slice(0, maxFiles));
    for (const [path, { pod }] of this.#files) {
      if (present.has(path)) continue;
      this.#files.delete(path);
      if (pod) this.#deps.end(pod.metadata.uid ?? "");
    }
    for (const path of present) {
      const facts = await fileFacts(path);
      if (!facts) continue;
      const identity = `${facts.identity} ${facts.modifiedMs} ${facts.sizeBytes}`;
      const known = this.#files.get(path);
      if (known?.identity === identity) continue;
      let pod: Pod | undefined;
      try {
        if (facts.sizeBytes > maxFileBytes) throw new Error(`it has more than ${maxFileBytes} bytes`);
        const text = (await readFileIfExists(path))?.toString("utf8") ?? "";
        const { staticPodOf } = await import("./static-pod-file.ts");
        pod = staticPodOf(text, path, nodeName, clock.now());
      } catch (error) {
        // What ran of it goes on until the file is right again or gone.
        log.warn("a static pod cannot be read", { path, error: messageOf(error) });
        this.#files.set(path, { identity, pod: known?.pod });
        continue;
      }
      this.#files.set(path, { identity, pod });
      if (known?.pod && known.pod.metadata.uid === pod.metadata.uid) continue;
      if (known?.pod) this.#deps.end(known.pod.metadata.uid ?? "");
      this.#deps.start(pod);
    }
  }

  /** Brings the API's copies in line with what the files say. */
  async #mirror(): Promise<void> {
    const { client, log, nodeName } = this.#deps;
    const wanted = new Map(
      [...this.#files.values()].flatMap(({ pod }) =>
        pod ? [[`${pod.metadata.namespace}/${pod.metadata.name}`, pod]] : [],
      ),
    ) as Map<string, Pod>;
    for (const [key, mirror] of this.#mirrors) {
      const pod = wanted.get(key);
      if (pod && isMirrorOf(mirror, pod) && !mirror.metadata.deletionTimestamp) continue;
      const { name = "", namespace, uid } = mirror.metadata;
      try {
        const preconditions = uid === undefined ? {} : { uid };
        await client.delete(pods, { name, namespace }, { gracePeriodSeconds: 0, preconditions });
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
      this.#mirrors.delete(key);
    }
    for (const key of this.#refusals.keys()) if (!wanted.has(key)) this.#refusals.delete(key);
    let node: Node | undefined;
    for (const [key, pod] of wanted) {
      if (this.#mirrors.has(key)) continue;
      node ??= await client.get(nodes, nodeName);
      try {
        this.#mirrors.set(key, await this.#createMirror(mirrorOf(pod, node.metadata.uid ?? "")));
        this.#refusals.delete(key);
      } catch (error) {
        // One that it refuses (a quota, a policy) must not keep the others away; the pod itself runs.
        if (!isApiError(error)) throw error;
        const why = messageOf(error);
        if (this.#refusals.get(key) !== why) log.warn("the API does not take a static pod's mirror", { pod: key, why });
        this.#refusals.set(key, why);
      }
    }
    this.#mirroredMs = this.#deps.clock.monotonicMs();
  }

  async #createMirror(mirror: Pod): Promise<Pod> {
    const { client } = this.#deps;
    try {
      return await client.create(pods, mirror);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const there = await client.get(pods, mirror.metadata.name ?? "", mirror.metadata.namespace);
      // Somebody else's pod of that name stays.
      if (!isMirrorPod(there)) throw error;
      return there;
    }
  }
}
