// Structs that Go has by value are there even when a client leaves them out: spec.template of a Job, podSelector of a
// NetworkPolicy. Adding them, empty, after decoding gives strategies, defaults and validation the objects that their
// types promise, and answers look as upstream's do. Upstream counterpart: none; it is how Go decodes.
import { type FieldFacts, facts, type MessageFacts } from "#model/facts.ts";

type Fields = Record<string, unknown>;

/** Value structs that `omitempty` never leaves out and that code everywhere reaches through. */
const alwaysThere = new Set(["metadata", "spec", "template"]);

/** Changes `object`, which is of the named message. Kinds without facts stay as they are. */
export function addZeroStructs(object: Fields, type: string): void {
  const message = type === "" ? undefined : facts.find(type);
  if (message) fill(object, message);
}

function fill(object: Fields, message: MessageFacts): void {
  for (const [name, field] of message.members) {
    if (!field.isMessage || field.inline) continue;
    const value = Object.hasOwn(object, name) ? object[name] : undefined;
    if (value === undefined) {
      if (isThereInGo(field)) object[name] = filled(field);
    } else if (typeof value === "object" && value !== null) descend(value, field);
  }
}

const isThereInGo = (field: FieldFacts): boolean =>
  !field.pointer && !field.repeated && !field.map && (!field.omitEmpty || alwaysThere.has(field.name));

function filled(field: FieldFacts): Fields {
  const object: Fields = {};
  fill(object, facts.message(field.type));
  return object;
}

function descend(value: object, field: FieldFacts): void {
  const message = facts.message(field.type);
  // A list, a map or the struct itself.
  const elements = field.repeated || field.map ? Object.values(value) : [value];
  for (const element of elements) if (typeof element === "object" && element !== null) fill(element as Fields, message);
}
