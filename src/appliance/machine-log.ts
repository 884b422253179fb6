// The log of a device: all lines into bounded files in memory, errors also to flash within a daily budget, and nothing on
// the console but one-line markers that people and tests look for.
import type { Clock } from "#base/clock.ts";
import { createLogger, formatLine, type Logger } from "#base/log.ts";
import { type RotatingFile, rotatingFile } from "#platform/rotating-file.ts";
import { writeOutput } from "#platform/standard-streams.ts";
import { LogBudget } from "./log-budget.ts";

export interface MachineLog {
  readonly log: Logger;
  /** Errors go to this file from now on. */
  spillTo(path: string): void;
  close(): void;
}

/** Of memory, twice: the file in use and the one before. */
const ringBytes = 128 * 1024;
const budgetFileBytes = 4096;
const spillFileBytes = 512 * 1024;
const spillBudget = { bytesPerDay: 256 * 1024, burstBytes: 16 * 1024 } as const;

export function createMachineLog(
  options: {
    readonly ringPath: string;
    /** In memory: what is left of the budget, so that a program that ends again and again has one altogether. */
    readonly budgetPath: string;
    /** The content of that file at start. */
    readonly budgetText: string | undefined;
    readonly debug: boolean;
  },
  { clock }: { readonly clock: Clock },
): MachineLog {
  const ring = rotatingFile(options.ringPath, ringBytes);
  const left = rotatingFile(options.budgetPath, budgetFileBytes);
  // A line per line written; the last counts.
  const before = /(\d+)\n$/.exec(options.budgetText ?? "")?.[1];
  const leftBytes = before === undefined ? undefined : Number(before);
  const budget = new LogBudget(spillBudget, clock.monotonicMs(), leftBytes);
  let spill: RotatingFile | undefined;
  const log = createLogger(
    (level, message, fields) => {
      const line = `${formatLine(clock.now(), level, message, fields)}\n`;
      ring.append(line);
      if (level !== "error" || !spill) return;
      const text = budget.admit(line, clock.monotonicMs());
      if (text === undefined) return;
      spill.append(text);
      left.append(`${budget.leftBytes}\n`);
    },
    options.debug ? "debug" : "info",
  );
  return {
    log,
    spillTo(path) {
      spill = rotatingFile(path, spillFileBytes);
    },
    close() {
      ring.close();
      left.close();
      spill?.close();
      spill = undefined;
    },
  };
}

/** One line on the console that begins with `mote: `. */
export const say = (text: string): void => writeOutput(`mote: ${text.replaceAll("\n", " ")}\n`);
