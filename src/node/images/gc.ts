// Removes images nobody uses when their file system fills up: least recently used first, until the low threshold. What a
// container refers to, what is younger than the minimum age, and what belongs to the system (shipped with mote, pinned, the
// pause image) stays. Uses are remembered in memory: after a restart everything counts as just seen.
// Counterpart: pkg/kubelet/images/image_gc_manager.go.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { fileSystemSize } from "#platform/folders.ts";
import type { Image } from "#wire/gen/cri.ts";
import type { NodeConfiguration } from "../configuration.ts";
import type { Cri } from "../cri.ts";
import { quantityText } from "../eviction/ranking.ts";

export interface ImageRecord {
  readonly id: string;
  readonly sizeBytes: number;
  readonly detectedMs: number;
  readonly lastUsedMs: number;
  readonly isUsed: boolean;
  readonly isSystem: boolean;
}

/** Which images to remove to free `wantedBytes`, in order. Pure. */
export function planImageGc(
  images: readonly ImageRecord[],
  wantedBytes: number,
  nowMs: number,
  minAgeMs: number,
): readonly ImageRecord[] {
  const removable = images.filter((i) => !i.isUsed && !i.isSystem && nowMs - i.detectedMs >= minAgeMs);
  const ordered = [...removable].sort((a, b) => a.lastUsedMs - b.lastUsedMs || a.detectedMs - b.detectedMs);
  const out: ImageRecord[] = [];
  let freed = 0;
  for (const image of ordered) {
    if (freed >= wantedBytes) break;
    out.push(image);
    freed += image.sizeBytes;
  }
  return out;
}

/** Bytes to free so that use falls to the low threshold; 0 while it is below the high one. Pure. */
export function bytesToFree(
  disk: { readonly totalBytes: number; readonly freeBytes: number },
  highPercent: number,
  lowPercent: number,
): number {
  if (disk.totalBytes === 0 || highPercent >= 100) return 0;
  const usedPercent = 100 - Math.floor((disk.freeBytes * 100) / disk.totalBytes);
  if (usedPercent < highPercent) return 0;
  return Math.max(0, Math.floor((disk.totalBytes * (100 - lowPercent)) / 100) - disk.freeBytes);
}

export interface ImageGcDeps {
  readonly cri: Cri;
  readonly clock: Clock;
  readonly log: Logger;
  readonly configuration: NodeConfiguration;
  readonly imageFolder: string;
  readonly pauseImage: string;
  readonly warn: (reason: string, message: string) => void;
}

/** Registry name of what mote ships. */
const systemRegistry = "mote.local/";
const checkMs = 5 * 60_000;
const maxTries = 1000;

export class ImageCollector {
  readonly #deps: ImageGcDeps;
  readonly #seen = new Map<string, { detectedMs: number; lastUsedMs: number }>();

  constructor(deps: ImageGcDeps) {
    this.#deps = deps;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log, configuration, imageFolder } = this.#deps;
    while (!signal.aborted) {
      // Ends early only because the signal aborted.
      await pause(clock, checkMs, signal);
      if (signal.aborted) return;
      try {
        const { imageGcHighThresholdPercent: high, imageGcLowThresholdPercent: low } = configuration;
        const wanted = bytesToFree(await fileSystemSize(imageFolder), high, low);
        await this.#removeOld();
        if (wanted > 0) await this.free(wanted);
        else await this.#records();
      } catch (error) {
        log.warn("image garbage collection failed, retrying", { error: messageOf(error) });
      }
    }
  }

  /** Every image that may go; when the disk is short whatever the thresholds say. */
  async freeAll(): Promise<void> {
    await this.#remove(planImageGc(await this.#records(), Number.POSITIVE_INFINITY, this.#nowMs(), 0));
  }

  async free(wantedBytes: number): Promise<void> {
    const { configuration, warn } = this.#deps;
    const plan = planImageGc(await this.#records(), wantedBytes, this.#nowMs(), configuration.imageMinimumGcAgeMs);
    const freed = await this.#remove(plan);
    if (freed >= wantedBytes) return;
    const [tried, found] = [quantityText(wantedBytes, "memory"), quantityText(freed, "memory")];
    warn(
      "FreeDiskSpaceFailed",
      `Failed to garbage collect required amount of images. Attempted to free ${tried}, but only found ${found} eligible to free.`,
    );
  }

  #nowMs(): number {
    return this.#deps.clock.monotonicMs();
  }

  async #removeOld(): Promise<void> {
    const { imageMaximumGcAgeMs: maxAgeMs } = this.#deps.configuration;
    if (maxAgeMs === 0) return;
    const nowMs = this.#nowMs();
    const old = (await this.#records()).filter((i) => !i.isUsed && !i.isSystem && nowMs - i.lastUsedMs >= maxAgeMs);
    await this.#remove(old);
  }

  async #remove(images: readonly ImageRecord[]): Promise<number> {
    const { cri, log } = this.#deps;
    let freed = 0;
    for (const image of images.slice(0, maxTries)) {
      try {
        await cri.removeImage(image.id);
        this.#seen.delete(image.id);
        freed += image.sizeBytes;
        log.info("removed an unused image", { image: image.id, bytes: image.sizeBytes });
      } catch (error) {
        // Somebody began to use it: the others may still go.
        log.warn("cannot remove an image", { image: image.id, error: messageOf(error) });
      }
    }
    return freed;
  }

  async #records(): Promise<readonly ImageRecord[]> {
    const { cri, pauseImage } = this.#deps;
    const nowMs = this.#nowMs();
    const [images, containers] = await Promise.all([cri.listImages(), cri.listContainers()]);
    const used = new Set(containers.flatMap((c) => [c.imageRef, c.imageId, c.image?.image ?? ""]));
    const isUsed = (i: Image) => [i.id, ...i.repoTags, ...i.repoDigests].some((name) => used.has(name));
    const isSystem = (i: Image) =>
      i.pinned ||
      [...i.repoTags, ...i.repoDigests].some((name) => name.startsWith(systemRegistry) || name === pauseImage);
    for (const id of this.#seen.keys()) if (!images.some((i) => i.id === id)) this.#seen.delete(id);
    return images.map((image) => {
      const known = this.#seen.get(image.id) ?? { detectedMs: nowMs, lastUsedMs: nowMs };
      const inUse = isUsed(image);
      if (inUse) known.lastUsedMs = nowMs;
      this.#seen.set(image.id, known);
      return { id: image.id, sizeBytes: Number(image.size), ...known, isUsed: inUse, isSystem: isSystem(image) };
    });
  }
}
