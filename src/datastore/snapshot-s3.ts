// Snapshots in an S3-compatible bucket, beside the local ones: upload, list, retention, delete, download. Objects are
// `FOLDER/NAME-NODE-SECONDS`, so that several clusters can share a bucket.
import { removeFile, renamePath } from "#platform/folders.ts";
import { datastoreError } from "./errors.ts";
import type { S3Settings } from "./s3-settings.ts";
import { S3Client, type S3Deps, type S3Limits } from "./snapshot/s3-client.ts";
import { beyondRetention, createdMsOf, isSnapshotName, type Snapshot } from "./snapshot.ts";

export interface SnapshotBucket {
  /** Removes the oldest beyond its retention too. */
  upload(
    snapshot: Snapshot,
    owner: { readonly name: string; readonly node: string },
    signal?: AbortSignal,
  ): Promise<Snapshot>;
  /** Oldest first. */
  list(): Promise<Snapshot[]>;
  prune(options: { readonly name: string; readonly node: string; readonly retention?: number }): Promise<Snapshot[]>;
  remove(name: string): Promise<void>;
  /** To `folder`/`name`, which appears when it is whole. Returns its path. */
  download(name: string, folder: string): Promise<string>;
  close(): void;
}

export function openSnapshotBucket(settings: S3Settings, deps: S3Deps, limits?: S3Limits): SnapshotBucket {
  const client = new S3Client(settings, deps, limits);
  const prefix = settings.folder === "" ? "" : `${settings.folder}/`;
  const located = (name: string) => `s3://${settings.bucket}/${prefix}${name}`;
  const list = async (): Promise<Snapshot[]> => {
    const objects = await client.list(prefix);
    return objects
      .map(({ key, sizeBytes }) => ({ name: key.slice(prefix.length), sizeBytes }))
      .filter(({ name }) => isSnapshotName(name))
      .map(({ name, sizeBytes }) => ({ name, path: located(name), sizeBytes, createdMs: createdMsOf(name) }))
      .sort((a, b) => a.createdMs - b.createdMs || (a.name < b.name ? -1 : 1));
  };
  const prune: SnapshotBucket["prune"] = async ({ retention = settings.retention, ...owner }) => {
    const doomed = beyondRetention(await list(), { ...owner, retention });
    for (const { name } of doomed) await client.remove(`${prefix}${name}`);
    return doomed;
  };
  return {
    list,
    prune,
    close: () => client.close(),
    async upload({ name, path, sizeBytes, createdMs }, owner, signal) {
      await client.put(path, `${prefix}${name}`, signal);
      deps.log.info("snapshot uploaded", { name, bucket: settings.bucket });
      await prune(owner);
      return { name, path: located(name), sizeBytes, createdMs };
    },
    remove: (name) => client.remove(`${prefix}${name}`),
    async download(name, folder) {
      if (!isSnapshotName(name)) throw datastoreError("DATASTORE_BAD_REQUEST", `"${name}" is no name of a snapshot`);
      const path = `${folder}/${name}`;
      try {
        await client.get(`${prefix}${name}`, `${path}.tmp`);
        await renamePath(`${path}.tmp`, path);
      } finally {
        await removeFile(`${path}.tmp`);
      }
      return path;
    },
  };
}
