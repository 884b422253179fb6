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
  const found = read(text);
  if (typeof found === "string") throw new AppError("QUANTITY_SYNTAX", found);
  return found;
}

/** Undefined: it is none. */
export function quantityIn(text: unknown): Quantity | undefined {
  if (typeof text !== "string" && typeof text !== "number") return undefined;
  const found = read(text);
  return typeof found === "string" ? undefined : found;
}

export const isQuantity = (text: unknown): boolean => quantityIn(text) !== undefined;

const noSuffix = "unable to parse quantity's suffix";

/** The quantity, or what is wrong. */
function read(text: string | number): Quantity | string {
  const input = String(text);
  const match = input.length > maxTextLength ? null : syntax.exec(input);
  if (!match || (match[2] === "" && (match[3] ?? "") === "")) return quantityError;
  const [, sign, whole = "", fraction = "", exponentText, suffix = ""] = match;
  let format: QuantityFormat = "DecimalSI";
  let multiplier = 1n;
  let exponent = 0;
  if (exponentText !== undefined) {
    format = "DecimalExponent";
    exponent = Number(exponentText.slice(1));
  } else if (suffix.endsWith("i")) {
    const power = binarySuffixes.indexOf(suffix);
    if (power < 1) return noSuffix;
    format = "BinarySI";
    multiplier = powersOf1024[power]!;
  } else {
    const decimal = Object.hasOwn(decimalSuffixes, suffix) ? decimalSuffixes[suffix] : undefined;
    if (decimal === undefined) return noSuffix;
    exponent = decimal;
  }
  // Beyond these the result is zero or the cap whatever the digits are.
  if (Math.abs(exponent) > 2 * maxTextLength) exponent = Math.sign(exponent) * 2 * maxTextLength;
  const digits = BigInt(`${whole}${fraction}` || "0") * multiplier;
  const shift = exponent - fraction.length + 9;
  const magnitude = shift >= 0 ? digits * powerOf10(shift) : divideUp(digits, powerOf10(-shift));
  const capped = magnitude > maxNano ? maxNano : magnitude;
  return quantityOf(sign === "-" ? -capped : capped, format);
}

const powersOf1024: readonly bigint[] = binarySuffixes.map((_, power) => 1024n ** BigInt(power));
/** As far as suffixes go. */
const powersOf10: readonly bigint[] = Array.from({ length: 28 }, (_, power) => 10n ** BigInt(power));
const powerOf10 = (power: number): bigint => powersOf10[power] ?? 10n ** BigInt(power);

type QuantityLike = Quantity | string | number;
const quantity = (value: QuantityLike): Quantity => (typeof value === "object" ? value : parseQuantity(value));

export function compareQuantities(a: QuantityLike, b: QuantityLike): -1 | 0 | 1 {
  const left = quantity(a).nano;
  const right = quantity(b).nano;
  return left < right ? -1 : left > right ? 1 : 0;
}
/** The sum keeps the format of `a`, or of `b` where `a` is zero (as upstream). */
export function addQuantities(a: QuantityLike, b: QuantityLike): Quantity {
  const left = quantity(a);
  const right = quantity(b);
  return quantityOf(left.nano + right.nano, left.nano === 0n ? right.format : left.format);
}
export function subtractQuantities(a: QuantityLike, b: QuantityLike): Quantity {
  const left = quantity(a);
  const right = quantity(b);
  return quantityOf(left.nano - right.nano, left.nano === 0n ? right.format : left.format);
}
/** The text as the API stores it: `1000m` becomes `1`, `0.5` becomes `500m`. */
export function canonicalQuantity(text: string | number): string {
  // Most are so already.
  const match = typeof text === "string" ? plainForm.exec(text) : null;
  if (match && Number(match[1]) % (match[2]?.endsWith("i") ? 1024 : 1000) !== 0) return match[0];
  return parseQuantity(text).toString();
}

/** Small numbers with a usual suffix; canonical unless a larger suffix would do. */
const plainForm = /^([1-9]\d{0,5})(m|k|M|G|Ki|Mi|Gi)?$/;

class Amount implements Quantity {
  readonly nano: bigint;
  readonly format: QuantityFormat;
  constructor(nano: bigint, format: QuantityFormat) {
    this.nano = nano;
    this.format = format;
  }
  value(): bigint {
    return roundAway(this.nano, nanoPerUnit);
  }
  milliValue(): bigint {
    return roundAway(this.nano, 1_000_000n);
  }
  toString(): string {
    return print(this.nano, this.format);
  }
}
const quantityOf = (nano: bigint, format: QuantityFormat): Quantity => new Amount(nano, format);

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
