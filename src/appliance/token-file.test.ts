import { describe, expect, test } from "vitest";
import { parseTokenFile } from "./token-file.ts";

const full = `K10${"0123456789abcdef".repeat(4)}::server:secret`;

describe("token file", () => {
  test.each([
    ["secret", { token: "secret" }],
    ["\n  secret \t\n\n", { token: "secret" }],
    ["# from the web page\nsecret\n", { token: "secret" }],
    ['"secret"', { token: "secret" }],
    [full, { token: full }],
    ["abcdef.0123456789abcdef", { token: "abcdef.0123456789abcdef" }],
    ["token=secret", { token: "secret" }],
    [`server=https://10.0.0.1:6443 token=${full}`, { server: "https://10.0.0.1:6443", token: full }],
    ["TOKEN = secret\nSERVER = a.example", { server: "https://a.example:6443", token: "secret" }],
    ["server: 'https://a.example:443/'\ntoken: s", { server: "https://a.example:443", token: "s" }],
    ["token=a=b==", { token: "a=b==" }],
  ])("%j", (text, expected) => expect(parseTokenFile(text)).toEqual(expected));

  test.each([
    ["", /empty/],
    ["# only a remark", /empty/],
    ["one\ntwo", /2 lines/],
    ["one two", /blanks/],
    ["tökenchen", /ASCII/],
    ["x".repeat(1025), /1025 characters/],
    ["server=https://a:6443", /server without token/],
    ["token=", /empty/],
    ["token=a token=b", /twice/],
    ["token=a tokn=b", /not understood after the token/],
    ["server=http://a token=b", /"http:\/\/a" is not allowed; use https:\/\/HOST:6443/],
    ["server=https://a/path token=b", /not allowed/],
    ["server=https://[ token=b", /not allowed/],
  ])("refuses %j", (text, message) => expect(() => parseTokenFile(text)).toThrow(message));

  test("no message repeats the token", () => {
    for (const text of [
      "hush hush",
      "token=hush hush",
      "token=hush token=hush",
      `hush${"x".repeat(2000)}`,
      "hush\nhush",
    ]) {
      expect(() => parseTokenFile(text)).toThrow(
        expect.objectContaining({ message: expect.not.stringContaining("hush") }),
      );
    }
  });
});
