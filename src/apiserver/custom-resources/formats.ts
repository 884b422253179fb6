// The string formats that schemas may ask for, as upstream's format registry knows them; a format that is not here is
// ignored. All checks are linear. Upstream counterpart: kube-openapi/pkg/validation/strfmt.

import { parseDurationNanoseconds } from "#model/duration.ts";
import { isCidr, isIpv4, isIpv6 } from "#model/validation/names.ts";

type Check = (text: string) => boolean;

const isbn = (text: string): string => text.replace(/[\s-]/g, "");
function isIsbn10(text: string): boolean {
  const digits = isbn(text);
  if (!/^\d{9}[\dXx]$/.test(digits)) return false;
  let sum = 0;
  for (let i = 0; i < 10; i++) sum += (10 - i) * (/[Xx]/.test(digits[i]!) ? 10 : Number(digits[i]));
  return sum % 11 === 0;
}
function isIsbn13(text: string): boolean {
  const digits = isbn(text);
  if (!/^97[89]\d{10}$/.test(digits)) return false;
  let sum = 0;
  for (let i = 0; i < 13; i++) sum += Number(digits[i]) * (i % 2 === 0 ? 1 : 3);
  return sum % 10 === 0;
}
function isCreditCard(text: string): boolean {
  const digits = text.replace(/\D/g, "");
  if (!/^\d{13,16}$/.test(digits)) return false;
  let sum = 0;
  for (let i = 0; i < digits.length; i++) {
    let digit = Number(digits[digits.length - 1 - i]);
    if (i % 2 === 1) digit = digit > 4 ? digit * 2 - 9 : digit * 2;
    sum += digit;
  }
  return sum % 10 === 0;
}
const uuid = (version: string): Check => {
  const form = new RegExp(`^[0-9a-f]{8}-?[0-9a-f]{4}-?${version}[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$`, "i");
  return (text) => form.test(text);
};
function isDate(text: string): boolean {
  const match = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text);
  if (!match) return false;
  const [year, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])];
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}
function isDateTime(text: string): boolean {
  const match = /^(\d{4}-\d{2}-\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.\d+)?(?:[Zz]|[+-]\d{2}:?\d{2})$/.exec(text);
  if (!match || !isDate(match[1]!)) return false;
  return Number(match[2]) < 24 && Number(match[3]) < 60 && Number(match[4]) < 61;
}
function isDuration(text: string): boolean {
  if (/^\d+\s*(?:ns|nano|us|µs|micro|ms|milli|s|sec|m|min|h|hr|hour|d|day|w|wk|week)s?$/i.test(text)) return true;
  try {
    parseDurationNanoseconds(text);
    return true;
  } catch {
    return false;
  }
}
const hostLabel = /^(?:xn--)?[\p{L}\p{N}](?:[\p{L}\p{N}_-]{0,61}[\p{L}\p{N}])?$/u;
const isHostname: Check = (text) =>
  text.length <= 253 &&
  text
    .replace(/\.$/, "")
    .split(".")
    .every((label) => label.length <= 63 && hostLabel.test(label));
function isUri(text: string): boolean {
  if (/[\s\p{Cc}<>"{}|\\^`]/u.test(text)) return false;
  // As Go's ParseRequestURI: absolute, or an absolute path.
  return /^[A-Za-z][A-Za-z0-9+.-]*:[^\s]+$/.test(text) || text.startsWith("/");
}

const checks: Readonly<Record<string, Check>> = {
  bsonobjectid: (text) => /^[0-9a-fA-F]{24}$/.test(text),
  uri: isUri,
  email: (text) => text.length <= 320 && /^[^\s@<>"(),:;[\]\\]+@[^\s@<>"(),:;[\]\\]+$/.test(text),
  hostname: isHostname,
  ipv4: (text) => isIpv4(text),
  ipv6: (text) => isIpv6(text),
  cidr: isCidr,
  mac: (text) =>
    /^(?:[0-9a-f]{2}([:-]))(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}$/i.test(text) ||
    /^(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}$/i.test(text) ||
    /^(?:[0-9a-f]{2}([:-]))(?:[0-9a-f]{2}\1){6}[0-9a-f]{2}$/i.test(text),
  uuid: uuid("[0-9a-f]"),
  uuid3: uuid("3"),
  uuid4: uuid("4"),
  uuid5: uuid("5"),
  isbn: (text) => isIsbn10(text) || isIsbn13(text),
  isbn10: isIsbn10,
  isbn13: isIsbn13,
  creditcard: isCreditCard,
  ssn: (text) => /^\d{3}[- ]?\d{2}[- ]?\d{4}$/.test(text),
  hexcolor: (text) => /^#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$/.test(text),
  rgbcolor: (text) => /^rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)$/.test(text),
  byte: (text) => text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text),
  password: () => true,
  date: isDate,
  duration: isDuration,
  "date-time": isDateTime,
  datetime: isDateTime,
};
const numberFormats: ReadonlySet<string> = new Set(["int32", "int64", "float", "double"]);

/** Upstream's registry compares names without dashes. */
const named = (format: string): Check | undefined => {
  if (Object.hasOwn(checks, format)) return checks[format];
  const plain = format.replaceAll("-", "");
  return Object.hasOwn(checks, plain) ? checks[plain] : undefined;
};

export const isKnownFormat = (format: string): boolean => numberFormats.has(format) || named(format) !== undefined;

export const matchesFormat = (format: string, text: string): boolean => named(format)?.(text) ?? true;
