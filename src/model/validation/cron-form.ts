// Is a text a cron schedule? Only its form; when it fires is the controller's business. Counterpart: robfig/cron's
// ParseStandard, whose messages these follow.

const bounds = [
  { low: 0, high: 59, names: [] },
  { low: 0, high: 23, names: [] },
  { low: 1, high: 31, names: [] },
  { low: 1, high: 12, names: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] },
  { low: 0, high: 6, names: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
] as const;

const descriptors = new Set(["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"]);

/** What is wrong; undefined when nothing is. */
export function cronProblem(schedule: string): string | undefined {
  if (schedule.startsWith("@")) {
    if (descriptors.has(schedule)) return undefined;
    if (schedule.startsWith("@every ")) {
      const duration = schedule.slice("@every ".length);
      return /^(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|m|h))+$/.test(duration)
        ? undefined
        : `failed to parse duration ${schedule}: time: invalid duration ${JSON.stringify(duration)}`;
    }
    return `unrecognized descriptor: ${schedule}`;
  }
  const fields = schedule.split(/[\t ]+/).filter((field) => field !== "");
  if (fields.length !== bounds.length) {
    return `expected exactly 5 fields, found ${fields.length}: [${fields.join(" ")}]`;
  }
  for (const [i, field] of fields.entries()) {
    for (const part of field.split(",")) {
      const problem = partProblem(part, bounds[i] ?? bounds[0]);
      if (problem !== undefined) return problem;
    }
  }
  return undefined;
}

function partProblem(part: string, bound: (typeof bounds)[number]): string | undefined {
  const [range = "", step, ...more] = part.split("/");
  if (more.length > 0) return `too many slashes: ${part}`;
  if (step !== undefined && !(Number(step) > 0 && /^[0-9]+$/.test(step)))
    return `step of range should be a positive number: ${part}`;
  if (range === "*" || range === "?") return undefined;
  const [from = "", to, ...rest] = range.split("-");
  if (rest.length > 0) return `too many hyphens: ${part}`;
  const number = (text: string): number => {
    const named = (bound.names as readonly string[]).indexOf(text.toLowerCase());
    if (named >= 0) return named + bound.low;
    return /^[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  };
  const start = number(from);
  const end = to === undefined ? start : number(to);
  if (Number.isNaN(start) || Number.isNaN(end))
    return `failed to parse int from ${Number.isNaN(start) ? from : to}: strconv.Atoi: parsing ${JSON.stringify(Number.isNaN(start) ? from : to)}: invalid syntax`;
  if (start < bound.low) return `beginning of range (${start}) below minimum (${bound.low}): ${part}`;
  if (end > bound.high) return `end of range (${end}) above maximum (${bound.high}): ${part}`;
  return start > end ? `beginning of range (${start}) beyond end of range (${end}): ${part}` : undefined;
}
