// Go's time.Duration as text: `1h15m30.5s`, `300ms`. Used by metav1.Duration fields, flags and configuration files.
// Values are nanoseconds; a number holds them exactly up to 104 days, beyond that to the microsecond.
import { AppError } from "#base/errors.ts";

const unitNanoseconds: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Nanoseconds; rejects with DURATION_SYNTAX and Go's wording. */
export function parseDurationNanoseconds(text: string): number {
  const fail = () => new AppError("DURATION_SYNTAX", `time: invalid duration ${JSON.stringify(text)}`);
  const match = /^([+-]?)(.+)$/.exec(text);
  if (!match) throw fail();
  const [, sign, rest = ""] = match;
  if (rest === "0") return 0;
  let total = 0;
  let used = 0;
  // Escaped: one character beyond ASCII doubles what the bundle's text takes in memory, and esbuild leaves those of a regex.
  for (const part of rest.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g)) {
    if (part.index !== used) throw fail();
    used += part[0].length;
    total += Number(part[1]) * unitNanoseconds[part[2]!]!;
  }
  if (used !== rest.length) throw fail();
  total = Math.round(total);
  return sign === "-" ? -total : total;
}

/** As Go's Duration.String. */
export function formatDurationNanoseconds(nanoseconds: number | bigint): string {
  const total = BigInt(nanoseconds);
  if (total === 0n) return "0s";
  const sign = total < 0n ? "-" : "";
  const rest = total < 0n ? -total : total;
  const fraction = (value: bigint, unit: bigint): string => {
    const digits = (value % unit)
      .toString()
      .padStart(unit.toString().length - 1, "0")
      .replace(/0+$/, "");
    return `${value / unit}${digits === "" ? "" : `.${digits}`}`;
  };
  if (rest < 1000n) return `${sign}${rest}ns`;
  if (rest < 1_000_000n) return `${sign}${fraction(rest, 1000n)}µs`;
  if (rest < 1_000_000_000n) return `${sign}${fraction(rest, 1_000_000n)}ms`;
  const hours = rest / 3_600_000_000_000n;
  const minutes = (rest / 60_000_000_000n) % 60n;
  const seconds = fraction(rest % 60_000_000_000n, 1_000_000_000n);
  return `${sign}${hours > 0n ? `${hours}h` : ""}${hours > 0n || minutes > 0n ? `${minutes}m` : ""}${seconds}s`;
}
