import { describe, expect, test } from "vitest";
import { ipAt, ipToNumber, offsetIn, parseIpRange, parseIpRanges } from "./ip-range.ts";

describe("addresses", () => {
  test.each<[string, bigint | undefined]>([
    ["0.0.0.0", 0n],
    ["10.43.0.1", 0x0a2b0001n],
    ["::", 0n],
    ["::1", 1n],
    ["1::", 1n << 112n],
    ["fd00:43::a", (0xfd000043n << 96n) | 10n],
    ["::ffff:1.2.3.4", 0xffff01020304n],
    ["1:2:3:4:5:6:7:8", 0x00010002000300040005000600070008n],
    ["10.43.0.256", undefined],
    ["10.43.0", undefined],
    ["010.43.0.1", undefined],
    ["1:2:3:4:5:6:7", undefined],
    ["1:2:3:4:5:6:7:8:9", undefined],
    ["1:2:3:4::5:6:7:8", undefined],
    ["1::2::3", undefined],
    ["1.2.3.4::", undefined],
    ["fd00::g", undefined],
    [":::", undefined],
    ["", undefined],
  ])("%s", (text, number) => {
    expect(ipToNumber(text)).toBe(number);
  });
});

describe("ranges", () => {
  test.each<[string, number, string]>([
    ["10.43.0.0/16", 258, "10.43.1.2"],
    ["10.43.7.9/16", 1, "10.43.0.1"],
    ["fd00:43::/112", 10, "fd00:43::a"],
    ["fd00:43::/108", 65_536, "fd00:43::1:0"],
    ["fd00:0:0:1::/112", 1, "fd00:0:0:1::1"],
    ["2001:db8:0:1:1:1:1:0/112", 5, "2001:db8:0:1:1:1:1:5"],
    ["1:0:0:2:0:0:0:0/112", 1, "1:0:0:2::1"],
    ["::/112", 0, "::"],
  ])("%s + %i", (cidr, offset, address) => {
    const range = parseIpRange(cidr)!;
    expect(ipAt(range, offset)).toBe(address);
    expect(offsetIn(range, address)).toBe(offset);
  });
  test.each(["10.43.0.0", "10.43.0.0/33", "10.43.0.0/1/2", "fd00::/129", "fd00::/-1", "x/16", ""])("no: %s", (cidr) => {
    expect(parseIpRange(cidr)).toBeUndefined();
  });
  test.each<[string, string]>([
    ["10.43.0.0/16", "10.44.0.0"],
    ["10.43.0.0/16", "10.42.255.255"],
    ["10.43.0.0/16", "fd00::1"],
    ["fd00:43::/112", "fd00:43::1:0"],
    ["fd00:43::/112", "nonsense"],
  ])("%s is without %s", (cidr, address) => {
    expect(offsetIn(parseIpRange(cidr)!, address)).toBeUndefined();
  });
  test("several, in their order", () => {
    expect(parseIpRanges("10.43.0.0/16, fd00::/112").map(({ family }) => family)).toEqual(["IPv4", "IPv6"]);
  });
});
