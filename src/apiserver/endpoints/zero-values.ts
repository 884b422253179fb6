// Members that Go has by value are there even when a client leaves them out: spec.template of a Job, podSelector of a
// NetworkPolicy, the name of a container. Adding them, empty, after decoding gives strategies, defaults and validation
// the objects that their types promise, and answers look as upstream's do. Upstream counterpart: none; it is how Go
// decodes.
import { type FieldFacts, facts, type MessageFacts } from "#model/facts.ts";

type Fields = Record<string, unknown>;

/**
 * Value structs that `omitempty` never leaves out and that code everywhere reaches through, or that are no part of what is
 * defaulted: `conditions` of an endpoint, `source` of an event. Without them, an object read as protobuf and written back
 * unchanged would have changed.
 */
const alwaysThere = new Set(["conditions", "deprecatedSource", "metadata", "source", "spec", "template"]);
/** Times and quantities have no zero that could be shown; they stay away. */
const zeros: Readonly<Record<string, unknown>> = {
  string: "",
  bool: false,
  int32: 0,
  int64: 0,
  uint32: 0,
  uint64: 0,
  double: 0,
};

/** Changes `object`, which is of the named message. Kinds without facts stay as they are. */
export function addZeroValues(object: Fields, type: string): void {
  const message = type === "" ? undefined : facts.find(type);
  if (message) fill(object, message);
}

function fill(object: Fields, message: MessageFacts): void {
  for (const [name, field] of message.members) {
    if (field.inline) continue;
    const value = Object.hasOwn(object, name) ? object[name] : undefined;
    if (value === undefined) {
      const zero = isThereInGo(field) ? zeroOf(field) : undefined;
      if (zero !== undefined) object[name] = zero;
    } else if (field.isMessage && typeof value === "object" && value !== null) descend(value, field);
  }
}

const isThereInGo = (field: FieldFacts): boolean =>
  !field.pointer &&
  (!field.omitEmpty || (field.isMessage && !field.repeated && !field.map && alwaysThere.has(field.name)));

function zeroOf(field: FieldFacts): unknown {
  if (field.repeated) return [];
  if (field.map) return {};
  if (!field.isMessage) return zeros[field.type];
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
