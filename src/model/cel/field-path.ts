// Paths that rules give for their errors: `.spec.x['a.b']`, made of fields that the schema has and keys of maps.
// Upstream counterpart: apiextensions schema/cel.ValidFieldPath.
import type { JsonSchema } from "../custom-resources.ts";

const escapes: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "'": "'",
  "\\": "\\",
};

/** The path as errors show it, to go behind that of the rule; undefined where it leads nowhere. */
export function resolveFieldPath(path: string, schema: JsonSchema): string | undefined {
  let at = 0;
  let current = schema;
  let shown = "";
  while (at < path.length) {
    const step: Step | undefined = readStep(path, at);
    if (!step) return undefined;
    at = step.end;
    const { properties, additionalProperties } = current;
    if (properties) {
      const next = Object.hasOwn(properties, step.name) ? properties[step.name] : undefined;
      if (!next) return undefined;
      current = next;
      shown += shown === "" ? step.name : `.${step.name}`;
    } else if (typeof additionalProperties === "object" && additionalProperties !== null) {
      current = additionalProperties;
      shown += `[${step.name}]`;
    } else return undefined;
  }
  return shown;
}

interface Step {
  readonly name: string;
  readonly end: number;
}
function readStep(path: string, at: number): Step | undefined {
  if (path[at] === ".") {
    const name = /^[^.[\]']+/.exec(path.slice(at + 1))?.[0];
    return name === undefined ? undefined : { name, end: at + 1 + name.length };
  }
  const quoted = /^\['((?:[^'\\]|\\.)*)'\]/.exec(path.slice(at));
  if (!quoted) return undefined;
  let isValid = true;
  const name = quoted[1]!.replace(/\\./g, (escaped) => {
    const found = Object.hasOwn(escapes, escaped[1]!) ? escapes[escaped[1]!] : undefined;
    if (found === undefined) isValid = false;
    return found ?? "";
  });
  return isValid ? { name, end: at + quoted[0].length } : undefined;
}
