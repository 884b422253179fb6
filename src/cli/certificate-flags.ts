// Flags of `mote certificate`, with k3s's names. Beside them: --config and --data-dir of the server.
import type { Flag } from "./flags.ts";

export const certificateUsage = "check | rotate | rotate-ca";

export const certificateFlags: readonly Flag[] = [
  {
    name: "service",
    short: "s",
    kind: "list",
    help: "check, rotate: of these parts only: admin, api-server, auth-proxy, cloud-controller, controller-manager, etcd, k3s-controller, k3s-server, kube-proxy, kubelet, scheduler, supervisor",
  },
  {
    name: "output",
    short: "o",
    kind: "string",
    default: "table",
    allowed: ["table", "wide", "text", "json"],
    help: "check: its form; wide has all columns, and the authorities behind each certificate",
  },
  {
    name: "path",
    kind: "string",
    help: "rotate-ca: folder of the new authorities, as server/tls has them; default: make new ones for which the old ones vouch",
  },
  {
    name: "force",
    short: "f",
    kind: "boolean",
    default: false,
    help: "rotate-ca: also where the old authorities do not vouch for the new ones: every node has to join again",
  },
  {
    name: "server",
    kind: "string",
    env: "URL",
    help: "rotate-ca: the server to tell; default the one on this machine",
  },
];
