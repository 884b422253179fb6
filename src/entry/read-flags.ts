// Flags of one run of a command: its arguments, the environment, and the configuration files that --config names.
import { messageOf } from "#base/errors.ts";
import { type Flag, type FlagValues, type ParsedFlags, parseFlags, usageError } from "#cli/flags.ts";
import { listFolder, readFileIfExists } from "#platform/files.ts";
import { parseYaml } from "#wire/yaml.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Parses `args` with the configuration files that --config names; only the default file may be missing. */
export async function readFlags(
  flags: readonly Flag[],
  args: readonly string[],
  env: Environment,
): Promise<ParsedFlags> {
  // The first pass only finds --config; mistakes are reported by the second.
  const first = parseFlags(flags, { args, env });
  const path = String(first.values["config"]);
  const defaultConfig = flags.find((flag) => flag.name === "config")?.default;
  const names = [path];
  for (const entry of await listFolder(`${path}.d`)) {
    if (entry.isFile() && /\.ya?ml$/.test(entry.name)) names.push(`${path}.d/${entry.name}`);
  }
  names.splice(1, names.length, ...names.slice(1).sort());
  const files: { path: string; values: Record<string, unknown> }[] = [];
  for (const name of names) {
    const bytes = await readConfig(name);
    if (!bytes) {
      if (path === defaultConfig) continue;
      throw usageError(`config: there is no file ${name}`);
    }
    let values: unknown;
    try {
      values = parseYaml(bytes.toString("utf8"));
    } catch (error) {
      throw usageError(`${name}: not readable as YAML: ${messageOf(error)}`);
    }
    if (values === null || values === undefined) continue;
    if (typeof values !== "object" || Array.isArray(values)) {
      throw usageError(`${name}: a map of flag names to values is expected`);
    }
    files.push({ path: name, values: values as Record<string, unknown> });
  }
  return parseFlags(flags, { args, env, files });
}

/** The same of a command that takes flags and nothing else. */
export async function readFlagsOnly(
  flags: readonly Flag[],
  args: readonly string[],
  env: Environment,
): Promise<{ readonly values: FlagValues; readonly warnings: readonly string[] }> {
  const { positionals, ...read } = await readFlags(flags, args, env);
  if (positionals.length > 0) throw usageError(`unexpected argument "${positionals[0]}"`);
  return read;
}

async function readConfig(path: string): Promise<Buffer | undefined> {
  try {
    return await readFileIfExists(path);
  } catch (error) {
    throw usageError(`config: cannot read ${path}: ${messageOf(error)}`);
  }
}
