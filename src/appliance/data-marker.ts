// One sector in front of all partitions that says how far the data partition has come: images ship it as "fresh", a device
// turns it to "formatted" when the file system it made is whole on the medium. It decides what a superblock alone cannot:
// whether an unreadable file system was never finished, or holds somebody's data. A write of one sector is old or new, or
// unreadable for good; the last counts as damaged, which never leads to formatting. Pure.
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";

export type DataMarker =
  | { readonly kind: "fresh" }
  /** By this device, with this UUID (32 hexadecimal digits). */
  | { readonly kind: "formatted"; readonly uuid: string }
  /** Zeros: the table was not made by an image of ours. */
  | { readonly kind: "absent" }
  | { readonly kind: "damaged" };

/** The last 4 KiB before the first partition, which starts at 4 MiB on every image. Devices in the field keep it. */
export const markerOffset = 4 * 1024 * 1024 - 4096;
/** One sector of most media, a part of one on the others. */
export const markerBytes = 512;
const checksumAt = markerBytes - 4;
const title = "mote data partition: ";

export function encodeMarker(marker: Extract<DataMarker, { kind: "fresh" | "formatted" }>): Uint8Array {
  const bytes = Buffer.alloc(markerBytes);
  bytes.write(`${title}${marker.kind}${marker.kind === "formatted" ? ` ${marker.uuid}` : ""}\n`, "latin1");
  bytes.writeUInt32LE(crc32(bytes.subarray(0, checksumAt)), checksumAt);
  return bytes;
}

export function decodeMarker(bytes: Uint8Array): DataMarker {
  const all = Buffer.from(bytes.subarray(0, markerBytes));
  if (all.every((byte) => byte === 0)) return { kind: "absent" };
  if (all.length < markerBytes || all.readUInt32LE(checksumAt) !== crc32(all.subarray(0, checksumAt))) {
    return { kind: "damaged" };
  }
  const text = all.toString("latin1", 0, checksumAt).replace(/\0.*$/s, "");
  if (text === `${title}fresh\n`) return { kind: "fresh" };
  const uuid = /^mote data partition: formatted ([0-9a-f]{32})\n$/.exec(text)?.[1];
  return uuid === undefined ? { kind: "damaged" } : { kind: "formatted", uuid };
}
