// The log of a recorded device, parsed: what we encode, and the first bytes of a log that QEMU 7.2 wrote.
import { describe, expect, it } from "vitest";
import {
  countLogEntries,
  encodeLog,
  type LogRecordInput,
  parseLog,
  type ReadAt,
} from "#scripts/qemu/power-loss-log.ts";

const reader =
  (bytes: Uint8Array): ReadAt =>
  (offset, length) =>
    bytes.subarray(offset, offset + length);
const sectors = (count: number, fill: number) => new Uint8Array(count * 512).fill(fill);

describe("parseLog", () => {
  it("reads back what was encoded", () => {
    const records: LogRecordInput[] = [
      { sector: 8, data: sectors(2, 1) },
      { flush: true },
      { sector: 2 ** 33, data: sectors(1, 2), fua: true },
      { sector: 16, data: sectors(4, 0), discard: true },
      { mark: "begin" },
      { sector: 9, data: sectors(1, 3), flush: true },
    ];
    const bytes = encodeLog(records);
    const { entries, sizeBytes } = parseLog(reader(bytes));
    expect(sizeBytes).toBe(bytes.length);
    expect(entries.map((e) => [e.sector, e.sectorCount, e.flush, e.fua, e.discard, e.mark])).toEqual([
      [8, 2, false, false, false, undefined],
      [0, 0, true, false, false, undefined],
      [2 ** 33, 1, false, true, false, undefined],
      [16, 4, false, false, true, undefined],
      [0, 0, false, false, false, "begin"],
      [9, 1, true, false, false, undefined],
    ]);
    expect(entries.map((e) => (e.sectorCount > 0 && !e.discard ? bytes[e.dataOffset] : 0))).toEqual([1, 0, 2, 0, 0, 3]);
  });

  it("knows the superblock that blklogwrites writes", () => {
    const head = Buffer.alloc(1024);
    Buffer.from("7268737766736a00010000000000000001000000000000000002000000000000", "hex").copy(head);
    head.writeUInt8(1, 512 + 16);
    const { entries } = parseLog(reader(head));
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatchObject({ flush: true, sectorCount: 0 });
  });

  it("takes a file that nothing was written to for an empty log", () => {
    expect(countLogEntries(reader(new Uint8Array(512)))).toBe(0);
    expect(countLogEntries(reader(new Uint8Array(0)))).toBe(0);
  });

  const good = encodeLog([{ sector: 1, data: sectors(1, 1) }, { flush: true }]);
  const changed = (offset: number, value: number) => {
    const bytes = good.slice();
    bytes[offset] = value;
    return bytes;
  };
  it.each([
    ["another magic number", changed(0, 1), /magic/],
    ["another version", changed(8, 2), /format 2/],
    ["another sector size", changed(25, 16), /sectors of 4096/],
    ["an unknown flag", changed(512 + 16, 0x20), /entry 0 is malformed/],
    ["an end within", good.slice(0, 1024), /ends at entry 1 of 2/],
  ])("refuses %s", (_, bytes, message) => {
    expect(() => parseLog(reader(bytes))).toThrow(message);
  });
});
