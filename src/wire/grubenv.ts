// GRUB's environment block: the file on the boot partition through which boot loader and userland agree on the slot to
// start. Always 1024 bytes, so that the loader can rewrite it without knowing the file system. `protect` adds a checksum
// for the copy that is kept elsewhere, since a block cut in the middle of a write still looks like one.
// Upstream counterpart: grub-editenv, grub-core/lib/envblk.
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { AppError } from "#base/errors.ts";

export const grubenvSize = 1024;
const header = "# GRUB Environment Block\n";
const filler = "#".charCodeAt(0);

/** The variables in order, or undefined where these bytes are no whole environment block. */
export function decodeGrubenv(bytes: Uint8Array): Map<string, string> | undefined {
  if (bytes.length !== grubenvSize) return undefined;
  const text = Buffer.from(bytes).toString("latin1");
  if (!text.startsWith(header)) return undefined;
  const variables = new Map<string, string>();
  let at = header.length;
  while (at < text.length) {
    if (text[at] === "#") {
      // A remark, or the filling up to the end.
      const end = text.indexOf("\n", at);
      if (end < 0) break;
      at = end + 1;
      continue;
    }
    let line = "";
    for (; at < text.length && text[at] !== "\n"; at++) {
      if (text[at] === "\\") at++;
      line += text[at] ?? "";
    }
    if (at >= text.length) return undefined;
    at++;
    const equals = line.indexOf("=");
    if (equals <= 0) return undefined;
    variables.set(line.slice(0, equals), Buffer.from(line.slice(equals + 1), "latin1").toString("utf8"));
  }
  return variables;
}

/** Throws WIRE_GRUBENV when a name is not allowed or the variables need more than the block has. */
export function encodeGrubenv(variables: ReadonlyMap<string, string>): Uint8Array {
  let text = header;
  for (const [name, value] of variables) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw new AppError("WIRE_GRUBENV", `"${name}" is not allowed as a name; use letters, digits and '_'`);
    }
    text += `${name}=${Buffer.from(value, "utf8")
      .toString("latin1")
      .replace(/[\\\n]/g, "\\$&")}\n`;
  }
  if (text.length > grubenvSize) {
    throw new AppError("WIRE_GRUBENV", `the variables need ${text.length} bytes of ${grubenvSize}`);
  }
  const block = Buffer.alloc(grubenvSize, filler);
  block.write(text, "latin1");
  return block;
}

/** The block followed by its CRC-32, little endian. */
export function protect(block: Uint8Array): Uint8Array {
  const out = Buffer.alloc(block.length + 4);
  out.set(block);
  out.writeUInt32LE(crc32(block), block.length);
  return out;
}

/** What `protect` was given, or undefined where bytes changed since. */
export function unprotect(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length < 4) return undefined;
  const block = bytes.subarray(0, -4);
  return Buffer.from(bytes.subarray(-4)).readUInt32LE() === crc32(block) ? block : undefined;
}
