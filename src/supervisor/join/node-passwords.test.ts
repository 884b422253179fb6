import { expect, test } from "vitest";
import { hashPassword, verifyPassword } from "./node-passwords.ts";

// Made with Python's hashlib.scrypt, in the form that k3s writes.
const known =
  "$1:0102030405060708:15:8:1:BLCBWkEZe+Gwsjv/Ilyij7OKQAs67u02DF+PFzxfFcxP4FO9CZxdNaRvp6DtF5D6gnrStUBBy9OuNwcVs4sIRA";

test("the form is k3s's", async () => {
  expect(await hashPassword("device", Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]))).toBe(known);
});

test.each([
  ["device", known, true],
  ["Device", known, false],
  ["device", "", false],
  ["device", known.replace("$1", "$2"), false],
  ["device", known.replace(":15:", ":25:"), false],
  ["device", known.replace("01020304", "zz020304"), false],
])("%s against %s", async (password, hash, isFitting) => {
  expect(await verifyPassword(password, hash)).toBe(isFitting);
});
