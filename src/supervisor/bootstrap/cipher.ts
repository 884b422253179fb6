// How the keys of a cluster lie in a datastore that several servers share: encrypted by the cluster's token, under a name that
// tells nothing but which token it is. Names and form are k3s's, so that clusters can change hands.
// Upstream counterpart: k3s pkg/cluster/encrypt.go.
import { createCipheriv, createDecipheriv, createHash, pbkdf2 } from "node:crypto";
import type { Random } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";

export const recordPrefix = "/bootstrap/";
const cost = { rounds: 4096, keyBytes: 32, digest: "sha1" } as const;
const saltBytes = 8;
const nonceBytes = 12;
const tagBytes = 16;
const algorithm = "aes-256-gcm";

/** Nothing is derived from an empty secret. */
function mustBeSecret(password: string): void {
  if (password === "") throw new AppError("BOOTSTRAP_TOKEN", "the cluster's keys are not kept under an empty token");
}

export function recordKey(password: string): string {
  mustBeSecret(password);
  return recordPrefix + createHash("sha256").update(password).digest("hex").slice(0, 12);
}

export async function encryptRecord(plain: string, password: string, random: Random): Promise<string> {
  mustBeSecret(password);
  const salt = Buffer.from(random.bytes(saltBytes)).toString("hex");
  const nonce = random.bytes(nonceBytes);
  const cipher = createCipheriv(algorithm, await derive(password, salt), nonce);
  const sealed = [nonce, cipher.update(plain, "utf8"), cipher.final(), cipher.getAuthTag()];
  return `${salt}:${Buffer.concat(sealed).toString("base64")}`;
}

/** Rejects with BOOTSTRAP_RECORD. */
export async function decryptRecord(text: string, password: string): Promise<string> {
  mustBeSecret(password);
  const [salt = "", body = ""] = text.split(":");
  const sealed = Buffer.from(body, "base64");
  if (salt === "" || sealed.length < nonceBytes + tagBytes) throw unreadable("it is cut off");
  try {
    const decipher = createDecipheriv(algorithm, await derive(password, salt), sealed.subarray(0, nonceBytes));
    decipher.setAuthTag(sealed.subarray(-tagBytes));
    return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, -tagBytes)), decipher.final()]).toString("utf8");
  } catch (error) {
    throw unreadable("it does not open with this token", error);
  }
}

export const unreadable = (why: string, cause?: unknown): AppError =>
  new AppError("BOOTSTRAP_RECORD", `the cluster's keys in the datastore cannot be read: ${why}`, {}, { cause });

function derive(password: string, salt: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    pbkdf2(password, salt, cost.rounds, cost.keyBytes, cost.digest, (error, key) => {
      if (error) reject(error);
      else resolve(key);
    });
  });
}
