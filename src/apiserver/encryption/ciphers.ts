// The ciphers of values at rest, byte for byte as upstream stores them behind their prefix, so that a store can change
// hands: aesgcm (nonce 12, ciphertext, tag 16; bound to the storage key), aescbc (vector 16, ciphertext with PKCS #7),
// secretbox (nonce 24, tag 16, ciphertext). Nonces are random. Upstream counterpart: storage/value/encrypt.
import { createCipheriv, createDecipheriv } from "node:crypto";
import { xsalsa20poly1305 } from "@noble/ciphers/salsa.js";
import type { Random } from "#base/clock.ts";

export type CipherType = "aesgcm" | "aescbc" | "secretbox";

export interface Cipher {
  /** `key`: where the value is stored. */
  seal(plain: Uint8Array, key: string): Uint8Array;
  /** Throws where it was sealed with another secret, for another key where that counts, or is damaged. */
  open(sealed: Uint8Array, key: string): Uint8Array;
}

/** Lengths of a secret in bytes. */
export const secretBytes: Readonly<Record<CipherType, readonly number[]>> = {
  aesgcm: [16, 24, 32],
  aescbc: [16, 24, 32],
  secretbox: [32],
};

export function createCipher(type: CipherType, secret: Uint8Array, random: Random): Cipher {
  return makers[type](secret, random);
}

const makers: Readonly<Record<CipherType, (secret: Uint8Array, random: Random) => Cipher>> = {
  aesgcm,
  aescbc,
  secretbox,
};

const tooShort = "the stored data was shorter than the required size";
const blockBytes = 16;
const tagBytes = 16;

function aesgcm(secret: Uint8Array, random: Random): Cipher {
  const nonceBytes = 12;
  const algorithm = `aes-${secret.length * 8}-gcm` as "aes-256-gcm";
  return {
    seal(plain, key) {
      const nonce = random.bytes(nonceBytes);
      const cipher = createCipheriv(algorithm, secret, nonce).setAAD(Buffer.from(key, "latin1"));
      const body = cipher.update(plain);
      return Buffer.concat([nonce, body, cipher.final(), cipher.getAuthTag()]);
    },
    open(sealed, key) {
      if (sealed.length < nonceBytes + tagBytes) throw new Error(tooShort);
      const end = sealed.length - tagBytes;
      const decipher = createDecipheriv(algorithm, secret, sealed.subarray(0, nonceBytes), {
        authTagLength: tagBytes,
      })
        .setAAD(Buffer.from(key, "latin1"))
        .setAuthTag(sealed.subarray(end));
      const plain = decipher.update(sealed.subarray(nonceBytes, end));
      return finished(plain, () => decipher.final(), "cipher: message authentication failed");
    },
  };
}

function aescbc(secret: Uint8Array, random: Random): Cipher {
  const algorithm = `aes-${secret.length * 8}-cbc`;
  return {
    seal(plain) {
      const vector = random.bytes(blockBytes);
      const cipher = createCipheriv(algorithm, secret, vector);
      return Buffer.concat([vector, cipher.update(plain), cipher.final()]);
    },
    open(sealed) {
      if (sealed.length < blockBytes) throw new Error(tooShort);
      if (sealed.length % blockBytes !== 0) throw new Error("the stored data is not a multiple of the block size");
      const decipher = createDecipheriv(algorithm, secret, sealed.subarray(0, blockBytes));
      const plain = decipher.update(sealed.subarray(blockBytes));
      return finished(plain, () => decipher.final(), "invalid padding on input");
    },
  };
}

function secretbox(secret: Uint8Array, random: Random): Cipher {
  const nonceBytes = 24;
  return {
    seal(plain) {
      const nonce = random.bytes(nonceBytes);
      return Buffer.concat([nonce, xsalsa20poly1305(secret, nonce).encrypt(plain)]);
    },
    open(sealed) {
      if (sealed.length < nonceBytes + tagBytes) throw new Error(tooShort);
      try {
        return xsalsa20poly1305(secret, sealed.subarray(0, nonceBytes)).decrypt(sealed.subarray(nonceBytes));
      } catch (cause) {
        throw new Error("the secretbox does not open with this key", { cause });
      }
    },
  };
}

/** What was decrypted and its end; OpenSSL's words for a failure say nothing to a reader. */
function finished(plain: Uint8Array, final: () => Uint8Array, failure: string): Uint8Array {
  let end: Uint8Array;
  try {
    end = final();
  } catch (cause) {
    throw new Error(failure, { cause });
  }
  return end.length === 0 ? plain : Buffer.concat([plain, end]);
}
