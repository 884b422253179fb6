// Flags of `mote secrets-encrypt`, with k3s's names. Beside them: --config and --data-dir of the server.
import type { Flag } from "./flags.ts";

export const secretsEncryptUsage = "status | enable | disable | prepare | rotate | reencrypt | rotate-keys";

export const secretsEncryptFlags: readonly Flag[] = [
  {
    name: "output",
    short: "o",
    kind: "string",
    default: "text",
    allowed: ["text", "json"],
    help: "form of the status",
  },
  { name: "force", short: "f", kind: "boolean", default: false, help: "whatever the stage and other servers are" },
  { name: "skip", kind: "boolean", default: false, help: "reencrypt: keep the old keys" },
];
