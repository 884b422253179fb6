// Who this device is: a serial number, a name derived from it, a machine id and a key pair that never leaves it. Made once
// and kept on the data partition; a factory reset makes new ones, except for a serial that the board itself has. Pure, with
// chance handed in; node:crypto makes the key.
import { createHash, generateKeyPairSync } from "node:crypto";
import type { Random } from "#base/clock.ts";

export interface Identity {
  readonly serial: string;
  /** The board's own number, or made here. */
  readonly serialFrom: "board" | "generated";
  /** `mote-` and six hexadecimal digits; mote.yaml may choose another. */
  readonly hostname: string;
  /** 32 hexadecimal digits, as in /etc/machine-id. */
  readonly machineId: string;
}

/** What vendors leave in when they forget to fill it in, without blanks. */
const placeholders =
  /^(0+|f+|x+|none|n\/?a|unknown|default(string)?|(system|chassis)serialnumber|tobefilled.*|not(specified|available|applicable)|0?123456789(abcdef)?|.{0,3})$/i;

/** The first candidate that is a number of this very board, without blanks and unprintable characters. */
export function boardSerial(candidates: readonly (string | undefined)[]): string | undefined {
  for (const candidate of candidates) {
    const serial = (candidate ?? "").replace(/[^\x21-\x7e]+/g, "").slice(0, 64);
    const digits = serial.replace(/[-.]/g, "");
    if (!placeholders.test(serial) && !placeholders.test(digits) && new Set(digits.toLowerCase()).size > 2)
      return serial;
  }
  return undefined;
}

export function makeIdentity(board: string | undefined, random: Random): Identity {
  const hex = (size: number) => Buffer.from(random.bytes(size)).toString("hex");
  const serial = board ?? hex(8);
  const digest = createHash("sha256").update(serial).digest("hex");
  return {
    serial,
    serialFrom: board === undefined ? "generated" : "board",
    hostname: `mote-${digest.slice(0, 6)}`,
    machineId: hex(16),
  };
}

/** Undefined where the text is not whole; then a new one is made. */
export function parseIdentity(text: string): Identity | undefined {
  let value: Partial<Identity> | null;
  try {
    value = JSON.parse(text) as Partial<Identity> | null;
  } catch {
    // Cut by power loss before it was ever used.
    return undefined;
  }
  const { serial, serialFrom, hostname, machineId } = value ?? {};
  const isWhole =
    typeof serial === "string" &&
    (serialFrom === "board" || serialFrom === "generated") &&
    typeof hostname === "string" &&
    /^[0-9a-f]{32}$/.test(String(machineId));
  return isWhole ? ({ serial, serialFrom, hostname, machineId } as Identity) : undefined;
}

/** An Ed25519 key pair as PEM (PKCS #8 and SPKI). */
export function makeDeviceKey(): { readonly privateKey: string; readonly publicKey: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return {
    privateKey: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    publicKey: publicKey.export({ type: "spki", format: "pem" }) as string,
  };
}
