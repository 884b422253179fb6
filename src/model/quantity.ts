// resource.Quantity: an exact decimal with a suffix. `100m`, `1Gi`, `2e3`, `0.5`.
// The value is kept as an integer count of nano units (finer input is rounded up, as upstream); arithmetic is on bigint.
// Canonical form: no fraction where a smaller suffix avoids it, the largest suffix that keeps the number whole, and the
// family of suffixes (binary, decimal, exponent) in which the value was written.
import { AppError } from "#base/errors.ts";

export type QuantityFormat = "BinarySI" | "DecimalSI" | "DecimalExponent";

export interface Quantity {
  readonly nano: bigint;
  readonly format: QuantityFormat;
  /** Whole units, rounded away from zero (as Quantity.Value). */
  value(): bigint;
  /** Thousandths, rounded away from zero (as Quantity.MilliValue). */
  milliValue(): bigint;
  toString(): string;
}

const nanoPerUnit = 1_000_000_000n;
/** Upstream caps what it parses at 2^63-1 units. */
const maxNano = (2n ** 63n - 1n) * nanoPerUnit;
const binarySuffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const decimalSuffixes: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  "": 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const suffixByExponent = new Map(Object.entries(decimalSuffixes).map(([suffix, exponent]) => [exponent, suffix]));
const syntax = /^([+-]?)(\d*)(?:\.(\d*))?(?:([eE][+-]?\d+)|([A-Za-z]{0,2}))$/;
/** Longer texts carry no more information; bounds the work done for hostile input. */
const maxTextLength = 1024;

export const quantityError =
  "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/** Rejects with QUANTITY_SYNTAX. */
export function parseQuantity(text: string | number): Quantity {
  const input = String(text);
  const match = input.length > maxTextLength ? null : syntax.exec(input);
  if (!match || (match[2] === "" && (match[3] ?? "") === "")) throw new AppError("QUANTITY_SYNTAX", quantityError);
  const [, sign, whole = "", fraction = "", exponentText, suffix = ""] = match;
  let format: QuantityFormat = "DecimalSI";
  let multiplier = 1n;
  let exponent = 0;
  if (exponentText !== undefined) {
    format = "DecimalExponent";
    exponent = Number(exponentText.slice(1));
  } else if (suffix.endsWith("i")) {
    const power = binarySuffixes.indexOf(suffix);
    if (power < 1) throw new AppError("QUANTITY_SYNTAX", "unable to parse quantity's suffix");
    format = "BinarySI";
    multiplier = 1024n ** BigInt(power);
  } else {
    const decimal = Object.hasOwn(decimalSuffixes, suffix) ? decimalSuffixes[suffix] : undefined;
    if (decimal === undefined) throw new AppError("QUANTITY_SYNTAX", "unable to parse quantity's suffix");
    exponent = decimal;
  }
  // Beyond these the result is zero or the cap whatever the digits are.
  if (Math.abs(exponent) > 2 * maxTextLength) exponent = Math.sign(exponent) * 2 * maxTextLength;
  const digits = BigInt(`${whole}${fraction}` || "0") * multiplier;
  const shift = exponent - fraction.length + 9;
  const magnitude = shift >= 0 ? digits * 10n ** BigInt(shift) : divideUp(digits, 10n ** BigInt(-shift));
  const capped = magnitude > maxNano ? maxNano : magnitude;
  return quantityOf(sign === "-" ? -capped : capped, format);
}

export function isQuantity(text: unknown): boolean {
  if (typeof text !== "string" && typeof text !== "number") return false;
  try {
    parseQuantity(text);
    return true;
  } catch {
    // The question was whether it parses.
    return false;
  }
}

type QuantityLike = Quantity | string | number;
const read = (value: QuantityLike): Quantity => (typeof value === "object" ? value : parseQuantity(value));

export function compareQuantities(a: QuantityLike, b: QuantityLike): -1 | 0 | 1 {
  const left = read(a).nano;
  const right = read(b).nano;
  return left < right ? -1 : left > right ? 1 : 0;
}
/** The sum keeps the format of `a`, or of `b` where `a` is zero (as upstream). */
export function addQuantities(a: QuantityLike, b: QuantityLike): Quantity {
  const left = read(a);
  const right = read(b);
  return quantityOf(left.nano + right.nano, left.nano === 0n ? right.format : left.format);
}
export function subtractQuantities(a: QuantityLike, b: QuantityLike): Quantity {
  const left = read(a);
  const right = read(b);
  return quantityOf(left.nano - right.nano, left.nano === 0n ? right.format : left.format);
}
/** The text as the API stores it: `1000m` becomes `1`, `0.5` becomes `500m`. */
export const canonicalQuantity = (text: string | number): string => parseQuantity(text).toString();

function quantityOf(nano: bigint, format: QuantityFormat): Quantity {
  return {
    nano,
    format,
    value: () => roundAway(nano, nanoPerUnit),
    milliValue: () => roundAway(nano, 1_000_000n),
    toString: () => print(nano, format),
  };
}

function print(nano: bigint, format: QuantityFormat): string {
  if (nano === 0n) return "0";
  const sign = nano < 0n ? "-" : "";
  const magnitude = nano < 0n ? -nano : nano;
  // Binary suffixes cannot express fractions or small numbers; those print as decimals.
  if (format === "BinarySI" && magnitude % nanoPerUnit === 0n && magnitude >= 1024n * nanoPerUnit) {
    let value = magnitude / nanoPerUnit;
    let power = 0;
    while (power < binarySuffixes.length - 1 && value % 1024n === 0n) {
      value /= 1024n;
      power++;
    }
    return `${sign}${value}${binarySuffixes[power]}`;
  }
  let value = magnitude;
  let exponent = -9;
  while (exponent < 18 && value % 1000n === 0n) {
    value /= 1000n;
    exponent += 3;
  }
  if (format === "DecimalExponent") return exponent === 0 ? `${sign}${value}` : `${sign}${value}e${exponent}`;
  return `${sign}${value}${suffixByExponent.get(exponent)}`;
}

const divideUp = (value: bigint, by: bigint): bigint => (value + by - 1n) / by;
const roundAway = (value: bigint, by: bigint): bigint => (value < 0n ? -divideUp(-value, by) : divideUp(value, by));
