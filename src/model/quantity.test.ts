import { describe, expect, test } from "vitest";
import {
  addQuantities,
  canonicalQuantity,
  compareQuantities,
  isQuantity,
  parseQuantity,
  subtractQuantities,
} from "./quantity.ts";

describe("canonical form", () => {
  // Pairs as kube-apiserver stores them.
  test.each([
    ["0", "0"],
    ["0.5", "500m"],
    ["1000m", "1"],
    ["1500m", "1500m"],
    ["100m", "100m"],
    ["1024", "1024"],
    ["1024Mi", "1Gi"],
    ["1.5Gi", "1536Mi"],
    ["1000Ki", "1000Ki"],
    ["1000k", "1M"],
    ["1e3", "1e3"],
    ["12e5", "1200e3"],
    ["0.001", "1m"],
    ["1u", "1u"],
    ["0.0000000001", "1n"],
    ["-2Gi", "-2Gi"],
    ["+1", "1"],
    [".5", "500m"],
    ["0.5Ki", "512"],
    ["100E", "9223372036854775807"],
    ["0Ki", "0"],
  ])("%s is %s", (text, expected) => expect(canonicalQuantity(text)).toBe(expected));
});

test.each(["", "-", ".", "1KB", "1 ", "Ki", "1ki", "1.2.3", "0x1", "1e", "__proto__"])("%j is refused", (text) =>
  expect(isQuantity(text)).toBe(false),
);

test("values round away from zero", () => {
  expect(parseQuantity("1m").value()).toBe(1n);
  expect(parseQuantity("-1m").value()).toBe(-1n);
  expect(parseQuantity("1u").milliValue()).toBe(1n);
  expect(parseQuantity("2500m").value()).toBe(3n);
  expect(parseQuantity("1Gi").value()).toBe(1073741824n);
});

test("comparison and arithmetic are exact and keep the format", () => {
  expect(compareQuantities("1Gi", "1024Mi")).toBe(0);
  expect(compareQuantities("999m", 1)).toBe(-1);
  expect(addQuantities("1Gi", "1Mi").toString()).toBe("1025Mi");
  expect(addQuantities("0", "1Ki").toString()).toBe("1Ki");
  expect(subtractQuantities("1", "100m").toString()).toBe("900m");
});
