// Cron schedules: when does one fire next? Five fields (minute, hour, day of month, month, day of week) of numbers,
// names, ranges and steps; descriptors such as @daily; @every with a duration. Where both days are restricted one of them
// is enough. A local time that a change of the clocks leaves out does not fire, one that it repeats fires twice.
// Pure. Counterpart: robfig/cron v3, ParseStandard, whose messages these follow.

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
/** A day such as 30 February never comes. */
const horizonMs = 5 * 366 * dayMs;

const fields = [
  { low: 0, high: 59, names: [] },
  { low: 0, high: 23, names: [] },
  { low: 1, high: 31, names: [] },
  { low: 1, high: 12, names: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] },
  { low: 0, high: 6, names: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
] as const;
type FieldBounds = (typeof fields)[number];

const descriptors: Readonly<Record<string, string>> = {
  "@yearly": "0 0 1 1 *",
  "@annually": "0 0 1 1 *",
  "@monthly": "0 0 1 * *",
  "@weekly": "0 0 * * 0",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@hourly": "0 * * * *",
};
const unitMs: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, ms: 1, s: 1000, m: minuteMs, h: hourMs };

export interface Cron {
  /** The first time after `ms`, both in milliseconds since 1970; undefined when there is none within five years. */
  next(ms: number): number | undefined;
}

/** What is wrong with a schedule, in words for the person who wrote it. */
export class CronError extends Error {
  override readonly name = "CronError";
}

/** `timeZone`: an IANA name; absent: the process's own. Throws CronError; RangeError for an unknown zone. */
export function parseCron(schedule: string, timeZone?: string): Cron {
  const localTime = localTimeIn(timeZone);
  if (schedule.startsWith("@every ")) return every(schedule);
  if (schedule.startsWith("@") && !Object.hasOwn(descriptors, schedule)) {
    throw new CronError(`unrecognized descriptor: ${schedule}`);
  }
  const known = Object.hasOwn(descriptors, schedule) ? descriptors[schedule] : undefined;
  const parts = (known ?? schedule).split(/[\t ]+/).filter((part) => part !== "");
  if (parts.length !== fields.length) {
    throw new CronError(`expected exactly 5 fields, found ${parts.length}: [${parts.join(" ")}]`);
  }
  const [minutes, hours, days, months, weekdays] = parts.map((part, i) => parseField(part, fields[i] ?? fields[0])) as [
    Field,
    Field,
    Field,
    Field,
    Field,
  ];
  const isDay = (date: Date): boolean => {
    const day = days.values.has(date.getUTCDate());
    const weekday = weekdays.values.has(date.getUTCDay());
    return (
      months.values.has(date.getUTCMonth() + 1) && (days.isAny || weekdays.isAny ? day && weekday : day || weekday)
    );
  };
  return {
    next(ms) {
      const endMs = ms + horizonMs;
      for (let at = (Math.floor(ms / minuteMs) + 1) * minuteMs; at <= endMs; ) {
        // A Date whose UTC fields are the local ones.
        const local = new Date(localTime(at));
        const intoHourMs = local.getUTCMinutes() * minuteMs;
        if (!isDay(local)) {
          // To the next midnight, but not past it: the clocks may go forward by up to two hours on the way.
          const leftMs = dayMs - local.getUTCHours() * hourMs - intoHourMs;
          at += leftMs > 3 * hourMs ? leftMs - 2 * hourMs : hourMs - intoHourMs;
        } else if (!hours.values.has(local.getUTCHours())) at += hourMs - intoHourMs;
        else if (!minutes.values.has(local.getUTCMinutes())) at += minuteMs;
        else return at;
      }
      return undefined;
    },
  };
}

/** What is wrong with a schedule; undefined when nothing is. */
export function cronProblem(schedule: string): string | undefined {
  try {
    parseCron(schedule);
    return undefined;
  } catch (error) {
    if (error instanceof CronError) return error.message;
    throw error;
  }
}

interface Field {
  readonly values: ReadonlySet<number>;
  /** `*` or `?` without a step: this field restricts nothing. */
  readonly isAny: boolean;
}

function parseField(text: string, bounds: FieldBounds): Field {
  const values = new Set<number>();
  let isAny = false;
  for (const part of text.split(",")) {
    const { low, high, step, any } = parseRange(part, bounds);
    for (let n = low; n <= high; n += step) values.add(n);
    isAny ||= any;
  }
  return { values, isAny };
}

function parseRange(part: string, bounds: FieldBounds) {
  const [range = "", stepText, ...more] = part.split("/");
  const [from = "", to, ...rest] = range.split("-");
  if (rest.length > 0) throw new CronError(`too many hyphens: ${part}`);
  if (more.length > 0) throw new CronError(`too many slashes: ${part}`);
  const isStar = from === "*" || from === "?";
  const low = isStar ? bounds.low : numberOf(from, bounds);
  const step = stepText === undefined ? 1 : numberOf(stepText, undefined);
  let high = low;
  if (isStar) high = bounds.high;
  else if (to !== undefined) high = numberOf(to, bounds);
  else if (stepText !== undefined) high = bounds.high;
  if (low < bounds.low) throw new CronError(`beginning of range (${low}) below minimum (${bounds.low}): ${part}`);
  if (high > bounds.high) throw new CronError(`end of range (${high}) above maximum (${bounds.high}): ${part}`);
  if (low > high) throw new CronError(`beginning of range (${low}) beyond end of range (${high}): ${part}`);
  if (step === 0) throw new CronError(`step of range should be a positive number: ${part}`);
  return { low, high, step, any: isStar && step === 1 };
}

function numberOf(text: string, bounds: FieldBounds | undefined): number {
  const named = (bounds?.names as readonly string[] | undefined)?.indexOf(text.toLowerCase()) ?? -1;
  if (bounds && named >= 0) return named + bounds.low;
  if (!/^[0-9]{1,9}$/.test(text)) {
    throw new CronError(
      `failed to parse int from ${text}: strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`,
    );
  }
  return Number(text);
}

/** Whole seconds, at least one, counted from when it is asked. */
function every(schedule: string): Cron {
  const text = schedule.slice("@every ".length);
  if (!/^(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|m|h))+$/.test(text)) {
    throw new CronError(`failed to parse duration ${schedule}: time: invalid duration ${JSON.stringify(text)}`);
  }
  let totalMs = 0;
  for (const [, count, unit] of text.matchAll(/([0-9.]+)(ns|us|ms|s|m|h)/g)) {
    totalMs += Number(count) * (unitMs[unit ?? ""] ?? 0);
  }
  const periodMs = Math.max(1000, Math.floor(totalMs / 1000) * 1000);
  return { next: (ms) => Math.floor(ms / 1000) * 1000 + periodMs };
}

/** From a time to what the wall clock shows then, as if that were UTC. Asks for the zone's offset once per quarter of an hour. */
function localTimeIn(timeZone: string | undefined): (ms: number) => number {
  if (timeZone === "UTC" || timeZone === "Etc/UTC") return (ms) => ms;
  // A formatter is the first thing in a server's start that would need ICU: on a slow board half a second.
  if (timeZone === undefined) return (ms) => ms - new Date(ms).getTimezoneOffset() * minuteMs;
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
  });
  // Clocks change at full quarters everywhere.
  const quarterMs = 15 * minuteMs;
  let known = Number.NaN;
  let offsetMs = 0;
  return (ms) => {
    const quarter = Math.floor(ms / quarterMs);
    if (quarter !== known) {
      const parts: Record<string, number> = {};
      for (const { type, value } of format.formatToParts(quarter * quarterMs)) parts[type] = Number(value);
      const { year = 0, month = 0, day = 0, hour = 0, minute = 0 } = parts;
      offsetMs = Date.UTC(year, month - 1, day, hour, minute) - quarter * quarterMs;
      known = quarter;
    }
    return ms + offsetMs;
  };
}
