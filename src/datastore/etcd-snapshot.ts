// The image that Maintenance.Snapshot sends: a snapshot like any other (snapshot.ts), taken into a folder of its own and
// removed when it has been sent. What etcdctl saves of it has a SHA-256 behind it, which `mote snapshot restore` skips.

import { removeTree } from "#platform/folders.ts";
import { openForReading } from "#platform/open-file.ts";
import { datastoreError } from "./errors.ts";
import type { SnapshotSource } from "./etcd-face.ts";
import { type SnapshotDeps, saveSnapshot } from "./snapshot.ts";
import type { Datastore } from "./store.ts";

const chunkBytes = 64 * 1024;

/** `folder`: where there is room for one more copy; two snapshots at a time have one each. */
export function etcdSnapshots(store: Datastore, folder: string, deps: SnapshotDeps): () => Promise<SnapshotSource> {
  let count = 0;
  return async () => {
    const own = `${folder}/etcd-snapshot-${++count}`;
    try {
      // What a killed process left.
      await removeTree(own);
      const options = { folder: own, name: "etcd", node: "face", compress: false };
      const { path, sizeBytes } = await saveSnapshot(store, options, deps);
      return { sizeBytes, chunks: readAndRemove(path, own) };
    } catch (error) {
      await removeTree(own);
      throw error;
    }
  };
}

async function* readAndRemove(path: string, folder: string): AsyncGenerator<Uint8Array> {
  const file = await openForReading(path);
  try {
    if (!file) throw datastoreError("DATASTORE_CORRUPT", "the snapshot has gone while it was read");
    for (let offset = 0; ; ) {
      const chunk = await file.read(offset, chunkBytes);
      if (chunk.length === 0) return;
      offset += chunk.length;
      yield chunk;
    }
  } finally {
    await file?.close();
    await removeTree(folder);
  }
}
