// Flags of `mote token`, with k3s's names.
import type { Flag } from "./flags.ts";

export const tokenUsage = "create [TOKEN] | list | delete TOKEN... | generate | rotate";

export const tokenFlags: readonly Flag[] = [
  { name: "description", kind: "string", default: "", help: "create: what it is for" },
  {
    name: "groups",
    kind: "list",
    default: ["system:bootstrappers:k3s:default-node-token"],
    help: "create: further groups of whoever uses it",
  },
  { name: "ttl", kind: "string", default: "24h", help: "create: how long it is good for; 0 is for ever" },
  {
    name: "usages",
    kind: "list",
    default: ["signing", "authentication"],
    allowed: ["signing", "authentication"],
    help: "create: what it may be used for",
  },
  {
    name: "output",
    short: "o",
    kind: "string",
    default: "text",
    allowed: ["text", "wide", "json"],
    help: "list: its form; wide has all columns",
  },
  { name: "token", short: "t", kind: "string", env: "TOKEN", help: "rotate: the token as it is" },
  { name: "agent", kind: "boolean", default: false, help: "rotate: the one that only nodes join with" },
  {
    name: "server",
    short: "s",
    kind: "string",
    help: "rotate: the server to tell, https://HOST:6443, by the whole token; default that of the kubeconfig",
  },
  { name: "new-token", kind: "string", help: "rotate: as it shall be; default one that is made up" },
  {
    name: "kubeconfig",
    kind: "string",
    foreignEnv: "KUBECONFIG",
    help: "who asks, and which server; default the admin's",
  },
];
