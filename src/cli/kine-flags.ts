// Flags of `mote kine`, with kine's names where it has them. Variables are KINE_<FLAG>, as there.
import type { Flag } from "./flags.ts";

export const kineSummary = "run the datastore alone, behind the etcd v3 API";

export const kineFlags: readonly Flag[] = [
  {
    name: "listen-address",
    kind: "string",
    default: "127.0.0.1:2379",
    help: "unix:///FILE, http://HOST:PORT or https://HOST:PORT",
  },
  {
    name: "endpoint",
    kind: "string",
    default: "sqlite://./db/state.db",
    help: "where the data is: sqlite://FILE or memory://",
  },
  { name: "server-cert-file", kind: "string", help: "certificate to serve with; needs --server-key-file" },
  { name: "server-key-file", kind: "string", help: "its private key" },
  { name: "trusted-ca-file", kind: "string", help: "clients must have a certificate of this authority" },
  {
    name: "compact-interval",
    kind: "string",
    default: "0s",
    help: "drop history that is older than this, such as 5m; 0s leaves it to clients, as the Kubernetes API server does",
  },
  {
    name: "watch-progress-notify-interval",
    kind: "string",
    default: "5s",
    help: "how often an idle watch that asked for it is told the revision",
  },
  {
    name: "emulated-etcd-version",
    kind: "string",
    default: "3.5.16",
    help: "what clients are told that they talk to",
  },
  {
    name: "max-request-bytes",
    kind: "number",
    default: 1_572_864,
    min: 1024,
    max: 3_145_728,
    help: "greatest request that is taken",
  },
  {
    name: "datastore-memory",
    kind: "number",
    min: 8,
    max: 1024,
    help: "MiB that the datastore may take; what is beyond it is read from disk. Default a quarter of the machine's, at most 1024",
  },
  { name: "debug", kind: "boolean", default: false, help: "log more" },
];
