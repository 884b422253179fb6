// metav1.Time and MicroTime as text: RFC 3339 in UTC with seconds or with six digits, and their parts in protobuf.
import { AppError } from "#base/errors.ts";

const rfc3339 = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:[.,](\d+))?(Z|[+-]\d{2}:\d{2})$/;

export interface TimeParts {
  /** Since the Unix epoch, UTC. */
  readonly seconds: number;
  readonly nanos: number;
}

/** Rejects with TIME_SYNTAX and Go's wording. */
export function parseTime(text: string): TimeParts {
  const match = rfc3339.exec(text);
  const ms = match ? Date.parse(`${text.slice(0, 19)}${match[8]}`) : Number.NaN;
  if (!match || Number.isNaN(ms)) {
    throw new AppError(
      "TIME_SYNTAX",
      `parsing time ${JSON.stringify(text)} as "2006-01-02T15:04:05Z07:00": cannot parse ${JSON.stringify(text)} as "2006"`,
    );
  }
  return { seconds: ms / 1000, nanos: Number((match[7] ?? "").slice(0, 9).padEnd(9, "0")) };
}

export function formatTime(parts: TimeParts): string {
  return `${secondsText(parts.seconds)}Z`;
}
export function formatMicroTime(parts: TimeParts): string {
  return `${secondsText(parts.seconds)}.${String(Math.floor(parts.nanos / 1000)).padStart(6, "0")}Z`;
}
export const canonicalTime = (text: string): string => formatTime(parseTime(text));
export const canonicalMicroTime = (text: string): string => formatMicroTime(parseTime(text));

/** `2006-01-02T15:04:05` */
const secondsText = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 19);
