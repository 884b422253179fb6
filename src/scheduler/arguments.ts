// What the scheduler can be told under kube-scheduler's flag names: `--kube-scheduler-arg NAME=VALUE`, as k3s has it. What is
// not known is refused, so that nobody believes in a setting that does nothing.
import { AppError, messageOf } from "#base/errors.ts";
import { readFileIfExists } from "#platform/files.ts";
import {
  defaultSchedulerConfiguration,
  filesNamedBy,
  parseSchedulerConfiguration,
  type SchedulerConfiguration,
} from "./configuration.ts";

export interface SchedulerArguments {
  /** A KubeSchedulerConfiguration; undefined: the default one. */
  readonly configFile: string | undefined;
}

/** Rejects with SCHEDULER_CONFIGURATION. */
export function parseSchedulerArguments(args: readonly string[]): SchedulerArguments {
  let configFile: string | undefined;
  for (const arg of args) {
    const equals = arg.indexOf("=");
    const name = (equals < 0 ? arg : arg.slice(0, equals)).replace(/^--/, "");
    if (name !== "config") throw refused(`kube-scheduler-arg ${name}: is not known; this is: config`);
    if (equals < 0 || equals === arg.length - 1)
      throw refused(`kube-scheduler-arg ${name}: needs a value, as NAME=VALUE`);
    configFile = arg.slice(equals + 1);
  }
  return { configFile };
}

/** Reads the file and what it names. Rejects with SCHEDULER_CONFIGURATION, naming file and field. */
export async function readSchedulerConfiguration({ configFile }: SchedulerArguments): Promise<SchedulerConfiguration> {
  if (configFile === undefined) return defaultSchedulerConfiguration;
  const text = await textOf(configFile);
  try {
    const files = new Map<string, string>();
    for (const path of filesNamedBy(text)) files.set(path, await textOf(path));
    return parseSchedulerConfiguration(text, files);
  } catch (error) {
    throw refused(`${configFile}: ${messageOf(error)}`);
  }
}

async function textOf(path: string): Promise<string> {
  let bytes: Buffer | undefined;
  try {
    bytes = await readFileIfExists(path);
  } catch (error) {
    throw refused(`cannot read ${path}: ${messageOf(error)}`);
  }
  if (!bytes) throw refused(`there is no file ${path}`);
  return bytes.toString("utf8");
}

const refused = (why: string): AppError => new AppError("SCHEDULER_CONFIGURATION", why);
