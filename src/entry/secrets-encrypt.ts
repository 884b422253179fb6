// `mote secrets-encrypt status|enable|disable|prepare|rotate|reencrypt|rotate-keys`: asks the server of the data folder.
// Counterpart: k3s secrets-encrypt, whose words and shapes these are.
import { type EncryptionRequest, type EncryptionStatus, encryptionSocket } from "#apiserver/encryption.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { secretsEncryptUsage } from "#cli/secrets-encrypt-flags.ts";
import { verbError } from "#cli/verbs.ts";
import { askControlSocket } from "#platform/control-socket.ts";
import type { ServerConfig } from "./config.ts";

const verbs: Readonly<Record<string, EncryptionRequest>> = {
  status: { command: "status" },
  enable: { command: "config", enable: true },
  disable: { command: "config", enable: false },
  prepare: { command: "config", stage: "prepare" },
  rotate: { command: "config", stage: "rotate" },
  reencrypt: { command: "config", stage: "reencrypt_request" },
  "rotate-keys": { command: "config", stage: "rotate_keys" },
};

/** `args`: the verb. Resolves with the exit code. */
export async function secretsEncrypt(
  args: readonly string[],
  values: FlagValues,
  config: ServerConfig,
): Promise<number> {
  const [verb = "", ...rest] = args;
  const request = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined;
  if (!request || rest.length > 0) throw verbError("secrets-encrypt", verb, secretsEncryptUsage);
  const [force, skip] = [values["force"] === true, values["skip"] === true];
  const asked = request.command === "status" ? request : { ...request, force, skip };
  const answer = await askControlSocket(encryptionSocket(config.serverDir), asked);
  if (answer === undefined) {
    throw usageError(`secrets-encrypt: no server runs on ${config.dataDir}; start mote server, or give --data-dir`);
  }
  if (verb !== "status") console.log(String(answer));
  else {
    const status = answer as EncryptionStatus;
    console.log(values["output"] === "json" ? JSON.stringify(status, undefined, "\t") : statusText(status));
  }
  return 0;
}

export function statusText(status: EncryptionStatus): string {
  if (status.enable === undefined) return "Encryption Status: Disabled, no configuration file found";
  const hashes = status.hashmatch ? "All hashes match" : (status.hasherror ?? "");
  const head = [
    `Encryption Status: ${status.enable ? "Enabled" : "Disabled"}`,
    `Current Rotation Stage: ${status.stage}`,
    `Server Encryption Hashes: ${hashes}`,
    "",
  ];
  const rows = [
    ["Active", "Key Type", "Name"],
    ["------", "--------", "----"],
    [" *", typeOf(status.activekey), status.activekey],
    ...(status.inactivekeys ?? []).map((name) => ["", typeOf(name), name]),
  ];
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]!.length)) + 2);
  const table = rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(""));
  return `${[...head, ...table].join("\n")}\n`;
}

const typeOf = (key: string): string => (key.startsWith("secretbox") ? "XSalsa20-POLY1305" : "AES-CBC");
