import { expect, test } from "vitest";
import { parseJson, parseJsonFast } from "./json.ts";

test.each([
  '{"a":[1,-2.5e3,true,false,null,"x\\n\\u00e9\\ud83d\\ude00"],"b":{}}',
  " [ ] ",
  '"é"',
  "0",
  '{"":{"a":[[]]}}',
])("%s reads as JSON.parse does", (text) => expect(parseJson(text)).toEqual(JSON.parse(text)));

test.each([
  ["", "unexpected end of JSON input"],
  ["{", "unexpected end of JSON input"],
  ["nul", "unexpected end of JSON input"],
  ['"abc', "unexpected end of JSON input"],
  ["{a", "invalid character 'a' looking for beginning of object key string"],
  ['{"a" 1}', "invalid character '1' after object key"],
  ['{"a":1 "b"', "invalid character '\"' after object key:value pair"],
  ["[1 2]", "invalid character '2' after array element"],
  ["1 x", "invalid character 'x' after top-level value"],
  ["trux", "invalid character 'x' in literal true (expecting 'e')"],
  ["-x", "invalid character 'x' in numeric literal"],
  ["'", "invalid character '\\'' looking for beginning of value"],
  ['"a\nb"', "invalid character '\\n' in string literal"],
  ['"\\x"', "invalid character 'x' in string escape code"],
  ['"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"],
  ["[".repeat(2_002), "exceeded max depth"],
])("%j is refused as Go does", (text, message) => {
  expect(() => parseJson(text)).toThrowError(expect.objectContaining({ code: "JSON_SYNTAX", message }));
});

test("duplicates are reported with their path; the last one wins", () => {
  const paths: string[] = [];
  const value = parseJson('{"a":1,"a":{"b":[{"c":1,"c":2}]}}', { onDuplicate: (path) => paths.push(path) });
  expect(value).toEqual({ a: { b: [{ c: 2 }] } });
  expect(paths).toEqual(["a", "a.b[0].c"]);
});

test("large whole numbers are kept on request", () => {
  expect(parseJson("[9007199254740993,1e20,5]", { bigints: true })).toEqual([9007199254740993n, 1e20, 5]);
});

test("__proto__ is an ordinary member", () => {
  const value = parseJson('{"__proto__":{"x":1}}') as { x?: number };
  expect(Object.keys(value)).toEqual(["__proto__"]);
  expect(value.x).toBeUndefined();
});

test("the fast reader keeps the bound and the words", () => {
  const brackets = JSON.stringify({ a: "[".repeat(5000) });
  expect(parseJsonFast(brackets)).toEqual(JSON.parse(brackets));
  expect(() => parseJsonFast(`${"[".repeat(5000)}${"]".repeat(5000)}`)).toThrowError("exceeded max depth");
  expect(() => parseJsonFast("{a")).toThrowError("invalid character 'a' looking for beginning of object key string");
});
