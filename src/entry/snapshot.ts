// `mote snapshot save|ls|prune|delete|verify|restore`: through the server of the data folder where it must be, else on
// the files. Counterpart: k3s etcd-snapshot, and k3s server --cluster-reset-restore-path.

import { silentLogger } from "#base/log.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { isEtcdEndpoint } from "#datastore/etcd-endpoints.ts";
import { openDatastore } from "#datastore/open.ts";
import {
  listSnapshots,
  pruneSnapshots,
  restoreSnapshot,
  type Snapshot,
  saveSnapshot,
  verifySnapshot,
} from "#datastore/snapshot.ts";
import { type SnapshotRequest, snapshotSocket } from "#datastore/snapshots.ts";
import { systemClock } from "#platform/clock.ts";
import { askControlSocket } from "#platform/control-socket.ts";
import { exists } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import type { ServerConfig } from "./config.ts";

interface Context {
  readonly config: ServerConfig;
  readonly values: FlagValues;
  readonly folder: string;
  readonly names: readonly string[];
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
export const snapshotUsage = "save | ls | prune | delete NAME… | verify NAME | restore NAME";
const deps = { clock: systemClock, log: silentLogger };

/** `args`: the verb and its names. Resolves with the exit code. */
export async function snapshot(args: readonly string[], values: FlagValues, config: ServerConfig): Promise<number> {
  const [verb = "", ...names] = args;
  const run = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined;
  if (!run) throw usageError(`snapshot: one of ${snapshotUsage} is expected`);
  if (names.length > 0 !== ["delete", "verify", "restore"].includes(verb) || (names.length > 1 && verb !== "delete")) {
    throw usageError(`snapshot ${verb}: the arguments do not fit; ${snapshotUsage}`);
  }
  if (isEtcdEndpoint(config.datastore.endpoint)) {
    throw usageError(`snapshot: the datastore is an external etcd; use etcdctl snapshot ${verb}`);
  }
  const folder = (values["dir"] as string | undefined) ?? config.snapshots.folder;
  await run({ config, values, folder, names });
  return 0;
}

async function save({ config, values, folder }: Context): Promise<void> {
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

async function list({ values, folder }: Context): Promise<void> {
  const found = await listSnapshots(folder);
  if (values["output"] === "json") {
    console.log(JSON.stringify(found, undefined, 2));
    return;
  }
  print(found);
}

async function prune({ config, values, folder }: Context): Promise<void> {
  const retention = Number(values["snapshot-retention"]);
  const removed = await pruneSnapshots({ folder, name: String(values["name"]), node: config.nodeName, retention });
  for (const { name } of removed) console.log(`Snapshot ${name} deleted`);
}

async function remove({ folder, names }: Context): Promise<void> {
  const found = await listSnapshots(folder);
  for (const name of names) {
    const one = found.find((s) => s.name === name);
    if (!one) throw usageError(`snapshot delete: there is no snapshot "${name}" in ${folder}`);
    await removeFile(one.path);
    console.log(`Snapshot ${name} deleted`);
  }
}

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

/** A path, or a name in the folder. */
async function pathOf({ folder, names }: Context): Promise<string> {
  const [name = ""] = names;
  for (const path of [`${folder}/${name}`, name]) if (await exists(path)) return path;
  throw usageError(`snapshot: there is no snapshot "${name}" in ${folder}`);
}

function print(found: readonly Snapshot[]): void {
  const rows = [
    ["Name", "Location", "Size", "Created"],
    ...found.map((s) => [s.name, `file://${s.path}`, String(s.sizeBytes), new Date(s.createdMs).toISOString()]),
  ];
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  for (const row of rows)
    console.log(
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join(" ")
        .trimEnd(),
    );
}
