import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Payload, writeAtomically } from "./atomic-writer.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-atomic-");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const payload = (files: Record<string, string>, mode = 0o644): Payload =>
  new Map(Object.entries(files).map(([path, text]) => [path, { data: Buffer.from(text), mode }]));
const visible = () =>
  readdirSync(folder)
    .filter((name) => !name.startsWith(".."))
    .sort();

test("files appear through ..data with their modes", async () => {
  expect(await writeAtomically(folder, payload({ a: "1", "sub/b": "2" }, 0o400), "v1")).toBe(true);
  expect(visible()).toEqual(["a", "sub"]);
  expect(readlinkSync(`${folder}/a`)).toBe("..data/a");
  expect(readlinkSync(`${folder}/..data`)).toBe("..v1");
  expect(readFileSync(`${folder}/sub/b`, "utf8")).toBe("2");
  expect(statSync(`${folder}/a`).mode & 0o777).toBe(0o400);
});
test("nothing changes when nothing changed", async () => {
  await writeAtomically(folder, payload({ a: "1" }), "v1");
  expect(await writeAtomically(folder, payload({ a: "1" }), "v2")).toBe(false);
  expect(readlinkSync(`${folder}/..data`)).toBe("..v1");
});
test("a change swaps the whole set and leaves no old version", async () => {
  await writeAtomically(folder, payload({ a: "1", b: "1" }), "v1");
  expect(await writeAtomically(folder, payload({ a: "2", c: "2" }), "v2")).toBe(true);
  expect(visible()).toEqual(["a", "c"]);
  expect(readFileSync(`${folder}/a`, "utf8")).toBe("2");
  expect(readdirSync(folder).filter((name) => name.startsWith(".."))).toEqual(["..data", "..v2"]);
});
test("a key that goes inside a folder that stays is seen", async () => {
  await writeAtomically(folder, payload({ "d/a": "1", "d/b": "1" }), "v1");
  expect(await writeAtomically(folder, payload({ "d/a": "1" }), "v2")).toBe(true);
  expect(readdirSync(`${folder}/d`)).toEqual(["a"]);
});
test.each(["../x", "/x", "a/../x", "", "a//b", "..x"])("refuses the path %j", async (path) => {
  await expect(writeAtomically(folder, payload({ [path]: "1" }), "v1")).rejects.toMatchObject({
    code: "NODE_VOLUME_PATH",
  });
});
