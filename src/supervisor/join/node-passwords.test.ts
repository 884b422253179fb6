import { expect, test } from "vitest";
import { Client } from "#client/client.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { conflict } from "#model/status.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { hashPassword, NodePasswords, verifyPassword } from "./node-passwords.ts";

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

async function taken() {
  const transport = new FakeTransport();
  const client = new Client(transport);
  const passwords = new NodePasswords({ client: () => client, clock: new FakeClock(), random: seededRandom(1) });
  const claim = { node: "kiosk", password: "of the owner", deviceKey: undefined };
  expect(await passwords.claim(claim)).toBe(true);
  return { transport, again: () => passwords.claim({ ...claim, deviceKey: "its key" }) };
}

test("whoever comes in between while the key of a device is noted has the name", async () => {
  const { transport, again } = await taken();
  const hash = Buffer.from(await hashPassword("of a thief", Uint8Array.of(1))).toString("base64");
  transport.fail = (request) => {
    if (request.method !== "POST") return undefined;
    transport.fail = () => undefined;
    void transport.request({ ...request, body: { ...(request.body as Secret), data: { hash } } });
    return undefined;
  };
  expect(await again()).toBe(false);
  expect(transport.log.filter((line) => line.startsWith("POST"))).toHaveLength(3);
});

test("two requests of one device that note its key at once are both let in", async () => {
  const { transport, again } = await taken();
  transport.fail = ({ method }) =>
    method === "DELETE" ? conflict({ group: "", resource: "secrets" }, "kiosk", "another uid") : undefined;
  expect(await again()).toBe(true);
});
