// RFC 7386 merge patch: null deletes, objects merge, everything else replaces.
import { copyOf, isObject, type JsonObject, set } from "./json-value.ts";

export function applyMergePatch(document: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: JsonObject = isObject(document) ? copyOf(document) : {};
  for (const name of Object.keys(patch)) {
    const value = patch[name];
    if (value === null) delete result[name];
    else set(result, name, applyMergePatch(Object.hasOwn(result, name) ? result[name] : undefined, value));
  }
  return result;
}
