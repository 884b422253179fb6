// Values as text, where Go's forms can be seen: doubles, durations, times; and text in code points.
import { Bytes, Double, Duration, Failure, Timestamp, TypeValue, Uint, type Value } from "./values.ts";

const second = 1_000_000_000n;

/** As Go's FormatFloat(v, 'g', -1, 64): with an exponent from a million on. */
export function formatDouble(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  if (value === 0) return Object.is(value, -0) ? "-0" : "0";
  const [mantissa = "0", exponent = "+0"] = value.toExponential().split("e");
  const power = Number(exponent);
  if (power >= -4 && power < 6) return String(value);
  return `${mantissa}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}
export function formatDuration({ nanos }: Duration): string {
  const sign = nanos < 0n ? "-" : "";
  const magnitude = nanos < 0n ? -nanos : nanos;
  const fraction = String(magnitude % second)
    .padStart(9, "0")
    .replace(/0+$/, "");
  return `${sign}${magnitude / second}${fraction === "" ? "" : `.${fraction}`}s`;
}

/** Floor division: the second a time lies in, and the nanoseconds into it. */
export function splitTime(nanos: bigint): { seconds: number; nanos: number } {
  const rest = ((nanos % second) + second) % second;
  return { seconds: Number((nanos - rest) / second), nanos: Number(rest) };
}

export function formatTimestamp({ nanos }: Timestamp): string {
  const { seconds, nanos: rest } = splitTime(nanos);
  const base = new Date(seconds * 1000).toISOString().slice(0, 19);
  const fraction = String(rest).padStart(9, "0").replace(/0+$/, "");
  return `${base}${fraction === "" ? "" : `.${fraction}`}Z`;
}

const minTime = -62_135_596_800n * second;
const maxTime = 253_402_300_800n * second;
export function timestampOf(nanos: bigint): Timestamp {
  if (nanos < minTime || nanos >= maxTime) throw new Failure("timestamp overflow");
  return new Timestamp(nanos);
}
export function durationOf(nanos: bigint): Duration {
  if (nanos < -(2n ** 63n) || nanos > 2n ** 63n - 1n) throw new Failure("duration overflow");
  return new Duration(nanos);
}

/** RFC 3339; undefined where it is none. */
export function parseTimestamp(text: string): Timestamp | undefined {
  const match = /^(\d{4}-\d{2}-\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:[.,](\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})$/.exec(
    text,
  );
  if (!match) return undefined;
  const [, day, hours, minutes, seconds, fraction = "", zone = "Z"] = match;
  const ms = Date.parse(`${day}T${hours}:${minutes}:${seconds}${zone.toUpperCase()}`);
  const isReal = !Number.isNaN(ms) && isDay(day!) && Number(hours) < 24;
  if (!isReal) return undefined;
  const nanos = BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
  return nanos < minTime || nanos >= maxTime ? undefined : new Timestamp(nanos);
}
/** February has no 30th, which Date.parse lets pass. */
export function isDay(text: string): boolean {
  const ms = Date.parse(`${text}T00:00:00Z`);
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text);
}

const unitNanos: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  "\u00b5s": 1_000n,
  "\u03bcs": 1_000n,
  ms: 1_000_000n,
  s: second,
  m: 60n * second,
  h: 3600n * second,
};
/** Go's form, exact; undefined where it is none. */
export function parseDuration(text: string): Duration | undefined {
  const match = /^([+-]?)(.+)$/.exec(text);
  if (!match || text.length > 100) return undefined;
  const [, sign, rest = ""] = match;
  if (rest === "0") return new Duration(0n);
  let total = 0n;
  let used = 0;
  for (const part of rest.matchAll(/(\d*)(?:\.(\d*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g)) {
    const [whole, digits = "", fraction = "", unit = ""] = part;
    if (part.index !== used || (digits === "" && fraction === "")) return undefined;
    used += whole.length;
    const scale = unitNanos[unit]!;
    total += BigInt(digits || "0") * scale;
    if (fraction !== "") total += (BigInt(fraction) * scale) / 10n ** BigInt(fraction.length);
  }
  if (used === 0 || used !== rest.length || total > 2n ** 63n - 1n) return undefined;
  return new Duration(sign === "-" ? -total : total);
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
export function bytesToString(data: Uint8Array): string {
  try {
    return decoder.decode(data);
  } catch {
    throw new Failure("invalid UTF-8 in bytes, cannot convert to string");
  }
}

/** What string() gives; undefined for kinds without one. */
export function toText(value: Value): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") return String(value);
  if (value instanceof Double) return formatDouble(value.value);
  if (value instanceof Uint) return String(value.value);
  if (value instanceof Bytes) return bytesToString(value.data);
  if (value instanceof Timestamp) return formatTimestamp(value);
  if (value instanceof Duration) return formatDuration(value);
  if (value instanceof TypeValue) return value.name;
  return undefined;
}

/** Texts of one unit per code point need no walk. */
export const isPlainText = (text: string): boolean => !/[\ud800-\udfff]/.test(text);

/** Positions in code points, whatever the text holds. */
export interface Points {
  readonly length: number;
  slice(from: number, to: number): string;
  indexOf(part: string, from: number): number;
  lastIndexOf(part: string, from: number): number;
}
export function pointsOf(text: string): Points {
  if (isPlainText(text)) {
    return {
      length: text.length,
      slice: (from, to) => text.slice(from, to),
      indexOf: (part, from) => text.indexOf(part, from),
      lastIndexOf: (part, from) => text.lastIndexOf(part, from),
    };
  }
  const points = [...text];
  const offsetOf = (index: number): number => points.slice(0, index).join("").length;
  const indexOf = (offset: number): number => (offset < 0 ? -1 : [...text.slice(0, offset)].length);
  return {
    length: points.length,
    slice: (from, to) => points.slice(from, to).join(""),
    indexOf: (part, from) => indexOf(text.indexOf(part, offsetOf(from))),
    lastIndexOf: (part, from) => indexOf(text.lastIndexOf(part, offsetOf(from))),
  };
}

/** As Go's %q. */
export function quote(text: string): string {
  let out = '"';
  for (const point of text) out += Object.hasOwn(escapes, point) ? escapes[point] : printable(point);
  return `${out}"`;
}
const escapes: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
  '"': '\\"',
};
function printable(point: string): string {
  const code = point.codePointAt(0)!;
  if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).padStart(2, "0")}`;
  return point;
}
