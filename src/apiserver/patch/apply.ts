// The body of a server-side apply: YAML, JSON or CBOR of an object that need not be whole. It is not decoded into its type:
// what the client wrote is what it will own. Upstream counterpart: applyPatcher of endpoints/handlers/patch.go.
import { messageOf } from "#base/errors.ts";
import { isObject, type JsonObject } from "#model/patch/json-value.ts";
import { badRequest } from "#model/status.ts";
import { decodeCbor } from "#wire/cbor.ts";
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
    if (!/^\s*\{/.test(text)) value = parseYaml(text, { onDuplicate: (problem) => twice.push(problem) });
    else value = parseFlow(text, options, twice);
  } catch (error) {
    throw badRequest(`error decoding YAML: ${messageOf(error)}`);
  }
  if (!isObject(value)) {
    throw badRequest("error decoding YAML: error unmarshaling JSON: json: cannot unmarshal into Go value of type map");
  }
  if (options.fieldValidation === "Strict" && twice.length > 0) {
    const problems = `yaml: unmarshal errors:\n  ${twice.join("\n  ")}`;
    throw badRequest(`error strict decoding YAML: error converting YAML to JSON: ${problems}`);
  }
  if (options.fieldValidation === "Warn") for (const problem of twice) options.warn(problem);
  return withoutBigints(value) as JsonObject;
}

/** What comes twice is refused with it, whatever the field validation. */
export function parseCborApplyConfig(body: Uint8Array): JsonObject {
  let value: unknown;
  try {
    value = decodeCbor(body);
  } catch (error) {
    throw badRequest(`error decoding CBOR: ${messageOf(error)}`);
  }
  if (isObject(value)) return value as JsonObject;
  throw badRequest("error decoding CBOR: cbor: cannot unmarshal into Go value of type map[string]interface {}");
}

/** Text in braces may still be YAML that is not JSON: `{a: 1}`. */
function parseFlow(text: string, options: ParseOptions, twice: string[]): unknown {
  const onDuplicate = (problem: string) => {
    twice.push(problem);
  };
  try {
    if (options.fieldValidation === "Ignore") return parseJsonFast(text);
    let hasTwice = false;
    const value = parseJson(text, {
      onDuplicate() {
        hasTwice = true;
      },
    });
    // To say where, it is read as what it is to upstream: YAML.
    if (hasTwice) parseYaml(text, { onDuplicate });
    return value;
  } catch {
    return parseYaml(text, { onDuplicate });
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
