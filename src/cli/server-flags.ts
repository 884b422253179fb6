// Flags of `mote server`, with k3s's names. What is not here yet is refused by name rather than ignored.
import type { Flag } from "./flags.ts";
import { snapshotServerFlags } from "./snapshot-flags.ts";

/** In-process parts that can be switched off with --disable. */
export const disableable = ["dns", "service-proxy", "scheduler", "controllers", "local-storage", "metrics-server"] as const;

export const serverFlags: readonly Flag[] = [
  {
    name: "config",
    short: "c",
    kind: "string",
    env: "CONFIG_FILE",
    default: "/etc/mote/config.yaml",
    help: "configuration file; FILE.d/*.yaml are read after it",
  },
  { name: "debug", kind: "boolean", env: "DEBUG", default: false, help: "log per request" },
  {
    name: "data-dir",
    short: "d",
    kind: "string",
    env: "DATA_DIR",
    help: "folder for state; default /var/lib/mote, or ~/.mote without root",
  },
  {
    name: "run-dir",
    kind: "string",
    env: "RUN_DIR",
    default: "/run/mote",
    help: "folder for sockets and containerd's state; gone after a reboot",
  },
  {
    name: "token",
    short: "t",
    kind: "string",
    env: "TOKEN",
    help: "shared secret that nodes join with; made at first start when absent",
  },
  { name: "bind-address", kind: "string", default: "0.0.0.0", help: "address the API listens on" },
  { name: "https-listen-port", kind: "number", default: 6443, min: 1, max: 65535, help: "port of the API" },
  { name: "advertise-address", kind: "string", help: "address that pods reach the API at; default the node's" },
  { name: "tls-san", kind: "list", help: "further names or addresses in the serving certificate" },
  { name: "cluster-cidr", kind: "string", default: "10.42.0.0/16", help: "addresses of pods" },
  { name: "service-cidr", kind: "string", default: "10.43.0.0/16", help: "addresses of services" },
  { name: "service-node-port-range", kind: "string", default: "30000-32767", help: "ports of NodePort services" },
  { name: "cluster-dns", kind: "string", help: "address of the cluster's DNS; default the tenth of the service range" },
  { name: "cluster-domain", kind: "string", default: "cluster.local", help: "domain of the cluster" },
  {
    name: "datastore-endpoint",
    kind: "string",
    env: "DATASTORE_ENDPOINT",
    help: "sqlite:///FILE, memory://, or an etcd: https://HOST:2379,https://HOST2:2379; default sqlite in DATA-DIR/server/db/state.db",
  },
  {
    name: "datastore-cafile",
    kind: "string",
    env: "DATASTORE_CAFILE",
    help: "authority of the etcd servers' certificates; default the system's",
  },
  {
    name: "datastore-certfile",
    kind: "string",
    env: "DATASTORE_CERTFILE",
    help: "certificate to show to etcd; needs --datastore-keyfile",
  },
  { name: "datastore-keyfile", kind: "string", env: "DATASTORE_KEYFILE", help: "its private key" },
  {
    name: "datastore-memory",
    kind: "number",
    min: 8,
    max: 1024,
    help: "MiB that the own datastore may take; what is beyond it is read from disk. Default a quarter of the machine's, at most 1024",
  },
  {
    name: "etcd-listen",
    kind: "list",
    help: "serve the etcd API of the own datastore at unix:///FILE or https://HOST:PORT (client certificates of DATA-DIR/server/tls/etcd)",
  },
  ...snapshotServerFlags,
  {
    name: "write-kubeconfig",
    short: "o",
    kind: "string",
    env: "KUBECONFIG_OUTPUT",
    help: "where to write the admin kubeconfig; default /etc/mote/kubeconfig.yaml, or ~/.mote/kubeconfig.yaml without root",
  },
  {
    name: "write-kubeconfig-mode",
    kind: "string",
    env: "KUBECONFIG_MODE",
    default: "0600",
    help: "its file mode, octal",
  },
  { name: "disable", kind: "list", help: "parts to leave out", allowed: disableable },
  {
    name: "disable-agent",
    kind: "boolean",
    default: false,
    help: "serve the API without running a node (needs no privileges)",
  },
  { name: "node-name", kind: "string", env: "NODE_NAME", help: "name of this node; default the host name" },
  { name: "node-ip", short: "i", kind: "string", help: "address of this node; default that of the default route" },
  { name: "node-label", kind: "list", help: "labels KEY=VALUE set when the node registers" },
  { name: "node-taint", kind: "list", help: "taints KEY=VALUE:EFFECT set when the node registers" },
  {
    name: "private-registry",
    kind: "string",
    default: "/etc/mote/registries.yaml",
    help: "mirrors and credentials of image registries; need not exist",
  },
  {
    name: "image-credential-provider-config",
    kind: "string",
    help: "CredentialProviderConfig: programs that know credentials of registries",
  },
  { name: "image-credential-provider-bin-dir", kind: "string", help: "folder of those programs" },
  {
    name: "kubelet-arg",
    kind: "list",
    help: "settings of the node agent as FLAG=VALUE with the kubelet's names, such as max-pods=50 or system-reserved=memory=200Mi",
  },
  {
    name: "default-local-storage-path",
    kind: "string",
    help: "folder for volumes of the storage class local-path; default DATA-DIR/storage",
  },
  { name: "resolv-conf", kind: "string", env: "RESOLV_CONF", help: "resolv.conf that pods and DNS forwarding use" },
];
