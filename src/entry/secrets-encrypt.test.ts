import { expect, test } from "vitest";
import type { EncryptionStatus } from "#apiserver/encryption.ts";
import { statusText } from "./secrets-encrypt.ts";

test.each<[string, EncryptionStatus, string]>([
  ["nothing yet", { stage: "", activekey: "" }, "Encryption Status: Disabled, no configuration file found"],
  [
    "one key",
    { stage: "start", activekey: "aescbckey", enable: true, hashmatch: true },
    `Encryption Status: Enabled
Current Rotation Stage: start
Server Encryption Hashes: All hashes match

Active  Key Type  Name
------  --------  ----
 *      AES-CBC   aescbckey
`,
  ],
  [
    "two, of two kinds, on servers that differ",
    {
      ...{ stage: "prepare", activekey: "aescbckey", enable: false, hasherror: "hash does not match between a and b" },
      inactivekeys: ["secretboxkey-2026-01-01T00:00:00Z"],
    },
    `Encryption Status: Disabled
Current Rotation Stage: prepare
Server Encryption Hashes: hash does not match between a and b

Active  Key Type           Name
------  --------           ----
 *      AES-CBC            aescbckey
        XSalsa20-POLY1305  secretboxkey-2026-01-01T00:00:00Z
`,
  ],
])("the status of %s", (_name, status, expected) => {
  expect(statusText(status)).toBe(expected);
});
