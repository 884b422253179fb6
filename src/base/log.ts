// Structured log: a constant message plus fields. error: an operator must act; warn: may soon have to; info: rare state
// changes; debug: per request. Never secrets, tokens or object bodies. The sink decides the format.

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger whose lines carry `fields` as well. */
  child(fields: LogFields): Logger;
}

export type LogSink = (level: LogLevel, message: string, fields: LogFields) => void;

const ranks: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export function createLogger(sink: LogSink, minimum: LogLevel = "info", bound: LogFields = {}): Logger {
  const at = (level: LogLevel) => (message: string, fields?: LogFields) => {
    if (ranks[level] >= ranks[minimum]) sink(level, message, fields ? { ...bound, ...fields } : bound);
  };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => createLogger(sink, minimum, { ...bound, ...fields }),
  };
}

/** For tests and for parts whose lines nobody reads. */
export const silentLogger: Logger = createLogger(() => {}, "error");

/** One line in the style of logrus text: time, level, msg, then the fields. */
export function formatLine(nowMs: number, level: LogLevel, message: string, fields: LogFields): string {
  let line = `time="${new Date(nowMs).toISOString()}" level=${level} msg=${JSON.stringify(message)}`;
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const text = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
    line += ` ${key}=${/^[\w./:@+-]+$/.test(text) ? text : JSON.stringify(text)}`;
  }
  return line;
}
