// The hardware watchdog: resets the machine when nobody has fed it for a while. Opening arms it; a closed file leaves it
// armed, unless it is told otherwise first.
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { hasCode } from "#base/errors.ts";

export interface Watchdog {
  readonly timeoutS: number;
  /** False: it goes on until the power is cut (`nowayout`), so it must be fed for ever. */
  readonly canDisarm: boolean;
  feed(): void;
  /** Stops the countdown. */
  disarm(): void;
}

/** The kernel's usual default, for drivers that do not tell. */
const defaultTimeoutS = 30;

/** Undefined where there is none, or somebody else feeds it. */
export async function openWatchdog(path = "/dev/watchdog0", sysfs = "/sys"): Promise<Watchdog | undefined> {
  let fd: number;
  try {
    fd = openSync(path, constants.O_WRONLY);
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "EBUSY") || hasCode(error, "ENODEV")) return undefined;
    throw error;
  }
  const told = (name: string) =>
    readFile(`${sysfs}/class/watchdog/${basename(path)}/${name}`, "utf8").then(
      (text) => text.trim(),
      () => "",
    );
  return {
    timeoutS: Number(await told("timeout")) || defaultTimeoutS,
    canDisarm: (await told("nowayout")) !== "1",
    feed: () => void writeSync(fd, "."),
    disarm() {
      writeSync(fd, "V");
      closeSync(fd);
    },
  };
}
