// Flags of `mote node`.
import type { Flag } from "./flags.ts";

export const nodeUsage = "replace NAME";

export const nodeFlags: readonly Flag[] = [
  { name: "ttl", kind: "string", default: "1h", help: "replace: for how long another device may take the name" },
  {
    name: "kubeconfig",
    kind: "string",
    foreignEnv: "KUBECONFIG",
    help: "who asks, and which server; default the admin's",
  },
];
