// Files that a person drops on the boot partition, as Windows, macOS and Linux leave them there: UTF-8 or UTF-16, with or
// without byte order mark, CRLF, `.txt` appended, any case. Pure.
import { Buffer } from "node:buffer";
import { AppError } from "#base/errors.ts";

export const bootFileKinds = ["token", "mote.yaml", "factory-reset"] as const;
export type BootFileKind = (typeof bootFileKinds)[number];

const patterns: Readonly<Record<BootFileKind, RegExp>> = {
  token: /^token(\.txt)*$/i,
  "mote.yaml": /^mote\.ya?ml(\.txt)*$/i,
  "factory-reset": /^factory[-_ ]?reset(\.txt)*$/i,
};

/** Names that somebody probably meant for one of these kinds, but that are none: `mote.json`, `token.rtf`. */
export function strangersOf(names: readonly string[]): string[] {
  return names
    .filter((name) => /^(token|mote|factory[-_ ]?reset)\b/i.test(name) && !/^mote-status\.txt$/i.test(name))
    .filter((name) => !bootFileKinds.some((kind) => patterns[kind].test(name)))
    .sort()
    .slice(0, maxStrangers);
}

/** In one status file. */
const maxStrangers = 5;

/** Larger than any configuration; a film named mote.yaml must not fill the memory. */
export const maxBootFileBytes = 64 * 1024;

/** The names of that kind, the one spelled as documented first, then the shorter. Hidden copies of macOS (`._token`) are none. */
export function namesOf(kind: BootFileKind, names: readonly string[]): string[] {
  return names
    .filter((name) => patterns[kind].test(name))
    .sort((a, b) => Number(b === kind) - Number(a === kind) || a.length - b.length || (a < b ? -1 : Number(a > b)));
}

/** The text with line ends as "\n" and without byte order mark. Throws APPLIANCE_TEXT where it is no text. */
export function decodeText(bytes: Uint8Array): string {
  if (bytes.length > maxBootFileBytes) {
    throw new AppError("APPLIANCE_TEXT", `${bytes.length} bytes long; at most ${maxBootFileBytes} are allowed`);
  }
  let text: string;
  try {
    text = new TextDecoder(encodingOf(bytes), { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new AppError("APPLIANCE_TEXT", "is no text in UTF-8 or UTF-16; save it as UTF-8", {}, { cause });
  }
  if (text.includes("\0")) throw new AppError("APPLIANCE_TEXT", "contains zero bytes; save it as UTF-8 text");
  return text.replace(/\r\n?/g, "\n");
}

/** By byte order mark; without one, ASCII in UTF-16 shows by its zero bytes. TextDecoder drops the mark itself. */
function encodingOf(bytes: Uint8Array): string {
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return "utf-16le";
  if (first === 0xfe && second === 0xff) return "utf-16be";
  if (bytes.length >= 2 && first !== 0 && second === 0) return "utf-16le";
  if (bytes.length >= 2 && first === 0 && second !== 0) return "utf-16be";
  return "utf-8";
}

/** For one's own files, which are UTF-8 already. */
export const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8");
