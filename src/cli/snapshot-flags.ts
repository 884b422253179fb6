// Flags of `mote snapshot`, and those of `mote server` about snapshots, with k3s's names.
import type { Flag } from "./flags.ts";

const folder = "folder of the snapshots; default DATA-DIR/server/db/snapshots";
const retentionDefault = 5;
export const defaultSnapshotSchedule = "0 */12 * * *";

export const snapshotServerFlags: readonly Flag[] = [
  { name: "etcd-disable-snapshots", kind: "boolean", default: false, help: "take no snapshots by schedule" },
  {
    name: "etcd-snapshot-schedule-cron",
    kind: "string",
    default: defaultSnapshotSchedule,
    help: "when snapshots are taken, in five fields of cron; left out when nothing was written since the last",
  },
  {
    name: "etcd-snapshot-retention",
    kind: "number",
    default: retentionDefault,
    min: 1,
    help: "how many of them are kept",
  },
  { name: "etcd-snapshot-name", kind: "string", default: "etcd-snapshot", help: "what their names begin with" },
  { name: "etcd-snapshot-dir", kind: "string", help: folder },
  { name: "etcd-snapshot-compress", kind: "boolean", default: false, help: "compress them" },
];

/** Beside --config, --data-dir and --node-name of the server. */
export const snapshotFlags: readonly Flag[] = [
  { name: "name", kind: "string", default: "on-demand", help: "what the snapshot's name begins with" },
  { name: "dir", short: "etcd-snapshot-dir", kind: "string", help: folder },
  {
    name: "snapshot-compress",
    short: "etcd-snapshot-compress",
    kind: "boolean",
    default: false,
    help: "compress the snapshot",
  },
  {
    name: "snapshot-retention",
    short: "etcd-snapshot-retention",
    kind: "number",
    default: retentionDefault,
    min: 1,
    help: "how many snapshots of this name are kept",
  },
  {
    name: "output",
    short: "o",
    kind: "string",
    default: "table",
    allowed: ["table", "json"],
    help: "form of the list",
  },
];
