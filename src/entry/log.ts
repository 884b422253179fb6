// The process's log: one line per entry on stderr, where the supervisor or the terminal picks it up.
import type { Clock } from "#base/clock.ts";
import { createLogger, formatLine, type Logger } from "#base/log.ts";
import { writeError } from "#platform/standard-streams.ts";

export function createProcessLog(clock: Clock, debug: boolean): Logger {
  return createLogger(
    (level, message, fields) => writeError(`${formatLine(clock.now(), level, message, fields)}\n`),
    debug ? "debug" : "info",
  );
}
