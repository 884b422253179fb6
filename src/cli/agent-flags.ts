// Flags of `mote agent`, with k3s's names: what concerns the node of a server, and where the server is.
import type { Flag } from "./flags.ts";
import { serverFlags } from "./server-flags.ts";

const shared = new Set([
  "config",
  "debug",
  "data-dir",
  "run-dir",
  "node-name",
  "with-node-id",
  "node-ip",
  "node-external-ip",
  "flannel-iface",
  "node-label",
  "node-taint",
  "private-registry",
  "default-runtime",
  "image-credential-provider-config",
  "image-credential-provider-bin-dir",
  "kubelet-arg",
  "default-local-storage-path",
  "resolv-conf",
]);

export const agentFlags: readonly Flag[] = [
  { name: "server", short: "s", kind: "string", env: "URL", help: "the server to join: https://HOST:6443" },
  {
    name: "token",
    short: "t",
    kind: "string",
    env: "TOKEN",
    help: "what the server believes a new node by: the line in DATA-DIR/server/token there, or a bootstrap token",
  },
  { name: "token-file", kind: "string", env: "TOKEN_FILE", help: "a file that holds it" },
  {
    name: "lb-server-port",
    kind: "number",
    env: "LB_SERVER_PORT",
    default: 6444,
    min: 0,
    max: 65535,
    help: "port of 127.0.0.1 at which other programs of this machine reach the servers; 0 for none",
  },
  {
    name: "tunnel-keepalive",
    kind: "string",
    default: "swift",
    allowed: ["swift", "metered"],
    help: "how often tunnels ask whether their server lives: every second, or every four minutes where bytes cost money",
  },
  ...serverFlags.filter(({ name }) => shared.has(name)),
];
