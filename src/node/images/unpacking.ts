// An image counts as unpacked once its files are on the disk. containerd records durably that it has an image, and leaves the
// files to the kernel, which takes half a minute: a power cut in between leaves images of empty files, and containerd
// believes in them for good. So a mark stands on the disk while images are unpacked and until their file system is flushed.
// Marks of an earlier boot name images that nobody can trust: they are removed at the start, and come again.
// Marks are bounded by pulls at once and shipped images.
import { createHash } from "node:crypto";
import type { Logger } from "#base/log.ts";
import { listFolder, makeFolder, readFileIfExists, syncFolder, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { createGrpcClient } from "#platform/grpc-client.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import type { Cri } from "../cri.ts";

export interface UnpackingOptions {
  /** Holds a file for each image that is not on the disk for sure; on a disk itself. */
  readonly folder: string;
  /** Any path of the file system that images are unpacked to. */
  readonly imagesFolder: string;
}

export interface UnpackingDeps {
  readonly commands: Commands;
  readonly log: Logger;
  readonly images: UntrustedImages;
}

export interface Unpacking {
  /** Runs what brings an image; when it resolves or fails, what it has unpacked is on the disk. */
  during<T>(reference: string, unpack: () => Promise<T>): Promise<T>;
  /** Once at a start, before anything is unpacked or run: takes away what a power cut has left half written. */
  recover(bootId: string): Promise<void>;
}

/** What is asked of containerd. */
export interface UntrustedImages {
  /** Undefined: containerd has none of this name. */
  idOf(reference: string): Promise<string | undefined>;
  remove(reference: string): Promise<void>;
  /** Layers of pulls that never ended are kept by their leases, a day long. Nobody pulls now, so all may go, layers too. */
  endLeases(): Promise<void>;
}

interface Mark {
  readonly reference: string;
  readonly bootId: string;
  /** What had the name before; while it still has, nothing has changed. */
  readonly before?: string | undefined;
}

/** One in this process, for all who unpack under one name at once. */
interface Marked {
  users: number;
  readonly stands: Promise<void>;
  /** While it is taken away: who comes now waits, and sets another. */
  gone?: Promise<void>;
}

/** Of marks; a name beside them is of a mark that was cut off itself, so nothing had begun. */
const markName = /^[0-9a-f]{32}$/;
/** Of a card that is slow and a page cache that is full. */
const flushMs = 5 * 60_000;

export function createUnpacking(options: UnpackingOptions, deps: UnpackingDeps): Unpacking {
  const { folder } = options;
  const { images } = deps;
  const marks = new Map<string, Marked>();
  let bootId = "";
  const flush = () => runChecked(deps.commands, "sync", ["-f", options.imagesFolder], { timeoutMs: flushMs });
  const path = (reference: string) => `${folder}/${createHash("sha256").update(reference).digest("hex").slice(0, 32)}`;
  const unmark = async (file: string) => {
    await removeFile(file);
    // Else the mark is there again after a power cut, and takes a good image away.
    await syncFolder(folder);
  };

  async function mark(reference: string): Promise<void> {
    const content: Mark = { reference, bootId, before: await images.idOf(reference) };
    await makeFolder(folder, 0o700);
    await writeFileDurable(path(reference), JSON.stringify(content), 0o600);
  }

  async function begin(reference: string): Promise<Marked> {
    for (let last = marks.get(reference); last?.gone; last = marks.get(reference)) await last.gone;
    const marked = marks.get(reference) ?? { users: 0, stands: mark(reference) };
    marks.set(reference, marked);
    marked.users++;
    try {
      await marked.stands;
    } catch (error) {
      // As on a full disk; the next try sets its own.
      marks.delete(reference);
      throw error;
    }
    return marked;
  }

  /** After a flush that failed the mark stays, and whoever comes next shares it: it knows what was before. */
  async function end(reference: string, marked: Marked, isFlushed: boolean): Promise<void> {
    if (--marked.users > 0 || !isFlushed) return;
    marked.gone = unmark(path(reference)).finally(() => marks.delete(reference));
    await marked.gone;
  }

  return {
    async during(reference, unpack) {
      const marked = await begin(reference);
      let isFlushed = false;
      try {
        return await unpack();
      } finally {
        try {
          await flush();
          isFlushed = true;
        } finally {
          await end(reference, marked, isFlushed);
        }
      }
    },
    async recover(current) {
      bootId = current;
      const names = (await listFolder(folder)).map(({ name }) => name);
      if (names.length === 0) return;
      let isAnyLost = false;
      for (const name of names.filter((name) => markName.test(name))) {
        const mark = await readMark(`${folder}/${name}`);
        if (mark?.bootId === current) continue;
        isAnyLost = true;
        if (mark === undefined) {
          deps.log.warn("a mark of an image cannot be read: the image may be half written", { name });
          continue;
        }
        const { reference, before } = mark;
        if (before !== undefined && before === (await images.idOf(reference))) continue;
        deps.log.warn("an image may be half written, as the machine went down meanwhile: removed", { reference });
        await images.remove(reference);
      }
      if (isAnyLost) await images.endLeases();
      // Those of this boot are whole in memory, though this process was killed.
      await flush();
      for (const name of names) await unmark(`${folder}/${name}`);
    },
  };
}

/** Undefined: it is no mark of ours any more, as on a card that goes bad. */
async function readMark(file: string): Promise<Mark | undefined> {
  const text = (await readFileIfExists(file))?.toString("utf8") ?? "";
  try {
    return JSON.parse(text) as Mark;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Pulls that are on the disk when they are done. */
export const settledPulls = (cri: Cri, unpacking: Unpacking): Cri => ({
  ...cri,
  pullImage: (image, auth, signal) => unpacking.during(image, () => cri.pullImage(image, auth, signal)),
});

/** Of containerd.services.leases.v1, as far as it is used. */
const leasesService = "/containerd.services.leases.v1.Leases";
const leasesTable = `ListRequest
 filters 1 []string
ListResponse
 leases 1 []Lease
Lease
 id 1 string
DeleteRequest
 id 1 string
 sync 2 bool
`;
const questionMs = 20_000;
/** The last one waits for layers to be removed. */
const collectMs = 5 * 60_000;

export function untrustedImages(socketPath: string, cri: Pick<Cri, "imageStatus" | "removeImage">): UntrustedImages {
  return {
    idOf: async (reference) => (await cri.imageStatus(reference))?.id,
    remove: (reference) => cri.removeImage(reference),
    async endLeases() {
      const codec = createWireCodec(leasesTable);
      const grpc = createGrpcClient({ target: { socketPath }, headers: { "containerd-namespace": "k8s.io" } });
      const call = (method: string, bytes: Uint8Array, timeoutMs: number) =>
        grpc.unary(`${leasesService}/${method}`, bytes, { timeoutMs });
      try {
        const listed = await call("List", codec.encode("ListRequest", {}), questionMs);
        const { leases } = codec.decode<{ readonly leases: readonly { readonly id: string }[] }>(
          "ListResponse",
          listed,
        );
        for (const [index, { id }] of leases.entries()) {
          const sync = index === leases.length - 1;
          await call("Delete", codec.encode("DeleteRequest", { id, sync }), collectMs);
        }
      } finally {
        grpc.close();
      }
    },
  };
}
