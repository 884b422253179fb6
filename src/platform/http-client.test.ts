import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { readBody } from "./http-client.ts";

test.each<[string, (whole: Buffer) => Buffer, string]>([
  ["cut off", (whole) => whole.subarray(0, whole.length - 20), "unexpected end of file"],
  ["spoilt", (whole) => Buffer.from(whole).fill(0, 100, 200), "invalid"],
])("a compressed answer that is %s is a failure", async (_, spoil, message) => {
  const whole = gzipSync(Buffer.from(Array.from({ length: 3000 }, (_, i) => String(i * 7919)).join(",")));
  const body = () => Readable.from([spoil(whole)]);
  const response = () => ({ status: 200, headers: { "content-encoding": "gzip" }, body: body(), destroy() {} });
  await expect(readBody(response(), 1_000_000)).rejects.toThrow(message);
});

test("a compressed answer is bounded by what it unpacks to", async () => {
  const body = Readable.from([gzipSync(Buffer.alloc(1_000_000))]);
  const response = { status: 200, headers: { "content-encoding": "gzip" }, body, destroy() {} };
  await expect(readBody(response, 100_000)).rejects.toMatchObject({ code: "HTTP_TOO_LARGE" });
  expect(body.destroyed).toBe(true);
});
