// Known answers: what upstream stores, made here with node:crypto alone (AES), and NaCl's published vector (secretbox).
import { createCipheriv, createDecipheriv } from "node:crypto";
import { expect, test } from "vitest";
import type { Random } from "#base/clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { type CipherType, createCipher } from "./ciphers.ts";

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex.replace(/\s/g, ""), "hex"));
const hex = (value: Uint8Array): string => Buffer.from(value).toString("hex");
const key = "/registry/secrets/default/x";
const plain = new TextEncoder().encode('{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"data":{"a":"ü"}}');
/** Gives out these bytes: what is random in a vector is known. */
const fixed = (given: Uint8Array): Random => ({ ...seededRandom(1), bytes: () => given });

const lengths: readonly [CipherType, number][] = [
  ["aesgcm", 16],
  ["aesgcm", 24],
  ["aesgcm", 32],
  ["aescbc", 16],
  ["aescbc", 24],
  ["aescbc", 32],
  ["secretbox", 32],
];

test.each(lengths)("%s with %i bytes: what is sealed opens again, never twice the same", (type, size) => {
  const random = seededRandom(5);
  const cipher = createCipher(type, random.bytes(size), random);
  for (const length of [0, 1, 15, 16, 17, 5000]) {
    const value = random.bytes(length);
    const [one, two] = [cipher.seal(value, key), cipher.seal(value, key)];
    expect(hex(one)).not.toBe(hex(two));
    expect(hex(cipher.open(one, key))).toBe(hex(value));
  }
});

test("aesgcm is nonce, ciphertext and tag, bound to the storage key", () => {
  const [secret, nonce] = [bytes(`${"00".repeat(31)}01`), bytes("000102030405060708090a0b")];
  const sealed = createCipher("aesgcm", secret, fixed(nonce)).seal(plain, key);
  const other = createCipheriv("aes-256-gcm", secret, nonce);
  other.setAAD(Buffer.from(key));
  const body = Buffer.concat([other.update(plain), other.final()]);
  expect(hex(sealed)).toBe(hex(nonce) + hex(body) + hex(other.getAuthTag()));
  expect(() => createCipher("aesgcm", secret, seededRandom(1)).open(sealed, `${key}y`)).toThrow(
    "cipher: message authentication failed",
  );
});

// NIST's test case 16 of GCM (AES-256, AAD), so that this is not only OpenSSL held against itself.
test("aesgcm is NIST's", () => {
  const secret = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
  const text = bytes(`d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39`);
  const where = String.fromCharCode(...bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2"));
  expect(hex(createCipher("aesgcm", secret, fixed(bytes("cafebabefacedbaddecaf888"))).seal(text, where))).toBe(
    hex(
      bytes(`cafebabefacedbaddecaf888
      522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
      76fc6ece0f4e1768cddf8853bb2d551b`),
    ),
  );
});

// SP 800-38A, F.2.5: CBC-AES256, first block; the block of padding behind it is ours to check.
test("aescbc is NIST's, with PKCS #7", () => {
  const secret = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  const vector = bytes("000102030405060708090a0b0c0d0e0f");
  const block = bytes("6bc1bee22e409f96e93d7e117393172a");
  const sealed = createCipher("aescbc", secret, fixed(vector)).seal(block, key);
  expect(hex(sealed.subarray(0, 32))).toBe(`${hex(vector)}f58c4c04d6e5f1ba779eabfb5f7bfbd6`);
  expect(sealed).toHaveLength(48);
  const raw = createDecipheriv("aes-256-cbc", secret, vector).setAutoPadding(false);
  expect(hex(raw.update(sealed.subarray(16)))).toBe(hex(block) + "10".repeat(16));
});

// "Cryptography in NaCl", section 10.
test("secretbox is NaCl's", () => {
  const secret = bytes("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
  const nonce = bytes("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
  const message =
    bytes(`be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f4
    1db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937
    763848645e0705`);
  const boxed = `f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011
    ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b3
    7973f622a43d14a6599b1f654cb45a74e355a5`;
  const sealed = createCipher("secretbox", secret, fixed(nonce)).seal(message, key);
  expect(hex(sealed)).toBe(hex(nonce) + hex(bytes(boxed)));
  expect(hex(createCipher("secretbox", secret, seededRandom(1)).open(sealed, "elsewhere"))).toBe(hex(message));
});

test.each(lengths)("%s with %i bytes: what was changed or cut short does not open", (type, size) => {
  const random = seededRandom(9);
  const cipher = createCipher(type, random.bytes(size), random);
  const sealed = cipher.seal(plain, key);
  expect(() => createCipher(type, random.bytes(size), random).open(sealed, key)).toThrow();
  expect(() => cipher.open(sealed.subarray(0, 8), key)).toThrow("shorter than the required size");
  for (let at = 0; at < sealed.length; at++) {
    const changed = Uint8Array.from(sealed);
    changed[at]! ^= 1;
    // CBC knows no tag: only what it does with the padding can be told.
    if (type !== "aescbc") expect(() => cipher.open(changed, key), `byte ${at}`).toThrow();
  }
});
