// The readers against made-up text and bytes: JSON as JSON.parse reads it, YAML as it was printed, protobuf as it was
// encoded; what is malformed is refused with an error that says so, never with another. Seeds are in the test's name.
import { expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { parseJson, parseJsonFast } from "./json.ts";
import { createWireCodec } from "./protobuf.ts";
import { parseYaml, stringifyYaml } from "./yaml.ts";

const seeds = [1, 2, 3, 4];
const texts = [
  ...[
    "",
    "a",
    "yes",
    "No",
    "on",
    "null",
    "~",
    "true",
    "0777",
    "0x1F",
    "1_000",
    "1e3",
    ".5",
    "-",
    "- a",
    "a: b",
    "a:",
    "#x",
  ],
  ...[
    "x #y",
    "22:22",
    "1:2:3",
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    "<<",
    "=",
    "!!str",
    "&a",
    "*a",
    "|",
    ">",
    "%",
    "@",
    "`",
  ],
  ...[
    "{",
    "}",
    "[a]",
    '"',
    "'",
    "\\",
    "a\nb",
    "a\n",
    "\n",
    " lead",
    "trail ",
    "\t",
    "é",
    "\u0001",
    "\u2028",
    "😀",
    "__proto__",
  ],
  ...["a,b", "?", "? x", "---", "...", "0b1", "0o7", "+1", ".inf", ".nan", "1.", "12e03", "y", "N", "x".repeat(200)],
];
const numbers = [0, -1, 1, 1.5, 1e21, -2.5e-7, 2 ** 53 - 1, 123456789];

function makers(seed: number) {
  const random = seededRandom(seed);
  const below = (count: number) => Math.floor(random.float() * count);
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;
  const value = (depth: number): unknown => {
    switch (below(depth > 0 ? 6 : 4)) {
      case 0:
        return pick(numbers);
      case 1:
        return pick([true, false, null]);
      case 4:
        return Array.from({ length: below(4) }, () => value(depth - 1));
      case 5:
        return Object.fromEntries(Array.from({ length: below(5) }, () => [pick(texts), value(depth - 1)]));
      default:
        return pick(texts);
    }
  };
  /** Some characters taken out, put in, or doubled. */
  const broken = (text: string): string => {
    let out = text;
    for (let i = below(3); i >= 0; i--) {
      const at = below(out.length + 1);
      out =
        out.slice(0, at) +
        pick(["", "}", "]", '"', ",", ":", "\\", "\\u12", "-", "0", "e", " ", "\u0000", "nul"]) +
        out.slice(at + below(3));
    }
    return out;
  };
  return { below, pick, value, broken, random };
}

const outcome = (read: () => unknown): unknown => {
  try {
    return { value: read() };
  } catch (error) {
    return error;
  }
};

test.each(seeds)("JSON reads as JSON.parse reads it, or neither does (seed %i)", (seed) => {
  const { value, broken, below } = makers(seed);
  let refused = 0;
  for (let i = 0; i < 3000; i++) {
    const good = JSON.stringify(value(4), null, below(2));
    const text = i % 2 === 0 ? good : broken(good);
    const expected = outcome(() => JSON.parse(text));
    for (const read of [parseJson, parseJsonFast]) {
      const found = outcome(() => read(text));
      if (expected instanceof Error) {
        expect(found, text).toMatchObject({ code: "JSON_SYNTAX" });
        refused++;
      } else expect(JSON.stringify(found), text).toBe(JSON.stringify(expected));
    }
  }
  expect(refused).toBeGreaterThan(500);
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
});

test.each(seeds)("YAML that was printed reads as what it was, and broken YAML is refused as such (seed %i)", (seed) => {
  const { value, broken } = makers(seed);
  for (let i = 0; i < 250; i++) {
    const made = { value: value(3) };
    const text = stringifyYaml(made);
    expect(JSON.stringify(parseYaml(text)), text).toBe(JSON.stringify(made));
    const found = outcome(() => parseYaml(broken(text)));
    if (found instanceof Error) expect(found, text).toBeInstanceOf(AppError);
  }
});

const codec = createWireCodec(`Node
 text 1 string
 small 2 int32
 big 3 int64
 flag 4 bool
 blob 5 bytes
 inner 6 Node
 many 7 []Node
 numbers 8 []int32
 labels 9 {}string
 real 17 double
`);
test.each(seeds)("protobuf: what was encoded is decoded, and bytes that are none are refused (seed %i)", (seed) => {
  const { below, pick, random } = makers(seed);
  const node = (depth: number): Record<string, unknown> => ({
    text: pick(texts),
    small: pick([0, -1, 2 ** 31 - 1]),
    big: pick([0n, -1n, 2n ** 62n, -(2n ** 63n)]),
    flag: below(2) === 1,
    blob: random.bytes(below(9)),
    ...(depth > 0 && below(2) === 0 ? { inner: node(depth - 1) } : {}),
    many: depth > 0 ? Array.from({ length: below(3) }, () => node(depth - 1)) : [],
    numbers: Array.from({ length: below(4) }, () => pick([0, 1, -7, 300])),
    labels: Object.fromEntries(Array.from({ length: below(4) }, () => [pick(texts), pick(texts)])),
    real: pick([0, -0.25, 1e300]),
  });
  let refused = 0;
  for (let i = 0; i < 400; i++) {
    const bytes = codec.encode("Node", node(3));
    const decoded = codec.decode("Node", bytes);
    expect(Buffer.from(codec.encode("Node", decoded)).equals(Buffer.from(bytes))).toBe(true);
    const damaged = Uint8Array.from(bytes.subarray(0, below(bytes.length) + 1));
    damaged[below(damaged.length)] = below(256);
    const found = outcome(() => codec.decode("Node", damaged));
    if (found instanceof Error) {
      refused++;
      expect(found).toBeInstanceOf(AppError);
    }
    const noise = outcome(() => codec.decode("Node", random.bytes(below(40))));
    if (noise instanceof Error) expect(noise).toBeInstanceOf(AppError);
  }
  expect(refused).toBeGreaterThan(50);
});
