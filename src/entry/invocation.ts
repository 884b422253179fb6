// What `mote` gives to the subcommand that it runs.
import type { Flag } from "#cli/flags.ts";
import type { Runner } from "./default-paths.ts";
import type { Environment } from "./read-flags.ts";

export interface Invocation {
  /** Behind the subcommand's name. */
  readonly args: readonly string[];
  readonly env: Environment;
  /** The subcommand's. */
  readonly flags: readonly Flag[];
  readonly runner: Runner;
}
