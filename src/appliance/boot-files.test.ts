import { describe, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { decodeText, maxBootFileBytes, namesOf } from "./boot-files.ts";

const utf16be = (text: string) => Buffer.from(text, "utf16le").swap16();
const bytes = (...parts: (Buffer | number[])[]) => Buffer.concat(parts.map((part) => Buffer.from(part)));

describe("decodeText", () => {
  const text = "server=https://a\ntoken=ü\n";
  test.each([
    ["UTF-8", Buffer.from(text)],
    ["UTF-8 with mark", bytes([0xef, 0xbb, 0xbf], Buffer.from(text))],
    ["UTF-16 little endian with mark", bytes([0xff, 0xfe], Buffer.from(text, "utf16le"))],
    ["UTF-16 big endian with mark", bytes([0xfe, 0xff], utf16be(text))],
    ["UTF-16 little endian", Buffer.from(text, "utf16le")],
    ["UTF-16 big endian", utf16be(text)],
    ["CRLF", Buffer.from(text.replaceAll("\n", "\r\n"))],
    ["CR", Buffer.from(text.replaceAll("\n", "\r"))],
  ])("reads %s", (_, data) => expect(decodeText(data)).toBe(text));

  test("an empty file is an empty text", () => expect(decodeText(new Uint8Array())).toBe(""));

  test.each([
    ["Latin-1", Buffer.from("ü", "latin1"), /UTF-8/],
    ["zero bytes", Buffer.from("ab\0\0\0"), /zero bytes/],
    ["half a UTF-16 unit", bytes([0xff, 0xfe, 0x41]), /UTF-8/],
    ["a film", Buffer.alloc(maxBootFileBytes + 1, "a"), /at most 65536/],
  ])("refuses %s", (_, data, message) => expect(() => decodeText(data)).toThrow(message));

  test("random bytes are either text or refused", () => {
    const random = seededRandom(3);
    for (let i = 0; i < 500; i++) {
      const data = random.bytes(Math.floor(random.float() * 40));
      try {
        expect(decodeText(data)).not.toMatch(/[\r\0]/);
      } catch (error) {
        expect(error).toMatchObject({ code: "APPLIANCE_TEXT" });
      }
    }
  });
});

test("file names are found as people and systems spell them", () => {
  const names = [
    "._token",
    "TOKEN.TXT",
    "token.txt",
    "Token",
    "token",
    "MOTE.YML",
    "mote.yaml.txt",
    "Factory-Reset.txt",
  ];
  names.push("tokens", "mote.yaml.bak", "mote-status.txt");
  expect(namesOf("token", names)).toEqual(["token", "Token", "TOKEN.TXT", "token.txt"]);
  expect(namesOf("mote.yaml", names)).toEqual(["MOTE.YML", "mote.yaml.txt"]);
  expect(namesOf("factory-reset", names)).toEqual(["Factory-Reset.txt"]);
});
