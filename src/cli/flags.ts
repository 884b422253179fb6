// Command-line flags from a table: long and short names, environment, configuration files, defaults, help.
// Precedence as k3s has it: the command line beats the configuration files (repeatable flags are joined), both beat the
// environment, which beats the default. Pure: who calls reads files and environment.
import { AppError } from "#base/errors.ts";
import { nearest } from "./nearest.ts";

export interface Flag {
  /** Without dashes; also the key in config.yaml. */
  readonly name: string;
  /** One letter, or a second long name. */
  readonly short?: string;
  readonly kind: "string" | "number" | "boolean" | "list";
  /** Suffix of the variable: DATA_DIR is read from MOTE_DATA_DIR, then K3S_DATA_DIR. */
  readonly env?: string;
  /** A variable of others, read last: AWS_ACCESS_KEY_ID. */
  readonly foreignEnv?: string;
  readonly default?: string | number | boolean | readonly string[];
  readonly help: string;
  /** What a value may be. */
  readonly allowed?: readonly string[];
  /** Numbers only: inclusive. */
  readonly min?: number;
  readonly max?: number;
  /** Texts only: given several times, or as a list in a file, it is one text with commas. Without it the last one counts. */
  readonly isJoined?: boolean;
}

export type FlagValue = string | number | boolean | readonly string[] | undefined;
export type FlagValues = Readonly<Record<string, FlagValue>>;

export interface FlagSources {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Parsed configuration files, in order: each a flat map of flag names to scalars or lists. */
  readonly files?: readonly { readonly path: string; readonly values: Readonly<Record<string, unknown>> }[];
}

export interface ParsedFlags {
  readonly values: FlagValues;
  readonly positionals: readonly string[];
  /** Keys of configuration files that name no flag: skipped, as k3s does, but said. */
  readonly warnings: readonly string[];
}

/** A mistake of the user: the message names key, value and what is allowed. */
export function usageError(message: string): AppError {
  return new AppError("CLI_USAGE", message);
}

export function parseFlags(flags: readonly Flag[], sources: FlagSources): ParsedFlags {
  const byName = new Map(flags.map((f) => [f.name, f]));
  const byShort = new Map(flags.flatMap((f) => (f.short ? [[f.short, f] as const] : [])));
  const warnings: string[] = [];
  const given = new Map<string, { from: string; texts: string[] }>();

  const config = mergeFiles(sources.files ?? []);
  for (const [key, { texts, path }] of config) {
    const flag = byName.get(key) ?? byShort.get(key);
    if (flag) given.set(flag.name, { from: path, texts });
    else {
      const near = nearest(key, [...byName.keys()]);
      warnings.push(`${path}: unknown key "${key}" is ignored${near === undefined ? "" : `; did you mean ${near}?`}`);
    }
  }

  const positionals: string[] = [];
  const line = new Map<string, string[]>();
  const args = [...sources.args];
  while (args.length > 0) {
    const arg = args.shift()!;
    if (arg === "--") {
      positionals.push(...args);
      break;
    }
    if (!arg.startsWith("-") || arg === "-") {
      positionals.push(arg);
      continue;
    }
    const equals = arg.indexOf("=");
    const raw = (equals < 0 ? arg : arg.slice(0, equals)).replace(/^--?/, "");
    const flag = byName.get(raw) ?? byShort.get(raw);
    if (!flag) throw usageError(`unknown flag ${arg.split("=")[0]}${suggestion(raw, flags)}`);
    let text: string | undefined = equals < 0 ? undefined : arg.slice(equals + 1);
    if (text === undefined) {
      if (flag.kind === "boolean") text = "true";
      else {
        text = args.shift();
        if (text === undefined) throw usageError(`flag --${flag.name} needs a value`);
      }
    }
    const texts = line.get(flag.name) ?? [];
    texts.push(text);
    line.set(flag.name, texts);
  }
  for (const [name, texts] of line) {
    const before = given.get(name);
    const joined = byName.get(name)!.kind === "list" && before ? [...before.texts, ...texts] : texts;
    given.set(name, { from: "command line", texts: joined });
  }

  const values: Record<string, FlagValue> = {};
  for (const flag of flags) {
    const found = given.get(flag.name) ?? fromEnvironment(flag, sources.env);
    values[flag.name] = found ? convert(flag, found.texts, found.from) : flag.default;
  }
  return { values, positionals, warnings };
}

function fromEnvironment(
  flag: Flag,
  env: Readonly<Record<string, string | undefined>>,
): { from: string; texts: string[] } | undefined {
  const own = flag.env ? [`MOTE_${flag.env}`, `K3S_${flag.env}`] : [];
  for (const name of [...own, ...(flag.foreignEnv ? [flag.foreignEnv] : [])]) {
    const text = env[name];
    if (text !== undefined && text !== "") return { from: name, texts: [text] };
  }
  return undefined;
}

/** The last file that names a key wins wholly; `key+` appends to what earlier files gave. */
function mergeFiles(files: NonNullable<FlagSources["files"]>): Map<string, { texts: string[]; path: string }> {
  const merged = new Map<string, { texts: string[]; path: string }>();
  for (const { path, values } of files) {
    for (const [rawKey, value] of Object.entries(values)) {
      const appends = rawKey.endsWith("+");
      const key = appends ? rawKey.slice(0, -1) : rawKey;
      const items = Array.isArray(value) ? value : [value];
      const texts = items.map((item) => {
        if (item === null || typeof item === "object") {
          throw usageError(
            `${path}: key "${rawKey}": a scalar or a list of scalars is allowed, got ${JSON.stringify(item)}`,
          );
        }
        return String(item);
      });
      const before = merged.get(key);
      merged.set(key, { path, texts: appends && before ? [...before.texts, ...texts] : texts });
    }
  }
  return merged;
}

function convert(flag: Flag, texts: readonly string[], from: string): FlagValue {
  const last = texts.at(-1)!;
  const where = from === "command line" ? `--${flag.name}` : `${flag.name} (${from})`;
  switch (flag.kind) {
    case "boolean":
      if (!/^(true|false|1|0)$/.test(last)) throw usageError(`${where}: "${last}" is not allowed; use true or false`);
      return last === "true" || last === "1";
    case "number": {
      const value = Number(last);
      const min = flag.min ?? 0;
      const max = flag.max ?? Number.MAX_SAFE_INTEGER;
      if (!/^\d+$/.test(last) || value < min || value > max) {
        throw usageError(`${where}: "${last}" is not allowed; use a whole number from ${min} to ${max}`);
      }
      return value;
    }
    case "list": {
      const items = texts.flatMap((t) => t.split(",")).filter((t) => t !== "");
      for (const item of items) checkAllowed(flag, item, where);
      return items;
    }
    case "string":
      checkAllowed(flag, last, where);
      return flag.isJoined ? texts.join(",") : last;
    default:
      return last;
  }
}

function checkAllowed(flag: Flag, value: string, where: string): void {
  if (flag.allowed && !flag.allowed.includes(value)) {
    throw usageError(`${where}: "${value}" is not allowed; use one of ${flag.allowed.join(", ")}`);
  }
}

function suggestion(raw: string, flags: readonly Flag[]): string {
  const near = nearest(
    raw,
    flags.map(({ name }) => name),
  );
  return near === undefined ? "; --help lists the flags" : `; did you mean --${near}?`;
}

/** What a terminal of a serial line shows. */
const helpColumns = 80;

/** The flags as a help text that fits a small terminal. */
export function helpText(flags: readonly Flag[]): string {
  const left = flags.map((f) => {
    // A second long name is told behind the text: it would not fit beside the first.
    const short = f.short?.length === 1 ? `-${f.short}, ` : "    ";
    return `  ${short}--${f.name}${f.kind === "boolean" ? "" : " value"}`;
  });
  const width = Math.min(32, Math.max(...left.map((l) => l.length)) + 2);
  return flags
    .map((flag, i) => {
      const notes: string[] = [];
      if (flag.allowed) notes.push(`one of ${flag.allowed.join(", ")}`);
      if (flag.default !== undefined && flag.default !== false && flag.default !== "" && String(flag.default) !== "") {
        notes.push(`default ${String(flag.default)}`);
      }
      if (flag.short !== undefined && flag.short.length > 1) notes.push(`also --${flag.short}`);
      if (flag.env) notes.push(`$MOTE_${flag.env}`);
      if (flag.foreignEnv) notes.push(`$${flag.foreignEnv}`);
      const text = `${flag.help}${notes.length > 0 ? ` (${notes.join("; ")})` : ""}`;
      return hanging(left[i]!, text, width);
    })
    .join("\n");
}

/** `text` beside `head` from column `indent` on, in as many lines as a small terminal needs. */
export function hanging(head: string, text: string, indent: number): string {
  const margin = " ".repeat(indent);
  const body = wrapped(text, helpColumns - indent).join(`\n${margin}`);
  return head.length + 2 > indent ? `${head}\n${margin}${body}` : `${head.padEnd(indent)}${body}`;
}

/** A word that is longer than a line has one of its own. */
export function wrapped(text: string, columns = helpColumns): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= columns) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
