// The verb of a command such as `mote token list`: what is none, or has too many or too few words behind it, is told with
// what is allowed, and with what was probably meant.
import { usageError } from "./flags.ts";
import { nearest } from "./nearest.ts";

/** `usage` lists them, as `create [TOKEN] | list`; `verb` is what was typed. */
export function verbError(command: string, verb: string | undefined, usage: string): Error {
  const lines = usage.split(" | ");
  const names = lines.map((line) => line.split(" ")[0]!);
  if (verb === undefined || verb === "") return usageError(`mote ${command} needs one of: ${names.join(", ")}`);
  const known = lines[names.indexOf(verb)];
  if (known !== undefined) return usageError(`this is how it is used: mote ${command} ${known}`);
  const near = nearest(verb, names);
  const ending = near === undefined ? `; use one of ${names.join(", ")}` : `; did you mean ${near}?`;
  return usageError(`mote ${command} has no "${verb}"${ending}`);
}
