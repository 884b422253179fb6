// Brings the images that ship with mote into containerd, so that a node without a registry can start pods.
// Invariant: after it, every shipped reference names exactly the shipped digest; what is already right is not touched,
// so a restart costs one question. `ctr` only imports: it is 27 MB to read, seconds on a small board. Imported images carry containerd's pinned label, which keeps image garbage
// collection away from them (known from containerd 1.7 on; older ones ignore it, and mote's own collector asks here).
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { listFolder } from "#platform/files.ts";
import { createGrpcClient } from "#platform/grpc-client.ts";
import { openForReading } from "#platform/open-file.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import type { Unpacking } from "./images/unpacking.ts";

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
  /** Default: containerd's image service. */
  readonly store?: ImageStore;
  readonly unpacking: Pick<Unpacking, "during">;
}

/** What is asked of containerd itself. */
export interface ImageStore {
  /**
   * Reference to digest. Images without the label are left out: a kill between import and label must not leave one
   * unprotected for good.
   */
  pinned(): Promise<ReadonlyMap<string, string>>;
  pin(reference: string, digest: string): Promise<void>;
  close(): void;
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
const pinnedLabel = "io.cri-containerd.pinned";
const questionMs = 20_000;
/** Of containerd.services.images.v1, as far as it is used. */
const imagesService = "/containerd.services.images.v1.Images";
const imagesTable = `ListRequest
 filters 1 []string
ListResponse
 images 1 []Image
Image
 name 1 string
 labels 2 {}string
 target 3 Descriptor
Descriptor
 mediaType 1 string
 digest 2 string
UpdateRequest
 image 1 Image
 updateMask 2 FieldMask
FieldMask
 paths 1 []string
`;
interface ListedImage {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly target?: { readonly digest: string };
}
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
  const store = deps.store ?? containerdStore(options.containerdSocket);
  try {
    const present = await store.pinned();
    const shipped: ShippedImage[] = [];
    for (const name of names.sort()) {
      const path = `${options.folder}/${name}`;
      const { reference, digest } = await readArchiveIndex(path);
      const imported = present.get(reference) !== digest;
      if (imported) {
        await deps.unpacking.during(reference, () => ctr(["images", "import", path], importTimeoutMs));
        await store.pin(reference, digest);
        deps.log.info("image imported", { reference, digest });
      }
      shipped.push({ reference, digest, path, imported });
    }
    return shipped;
  } finally {
    store.close();
  }
}

function containerdStore(socketPath: string): ImageStore {
  const codec = createWireCodec(imagesTable);
  const grpc = createGrpcClient({ target: { socketPath }, headers: { "containerd-namespace": namespace } });
  const call = (method: string, bytes: Uint8Array) =>
    grpc.unary(`${imagesService}/${method}`, bytes, { timeoutMs: questionMs });
  return {
    async pinned() {
      const bytes = await call("List", codec.encode("ListRequest", {}));
      const { images } = codec.decode<{ readonly images: readonly ListedImage[] }>("ListResponse", bytes);
      const ours = images.filter((image) => image.labels[pinnedLabel] === "pinned" && image.target);
      return new Map(ours.map((image) => [image.name, image.target!.digest]));
    },
    async pin(reference, digest) {
      const request = {
        // The mask leaves the target alone; without one containerd 1.7 ends with a nil pointer.
        image: { name: reference, labels: { [pinnedLabel]: "pinned" }, target: { digest } },
        updateMask: { paths: [`labels.${pinnedLabel}`] },
      };
      await call("Update", codec.encode("UpdateRequest", request));
    },
    close: () => grpc.close(),
  };
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
