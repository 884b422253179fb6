// The five fields of cron: minute, hour, day of month, month, day of week, each a list of numbers, ranges and steps.
// As in cron, when both days are restricted one of them is enough. Pure; times are local.
import { datastoreError } from "./errors.ts";

const fields = [
  { name: "minute", min: 0, max: 59 },
  { name: "hour", min: 0, max: 23 },
  { name: "day of month", min: 1, max: 31 },
  { name: "month", min: 1, max: 12 },
  { name: "day of week", min: 0, max: 7 },
] as const;
const macros: Readonly<Record<string, string>> = {
  "@hourly": "0 * * * *",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@weekly": "0 0 * * 0",
  "@monthly": "0 0 1 * *",
  "@yearly": "0 0 1 1 *",
};
const minuteMs = 60_000;
/** A day such as 30 February never comes. */
const horizonMinutes = 4 * 366 * 24 * 60;

export interface Cron {
  /** The first matching minute after `ms`; undefined when there is none within four years. */
  next(ms: number): number | undefined;
}

/** Rejects with DATASTORE_BAD_REQUEST, naming the field. */
export function parseCron(text: string): Cron {
  const parts = (macros[text.trim()] ?? text).trim().split(/\s+/);
  if (parts.length !== fields.length) {
    throw datastoreError("DATASTORE_BAD_REQUEST", `schedule "${text}": five fields are expected, as in "0 */12 * * *"`);
  }
  const sets = fields.map((field, i) => parseField(parts[i]!, field));
  const [minutes, hours, days, months, weekdays] = sets as [
    Set<number>,
    Set<number>,
    Set<number>,
    Set<number>,
    Set<number>,
  ];
  if (weekdays.has(7)) weekdays.add(0);
  const eitherDay = parts[2] !== "*" && parts[4] !== "*";
  const matches = (date: Date) => {
    const day = days.has(date.getDate());
    const weekday = weekdays.has(date.getDay());
    return months.has(date.getMonth() + 1) && (eitherDay ? day || weekday : day && weekday);
  };
  return {
    next(ms) {
      let at = (Math.floor(ms / minuteMs) + 1) * minuteMs;
      for (let n = 0; n < horizonMinutes; n++) {
        const date = new Date(at);
        if (!matches(date) || !hours.has(date.getHours())) {
          // Nothing in this hour: on to the next.
          at += (60 - date.getMinutes()) * minuteMs;
          continue;
        }
        if (minutes.has(date.getMinutes())) return at;
        at += minuteMs;
      }
      return undefined;
    },
  };
}

function parseField(text: string, field: (typeof fields)[number]): Set<number> {
  const found = new Set<number>();
  for (const item of text.split(",")) {
    const match = /^(?:\*|(\d+)(?:-(\d+))?)(?:\/(\d+))?$/.exec(item);
    const [, first, last, step] = match ?? [];
    const low = first === undefined ? field.min : Number(first);
    const high = last !== undefined ? Number(last) : first === undefined || step !== undefined ? field.max : low;
    const by = step === undefined ? 1 : Number(step);
    if (!match || low < field.min || high > field.max || low > high || by < 1) {
      throw datastoreError(
        "DATASTORE_BAD_REQUEST",
        `schedule: ${field.name} "${item}" is not allowed; use ${field.min} to ${field.max}, *, lists, ranges and steps`,
      );
    }
    for (let n = low; n <= high; n += by) found.add(n);
  }
  return found;
}
