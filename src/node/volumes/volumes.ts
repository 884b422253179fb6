// Makes a pod's volumes on the host and says where each lies. Idempotent: called before every container start and every
// minute after, which is how changed config maps and fresh tokens arrive. Everything that comes from the API lies on one
// tmpfs, so that secrets never reach flash and refreshes wear nothing out. Counterpart: the kubelet's volume manager and
// its in-tree plugins for these kinds.
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import type { KeyToPath, Pod, Volume, VolumeProjection } from "#model/gen/core-v1.ts";
import { listFolder, makeFolder } from "#platform/files.ts";
import { linkTarget, removeTree } from "#platform/folders.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { ConfigError, type FieldContext, podField, resourceField } from "../pods/env.ts";
import { type Payload, type PayloadFile, writeAtomically } from "./atomic-writer.ts";
import { ensureEmptyDir } from "./empty-dir.ts";
import { ensureHostPath } from "./host-path.ts";
import { hasMounts, isMounted, unmountAll } from "./mount-points.ts";
import type { PodObjects } from "./objects.ts";
import type { PersistentVolumes } from "./persistent.ts";
import { bindSubPath, type SubPathRequest } from "./sub-path.ts";
import type { PodTokens } from "./tokens.ts";
import { VolumeError } from "./volume-error.ts";

export interface VolumesOptions {
  /** `<data>/agent/pods`: emptyDirs and files of pods. */
  readonly podsFolder: string;
  /** Mount point of the tmpfs for what comes from the API. */
  readonly memoryFolder: string;
  readonly capacity: { readonly milliCpu: number; readonly memoryBytes: number };
}

export interface VolumesDeps {
  readonly objects: PodObjects;
  readonly tokens: PodTokens;
  readonly clock: Clock;
  readonly commands: Commands;
  readonly persistent: PersistentVolumes;
}

/** Enough for a node full of pods with tokens, CAs and 1 MiB config maps; only what is used is taken. */
const memorySizeMib = 64;
const defaultFileMode = 0o644;

export class Volumes {
  readonly #options: VolumesOptions;
  readonly #deps: VolumesDeps;
  #version = 0;

  constructor(options: VolumesOptions, deps: VolumesDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Mounts the shared tmpfs unless an earlier run left it mounted. */
  async open(): Promise<void> {
    await makeFolder(this.#options.podsFolder, 0o750);
    await this.#deps.persistent.open();
    await makeFolder(this.#options.memoryFolder, 0o755);
    if (await isMounted(this.#options.memoryFolder)) return;
    const options = `size=${memorySizeMib}m,mode=0755,nosuid,nodev`;
    await runChecked(this.#deps.commands, "mount", ["-t", "tmpfs", "-o", options, "tmpfs", this.#options.memoryFolder]);
  }

  podFolder(podUid: string): string {
    return `${this.#options.podsFolder}/${podUid}`;
  }

  /** Host path of every volume of the pod. */
  async ensure(pod: Pod, context: FieldContext): Promise<Map<string, string>> {
    const paths = new Map<string, string>();
    for (const volume of pod.spec.volumes ?? []) {
      try {
        paths.set(volume.name, await this.#ensureOne(pod, volume, context));
      } catch (error) {
        if (error instanceof ConfigError || (error instanceof AppError && error.code === "NODE_VOLUME_PATH")) {
          throw new VolumeError(`MountVolume.SetUp failed for volume "${volume.name}" : ${error.message}`);
        }
        throw error;
      }
    }
    return paths;
  }

  /** A part of a volume at a place of the pod's own. */
  bindSubPath(request: SubPathRequest): Promise<string> {
    return bindSubPath(request, this.#deps.commands);
  }

  /** Everything of a deleted pod: its volumes and the files of its containers. */
  async remove(podUid: string): Promise<void> {
    const hasMounts = await this.#unmountVolumes(podUid);
    // Nothing may be mounted in what is deleted with all that is in it.
    if (hasMounts) await unmountAll(this.podFolder(podUid), this.#deps.commands);
    await removeTree(this.podFolder(podUid));
    await this.#forgetMemory(podUid);
  }

  /** Unmounts and removes the volumes of a pod that has ended; termination messages stay. */
  async removeVolumes(podUid: string): Promise<void> {
    await this.#unmountVolumes(podUid);
    await removeTree(`${this.podFolder(podUid)}/volume-subpaths`);
    await removeTree(`${this.podFolder(podUid)}/volumes`);
    await this.#forgetMemory(podUid);
  }

  /** False where nothing was mounted for the pod. Most have nothing, and the table of a full node is long. */
  async #unmountVolumes(podUid: string): Promise<boolean> {
    const { commands, persistent } = this.#deps;
    const folder = this.podFolder(podUid);
    const wasMounted = await hasMounts(folder);
    if (wasMounted) await unmountAll(`${folder}/volume-subpaths`, commands);
    await persistent.release(podUid);
    if (wasMounted) await unmountAll(`${folder}/volumes`, commands);
    return wasMounted;
  }

  async #forgetMemory(podUid: string): Promise<void> {
    await removeTree(`${this.#options.memoryFolder}/${podUid}`);
    this.#deps.tokens.forget(podUid);
  }

  /** Uids of pods that have a folder here. */
  async leftovers(): Promise<string[]> {
    const both = [...(await listFolder(this.#options.podsFolder)), ...(await listFolder(this.#options.memoryFolder))];
    return [...new Set(both.filter((e) => e.isDirectory() && !e.name.startsWith(".")).map((e) => e.name))];
  }

  async #ensureOne(pod: Pod, volume: Volume, context: FieldContext): Promise<string> {
    const uid = pod.metadata.uid ?? "";
    if (volume.hostPath) return ensureHostPath(volume.hostPath.path, volume.hostPath.type ?? "");
    if (volume.emptyDir) {
      const folder = `${this.podFolder(uid)}/volumes/kubernetes.io~empty-dir/${volume.name}`;
      const { commands } = this.#deps;
      return ensureEmptyDir(folder, pod, volume, { commands, allocatableBytes: this.#options.capacity.memoryBytes });
    }
    const persistent = await this.#deps.persistent.ensure(pod, volume);
    if (persistent !== undefined) return persistent;
    const folder = `${this.#options.memoryFolder}/${uid}/${volume.name}`;
    let payload: Payload | undefined;
    try {
      payload = await this.#payload(pod, volume, context);
    } catch (error) {
      // What was set up once stays as it was while the API is away or its source was deleted: the pod keeps running.
      if (await linkTarget(`${folder}/..data`)) return folder;
      throw error;
    }
    if (payload === undefined) {
      throw new VolumeError(
        `MountVolume.SetUp failed for volume "${volume.name}" : this kind of volume is not supported`,
      );
    }
    const stamp = new Date(this.#deps.clock.now()).toISOString().slice(0, 19).replace(/[-T:]/g, "_");
    this.#version++;
    await writeAtomically(folder, payload, `${stamp}.${String(this.#version).padStart(9, "0")}`);
    return folder;
  }

  async #payload(pod: Pod, volume: Volume, context: FieldContext): Promise<Payload | undefined> {
    const mode = (given: number | undefined) => given ?? defaultFileMode;
    if (volume.configMap) {
      return this.#configMap(pod, volume.configMap.name ?? "", volume.configMap, mode(volume.configMap.defaultMode));
    }
    if (volume.secret) {
      const { secretName, ...rest } = volume.secret;
      return this.#secret(pod, secretName ?? "", rest, mode(volume.secret.defaultMode));
    }
    if (volume.downwardAPI) {
      return this.#downward(pod, volume.downwardAPI.items ?? [], mode(volume.downwardAPI.defaultMode), context);
    }
    if (volume.projected) {
      const merged = new Map<string, PayloadFile>();
      for (const source of volume.projected.sources ?? []) {
        const part = await this.#projection(pod, source, mode(volume.projected.defaultMode), context);
        for (const [path, file] of part) merged.set(path, file);
      }
      return merged;
    }
    return undefined;
  }

  async #projection(pod: Pod, source: VolumeProjection, mode: number, context: FieldContext): Promise<Payload> {
    if (source.configMap) return this.#configMap(pod, source.configMap.name ?? "", source.configMap, mode);
    if (source.secret) return this.#secret(pod, source.secret.name ?? "", source.secret, mode);
    if (source.downwardAPI) return this.#downward(pod, source.downwardAPI.items ?? [], mode, context);
    if (source.serviceAccountToken) {
      const { audience, path, expirationSeconds } = source.serviceAccountToken;
      const token = await this.#deps.tokens.get(pod, { audience, expirationSeconds: expirationSeconds ?? 3600 });
      return new Map([[path, { data: Buffer.from(token), ...tokenAccess(pod, mode) }]]);
    }
    throw new ConfigError("this kind of projected source is not supported");
  }

  async #configMap(
    pod: Pod,
    name: string,
    how: { items?: KeyToPath[] | undefined; optional?: boolean | undefined },
    mode: number,
  ): Promise<Payload> {
    const namespace = pod.metadata.namespace ?? "";
    const found = await this.#deps.objects.configMap(namespace, name);
    if (!found && !how.optional) throw new ConfigError(`configmap "${name}" not found`);
    const data = new Map<string, Uint8Array>();
    for (const [key, text] of Object.entries(found?.data ?? {})) data.set(key, Buffer.from(text));
    for (const [key, base64] of Object.entries(found?.binaryData ?? {}))
      data.set(key, Buffer.from(base64 as string, "base64"));
    return pick(pod, data, how, mode, "references non-existent config key");
  }

  async #secret(
    pod: Pod,
    name: string,
    how: { items?: KeyToPath[] | undefined; optional?: boolean | undefined },
    mode: number,
  ): Promise<Payload> {
    const found = await this.#deps.objects.secret(pod.metadata.namespace ?? "", name);
    if (!found && !how.optional) throw new ConfigError(`secret "${name}" not found`);
    const data = new Map<string, Uint8Array>();
    for (const [key, base64] of Object.entries(found?.data ?? {}))
      data.set(key, Buffer.from(base64 as string, "base64"));
    return pick(pod, data, how, mode, "references non-existent secret key");
  }

  #downward(
    pod: Pod,
    items: NonNullable<NonNullable<Volume["downwardAPI"]>["items"]>,
    mode: number,
    context: FieldContext,
  ): Payload {
    const payload = new Map<string, PayloadFile>();
    for (const item of items) {
      let text = "";
      if (item.fieldRef) text = podField(pod, item.fieldRef.fieldPath, context);
      else if (item.resourceFieldRef) {
        const { containerName, resource, divisor } = item.resourceFieldRef;
        const container = [...(pod.spec.containers ?? []), ...(pod.spec.initContainers ?? [])].find(
          (c) => c.name === containerName,
        );
        if (!container) throw new ConfigError(`container "${containerName}" not found`);
        text = resourceField(container, resource, divisor, this.#options.capacity);
      }
      payload.set(item.path, { data: Buffer.from(text), ...access(pod, item.mode ?? mode) });
    }
    return payload;
  }
}

function pick(
  pod: Pod,
  data: ReadonlyMap<string, Uint8Array>,
  how: { items?: KeyToPath[] | undefined; optional?: boolean | undefined },
  mode: number,
  missing: string,
): Payload {
  const payload = new Map<string, PayloadFile>();
  if (!how.items || how.items.length === 0) {
    for (const [key, bytes] of data) payload.set(key, { data: bytes, ...access(pod, mode) });
    return payload;
  }
  for (const item of how.items) {
    const bytes = data.get(item.key);
    if (bytes === undefined) {
      if (how.optional) continue;
      throw new ConfigError(`${missing}: ${item.key}`);
    }
    payload.set(item.path, { data: bytes, ...access(pod, item.mode ?? mode) });
  }
  return payload;
}

/** With fsGroup the group owns the files and may read them. */
function access(pod: Pod, mode: number): Pick<PayloadFile, "mode" | "gid"> {
  const group = pod.spec.securityContext?.fsGroup;
  return group === undefined ? { mode } : { mode: mode | 0o440, gid: group };
}

/** A token is readable by the one who needs it only: by group with fsGroup, by owner when all containers run as one user. */
function tokenAccess(pod: Pod, mode: number): Pick<PayloadFile, "mode" | "gid" | "uid"> {
  const ofPod = pod.spec.securityContext ?? {};
  if (ofPod.fsGroup !== undefined) return { mode: 0o640, gid: ofPod.fsGroup };
  const users = new Set(
    [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])].map(
      (c) => c.securityContext?.runAsUser ?? ofPod.runAsUser,
    ),
  );
  const [only] = users;
  return users.size === 1 && only !== undefined ? { mode: 0o600, uid: only } : { mode };
}
