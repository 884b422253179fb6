// The body of a server-side apply: YAML or JSON of an object that need not be whole. It is not decoded into its type:
// what the client wrote is what it will own. Upstream counterpart: applyPatcher of endpoints/handlers/patch.go.
import { messageOf } from "#base/errors.ts";
import { isObject, type JsonObject } from "#model/patch/json-value.ts";
import { badRequest } from "#model/status.ts";
import { parseJson, parseJsonFast } from "#wire/json.ts";
import { parseYaml } from "#wire/yaml.ts";

export interface ParseOptions {
  readonly fieldValidation: "Strict" | "Warn" | "Ignore";
  warn(message: string): void;
}

export function parseApplyConfig(body: Uint8Array, options: ParseOptions): JsonObject {
  let value: unknown;
  const twice: string[] = [];
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(body);
    // JSON is YAML, and most clients send it: the faster reader takes it.
    if (!/^\s*\{/.test(text)) value = parseYaml(text);
    else value = parseFlow(text, options, twice);
  } catch (error) {
    throw badRequest(`error decoding YAML: ${messageOf(error)}`);
  }
  if (!isObject(value)) {
    throw badRequest("error decoding YAML: error unmarshaling JSON: json: cannot unmarshal into Go value of type map");
  }
  for (const path of twice) {
    const problem = `key ${JSON.stringify(path)} already set in map`;
    if (options.fieldValidation === "Strict") throw badRequest(`error strict decoding YAML: ${problem}`);
    options.warn(problem);
  }
  return withoutBigints(value) as JsonObject;
}

/** Text in braces may still be YAML that is not JSON: `{a: 1}`. */
function parseFlow(text: string, options: ParseOptions, twice: string[]): unknown {
  try {
    if (options.fieldValidation === "Ignore") return parseJsonFast(text);
    return parseJson(text, { onDuplicate: (path) => twice.push(path) });
  } catch {
    return parseYaml(text);
  }
}

/** JSON has no other numbers. */
function withoutBigints(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(withoutBigints);
  if (!isObject(value)) return value;
  for (const name of Object.keys(value)) {
    const member = value[name];
    if (typeof member === "bigint" || typeof member === "object") value[name] = withoutBigints(member);
  }
  return value;
}
