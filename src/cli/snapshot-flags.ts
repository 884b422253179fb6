// Flags of `mote snapshot`, and those of `mote server` about snapshots, with k3s's names.
import type { Flag } from "./flags.ts";

const folder = "folder of the snapshots; default DATA-DIR/server/db/snapshots";
const retentionDefault = 5;
export const defaultSnapshotSchedule = "0 */12 * * *";

/** `etcd-s3-NAME` of the server, `s3-NAME` of the command. What nobody sets is decided by the datastore. */
const s3Options: readonly Flag[] = [
  { name: "endpoint", kind: "string", help: "HOST[:PORT] of the S3 service; default s3.amazonaws.com" },
  { name: "endpoint-ca", kind: "string", help: "PEM file of the authority that signed its certificate" },
  { name: "skip-ssl-verify", kind: "boolean", default: false, help: "do not check its certificate" },
  { name: "access-key", kind: "string", foreignEnv: "AWS_ACCESS_KEY_ID", help: "access key" },
  { name: "secret-key", kind: "string", foreignEnv: "AWS_SECRET_ACCESS_KEY", help: "secret key" },
  { name: "session-token", kind: "string", foreignEnv: "AWS_SESSION_TOKEN", help: "token of temporary keys" },
  { name: "bucket", kind: "string", help: "bucket of the snapshots" },
  {
    name: "bucket-lookup-type",
    kind: "string",
    allowed: ["auto", "dns", "path"],
    help: "where the bucket is named: in the host, in the path, or as the service is known to want it; default auto",
  },
  { name: "region", kind: "string", help: "region of the bucket; default us-east-1" },
  { name: "folder", kind: "string", help: "folder within the bucket" },
  { name: "retention", kind: "number", min: 1, help: "how many of a name are kept in the bucket; default 5" },
  { name: "proxy", kind: "string", help: "HTTP proxy on the way to it, http://HOST:PORT" },
  {
    name: "config-secret",
    kind: "string",
    help: "secret in kube-system with these options, when no bucket is given here",
  },
  { name: "insecure", kind: "boolean", default: false, help: "plain HTTP" },
  { name: "timeout", kind: "string", help: "time for one upload, download or list; default 5m0s" },
];

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
  { name: "etcd-s3", kind: "boolean", default: false, help: "keep snapshots in an S3 bucket too" },
  ...s3Options.map((option) => ({ ...option, name: `etcd-s3-${option.name}` })),
];

export const snapshotUsage = "save | ls | prune | delete NAME… | verify NAME | restore NAME";

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
    allowed: ["table", "wide", "json"],
    help: "form of the list; wide has the whole paths",
  },
  { name: "s3", short: "etcd-s3", kind: "boolean", default: false, help: "in the S3 bucket too" },
  ...s3Options.map((option) => ({ ...option, name: `s3-${option.name}`, short: `etcd-s3-${option.name}` })),
];
