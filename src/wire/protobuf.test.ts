import { describe, expect, test } from "vitest";
import { criTable } from "./gen/cri.ts";
import { createWireCodec } from "./protobuf.ts";

const codec = createWireCodec(`Outer
 text 1 string
 small 2 int32
 big 3 int64
 flag 4 bool
 blob 5 bytes
 inner 6 Inner
 many 7 []Inner
 numbers 8 []int32
 labels 9 {}string
 choice 16 bool p
 real 17 double
 unsigned 18 uint64
Inner
 name 1 string
`);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("encoding", () => {
  // Bytes computed by hand from the protobuf encoding guide.
  const cases: [string, object, string][] = [
    ["zero values are left out", { text: "", small: 0, flag: false, numbers: [], labels: {} }, ""],
    ["string", { text: "testing" }, "0a0774657374696e67"],
    ["varint", { small: 150 }, "109601"],
    ["negative int32 takes ten bytes", { small: -2 }, "10feffffffffffffffff01"],
    ["bigint", { big: 2n ** 62n }, "18808080808080808040"],
    ["message", { inner: { name: "a" } }, "32030a0161"],
    ["empty message is present", { inner: {} }, "3200"],
    ["packed list", { numbers: [3, 270, 86942] }, "4206038e029ea705"],
    ["sorted map", { labels: { b: "2", a: "1" } }, "4a060a01611201314a060a0162120132"],
    ["oneof keeps false", { choice: false }, "800100"],
    ["double", { real: 1.5 }, "8901000000000000f83f"],
    ["a message longer than 127 bytes", { inner: { name: "x".repeat(200) } }, `32cb010ac801${"78".repeat(200)}`],
  ];
  test.each(cases)("%s", (_, value, expected) => {
    expect(hex(codec.encode("Outer", value))).toBe(expected);
  });
});

test("what was encoded decodes to the same, with zero values filled in", () => {
  const value = {
    text: "héllo",
    small: -5,
    big: -(2n ** 60n),
    flag: true,
    blob: new Uint8Array([0, 255]),
    inner: { name: "n" },
    many: [{ name: "a" }, { name: "" }],
    numbers: [1, -1],
    labels: { k: "v", __proto__x: "" },
    choice: false,
    real: -0.25,
    unsigned: 2n ** 64n - 1n,
  };
  expect(codec.decode("Outer", codec.encode("Outer", value))).toEqual(value);
  expect(codec.decode("Outer", new Uint8Array())).toEqual({
    text: "",
    small: 0,
    big: 0,
    flag: false,
    blob: new Uint8Array(),
    many: [],
    numbers: [],
    labels: {},
    real: 0,
    unsigned: 0,
  });
});

test("unknown fields are skipped and unpacked lists are read", () => {
  const bytes = Buffer.from("9a06024142" + "40034001" + "a5060000000" + "0", "hex");
  expect(codec.decode("Outer", bytes)["numbers"]).toEqual([3, 1]);
});

test("a map key cannot reach a prototype", () => {
  const bytes = Buffer.from(`4a0e0a09${Buffer.from("__proto__").toString("hex")}120178`, "hex");
  const labels = codec.decode("Outer", bytes)["labels"] as object;
  expect(Object.keys(labels)).toEqual(["__proto__"]);
  expect(Object.getPrototypeOf(labels)).toBe(Object.prototype);
});

describe("malformed input is refused", () => {
  test.each([
    ["truncated varint", "10ff"],
    ["length beyond the end", "0a05616161"],
    ["wrong wire type", "0d00000000"],
    ["field number 0", "0000"],
    ["group", "0b0c"],
    ["eleven byte varint", "10ffffffffffffffffffff01"],
  ])("%s", (_, input) => {
    expect(() => codec.decode("Outer", Buffer.from(input, "hex"))).toThrow(/malformed protobuf/);
  });
});

test("the CRI table knows every message it refers to", () => {
  const cri = createWireCodec(criTable);
  for (const name of criTable.split("\n").filter((line) => line !== "" && !line.startsWith(" ")))
    for (const field of cri.message(name).fields) expect(field.message?.().name ?? "").not.toBeUndefined();
});
