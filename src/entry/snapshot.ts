// `mote snapshot save|ls|prune|delete|verify|restore`: through the server of the data folder where it must be, else on
// the files; with --s3 in the bucket too. Counterpart: k3s etcd-snapshot, and k3s server --cluster-reset-restore-path.

import { silentLogger } from "#base/log.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { snapshotUsage } from "#cli/snapshot-flags.ts";
import { columns } from "#cli/table.ts";
import { verbError } from "#cli/verbs.ts";
import { isEtcdEndpoint } from "#datastore/etcd-endpoints.ts";
import { openDatastore } from "#datastore/open.ts";
import type { S3Settings } from "#datastore/s3-settings.ts";
import {
  listSnapshots,
  pruneSnapshots,
  restoreSnapshot,
  type Snapshot,
  saveSnapshot,
  verifySnapshot,
} from "#datastore/snapshot.ts";
import { openSnapshotBucket, type SnapshotBucket } from "#datastore/snapshot-s3.ts";
import { type S3Request, type SnapshotRequest, snapshotSocket } from "#datastore/snapshots.ts";
import { systemClock } from "#platform/clock.ts";
import { askControlSocket } from "#platform/control-socket.ts";
import { exists, makeFolder } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { systemRandom } from "#platform/random.ts";
import type { ServerConfig } from "./config.ts";
import { resolveS3, s3ChoiceOf } from "./snapshot-s3.ts";

interface Context {
  readonly config: ServerConfig;
  readonly values: FlagValues;
  readonly folder: string;
  readonly names: readonly string[];
  /** With --s3. */
  readonly bucket: SnapshotBucket | undefined;
}

const verbs: Readonly<Record<string, (context: Context) => Promise<void>>> = {
  save,
  ls: list,
  list,
  prune,
  delete: remove,
  verify,
  restore,
};
const deps = { clock: systemClock, log: silentLogger };

/** `args`: the verb and its names. Resolves with the exit code. */
export async function snapshot(args: readonly string[], values: FlagValues, config: ServerConfig): Promise<number> {
  const [verb = "", ...names] = args;
  const run = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined;
  if (!run) throw verbError("snapshot", verb, snapshotUsage);
  if (names.length > 0 !== ["delete", "verify", "restore"].includes(verb) || (names.length > 1 && verb !== "delete")) {
    throw verbError("snapshot", verb === "list" ? "ls" : verb, snapshotUsage);
  }
  if (isEtcdEndpoint(config.datastore.endpoint)) {
    throw usageError(`snapshot: the datastore is an external etcd; use etcdctl snapshot ${verb}`);
  }
  const folder = (values["dir"] as string | undefined) ?? config.snapshots.folder;
  const bucket = await bucketOf(values, config);
  try {
    await run({ config, values, folder, names, bucket });
  } finally {
    bucket?.close();
  }
  return 0;
}

async function bucketOf(values: FlagValues, config: ServerConfig): Promise<SnapshotBucket | undefined> {
  const choice = s3ChoiceOf(values, "s3");
  if (!choice) return undefined;
  const askServer = async (secret: string) => {
    const request: S3Request = { command: "s3", secret };
    const settings = await askControlSocket(snapshotSocket(`${config.serverDir}/db`), request);
    if (settings === undefined) {
      throw usageError(
        "snapshot: without a running server secrets cannot be read; give --s3-bucket and what belongs to it",
      );
    }
    return settings as S3Settings;
  };
  return openSnapshotBucket(await resolveS3(choice, askServer), { ...deps, random: systemRandom });
}

async function save({ config, values, folder, bucket }: Context): Promise<void> {
  const options = {
    folder,
    name: String(values["name"]),
    compress: values["snapshot-compress"] === true,
    retention: Number(values["snapshot-retention"]),
  };
  const request: SnapshotRequest = { command: "save", ...options };
  const asked = await askControlSocket(snapshotSocket(`${config.serverDir}/db`), request);
  const saved = asked === undefined ? await saveOffline(config, options) : (asked as Snapshot);
  console.log(`Snapshot ${saved.name} saved: ${saved.path} (${saved.sizeBytes} bytes)`);
  if (!bucket) return;
  const sent = await bucket.upload(saved, { name: options.name, node: config.nodeName });
  console.log(`Snapshot ${sent.name} uploaded: ${sent.path}`);
}

/** No server runs: nobody else has the files. */
async function saveOffline(
  config: ServerConfig,
  options: { folder: string; name: string; compress: boolean; retention: number },
): Promise<Snapshot> {
  const file = config.datastore.endpoint.replace(/^sqlite:\/\//, "");
  if (!(await exists(file))) throw usageError(`snapshot save: there is no datastore at ${file}`);
  const store = await openDatastore({ endpoint: config.datastore.endpoint }, deps);
  try {
    const wanted = { ...options, node: config.nodeName };
    const saved = await saveSnapshot(store, wanted, deps);
    await pruneSnapshots(wanted);
    return saved;
  } finally {
    await store.close();
  }
}

async function list({ values, folder, bucket }: Context): Promise<void> {
  const local = (await listSnapshots(folder)).map((snapshot) => ({ ...snapshot, path: `file://${snapshot.path}` }));
  const found = [...local, ...((await bucket?.list()) ?? [])];
  if (values["output"] === "json") {
    console.log(JSON.stringify(found, undefined, 2));
    return;
  }
  console.log(snapshotTable(found, values["output"] === "wide"));
}

async function prune({ config, values, folder, bucket }: Context): Promise<void> {
  const owner = { name: String(values["name"]), node: config.nodeName };
  const removed = await pruneSnapshots({ folder, ...owner, retention: Number(values["snapshot-retention"]) });
  for (const { name } of removed) console.log(`Snapshot ${name} deleted`);
  for (const { path } of (await bucket?.prune(owner)) ?? []) console.log(`Snapshot ${path} deleted`);
}

async function remove({ folder, names, bucket }: Context): Promise<void> {
  const local = await listSnapshots(folder);
  const stored = (await bucket?.list()) ?? [];
  for (const name of names) {
    const here = local.find((s) => s.name === name);
    const there = stored.find((s) => s.name === name);
    if (!here && !there)
      throw usageError(`snapshot delete: there is no snapshot "${name}" ${placesOf(folder, bucket)}`);
    if (here) await removeFile(here.path);
    if (there) await bucket!.remove(name);
    console.log(`Snapshot ${name} deleted`);
  }
}

const placesOf = (folder: string, bucket: SnapshotBucket | undefined): string =>
  `in ${folder}${bucket ? " or in the bucket" : ""}`;

async function verify(context: Context): Promise<void> {
  const { keys, revision } = await verifySnapshot(await pathOf(context), deps);
  console.log(`Snapshot is sound: ${keys} keys at revision ${revision}`);
}

async function restore(context: Context): Promise<void> {
  const endpoint = context.config.datastore.endpoint;
  const target = endpoint.replace(/^sqlite:\/\//, "");
  if (target === endpoint) throw usageError(`snapshot restore: ${endpoint} is not a file`);
  const { keys, kept } = await restoreSnapshot({ path: await pathOf(context), target }, deps);
  console.log(`Restored ${keys} keys to ${target}${kept ? `; what was there is ${kept}` : ""}. Start mote server now.`);
}

/** A path, or a name in the folder; with --s3 a name in the bucket, which then stands in the folder too. */
async function pathOf({ folder, names, bucket }: Context): Promise<string> {
  const [name = ""] = names;
  if (bucket) {
    await makeFolder(folder, 0o700);
    return bucket.download(name, folder);
  }
  for (const path of [`${folder}/${name}`, name]) if (await exists(path)) return path;
  throw usageError(`snapshot: there is no snapshot "${name}" in ${folder}`);
}

/** k3s's columns when it is wide; else, of where a snapshot lies, what its name does not say already. */
export function snapshotTable(found: readonly Snapshot[], isWide: boolean): string {
  if (isWide) {
    const rows = found.map((s) => [s.name, s.path, String(s.sizeBytes), new Date(s.createdMs).toISOString()]);
    return columns([["Name", "Location", "Size", "Created"], ...rows], 1);
  }
  const rows = found.map((s) => {
    const created = `${new Date(s.createdMs).toISOString().slice(0, 19)}Z`;
    return [s.name, String(s.sizeBytes), created, s.path.startsWith("s3://") ? "bucket" : "disk"];
  });
  return columns([["Name", "Size", "Created", "Where"], ...rows]);
}
