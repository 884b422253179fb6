// Brings the images that ship with mote into containerd, so that a node without a registry can start pods.
// Invariant: after it, every shipped reference names exactly the shipped digest; what is already right is not touched,
// so a restart costs one `ctr images ls`. Imported images carry containerd's pinned label, which keeps image garbage
// collection away from them (known from containerd 1.7 on; older ones ignore it, and mote's own collector asks here).
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { listFolder } from "#platform/files.ts";
import { openForReading } from "#platform/open-file.ts";
import { type Commands, runChecked } from "#platform/processes.ts";

export interface EnsureImagesOptions {
  readonly containerdSocket: string;
  /** Holds `NAME-ARCH.tar`, as scripts/build/images.ts writes them. */
  readonly folder: string;
  /** GOARCH name, as in the file names. */
  readonly architecture: "amd64" | "arm64" | "arm";
  /** Default: containerd's ctr on the PATH. */
  readonly ctr?: string;
}

export interface EnsureImagesDeps {
  readonly commands: Commands;
  readonly log: Logger;
}

export interface ShippedImage {
  readonly reference: string;
  readonly digest: string;
  readonly path: string;
  /** False when containerd had it already. */
  readonly imported: boolean;
}

/** The containerd namespace that the CRI plugin works in. */
const namespace = "k8s.io";
const pinnedLabel = "io.cri-containerd.pinned=pinned";
/** Unpacking on a slow card; a healthy board needs seconds. */
const importTimeoutMs = 5 * 60_000;
/** index.json is the first entry and a few hundred bytes. */
const maxIndexBytes = 64 * 1024;

export async function ensureImages(options: EnsureImagesOptions, deps: EnsureImagesDeps): Promise<ShippedImage[]> {
  const ctr = (args: readonly string[], timeoutMs?: number) =>
    runChecked(deps.commands, options.ctr ?? "ctr", ["--address", options.containerdSocket, "-n", namespace, ...args], {
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  const suffix = `-${options.architecture}.tar`;
  const names = (await listFolder(options.folder)).map((entry) => entry.name).filter((name) => name.endsWith(suffix));
  if (names.length === 0) {
    throw new AppError("NODE_IMAGES_MISSING", `${options.folder} holds no images for ${options.architecture}`, {
      folder: options.folder,
    });
  }
  const present = parseImageList(await ctr(["images", "ls"]));
  const shipped: ShippedImage[] = [];
  for (const name of names.sort()) {
    const path = `${options.folder}/${name}`;
    const { reference, digest } = await readArchiveIndex(path);
    const imported = present.get(reference) !== digest;
    if (imported) {
      await ctr(["images", "import", path], importTimeoutMs);
      await ctr(["images", "label", reference, pinnedLabel]);
      deps.log.info("image imported", { reference, digest });
    }
    shipped.push({ reference, digest, path, imported });
  }
  return shipped;
}

/**
 * Reference to digest, from the table of `ctr images ls` (REF TYPE DIGEST SIZE PLATFORMS LABELS). Images without the
 * label are left out: a kill between import and label must not leave one unprotected for good.
 */
export function parseImageList(table: string): Map<string, string> {
  const images = new Map<string, string>();
  for (const line of table.split("\n").slice(1)) {
    const [reference, , digest] = line.split(/\s+/);
    if (reference && digest?.startsWith("sha256:") && line.includes(pinnedLabel)) images.set(reference, digest);
  }
  return images;
}

/** What an archive of ours holds, from its first entry; reads a block or two, whatever the size of the archive. */
export async function readArchiveIndex(path: string): Promise<{ reference: string; digest: string }> {
  const fail = (why: string, cause?: unknown) =>
    new AppError("NODE_IMAGE_ARCHIVE", `${path} is no image archive of mote: ${why}`, { path }, { cause });
  const file = await openForReading(path);
  if (!file) throw fail("it does not exist");
  try {
    const header = await file.read(0, 512);
    const name = header.toString("latin1", 0, 100).split("\0")[0];
    const sizeBytes = Number.parseInt(header.toString("latin1", 124, 135), 8);
    if (name !== "index.json") throw fail("index.json is not its first entry");
    if (!(sizeBytes > 0 && sizeBytes <= maxIndexBytes)) throw fail(`index.json has ${sizeBytes} bytes`);
    const index = JSON.parse((await file.read(512, sizeBytes)).toString("utf8")) as {
      manifests?: { digest?: string; annotations?: Record<string, string> }[];
    };
    const manifest = index.manifests?.[0];
    const reference = manifest?.annotations?.["io.containerd.image.name"];
    if (!manifest?.digest || !reference) throw fail("its index names no image");
    return { reference, digest: manifest.digest };
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw fail(messageOf(error), error);
  } finally {
    await file.close();
  }
}
