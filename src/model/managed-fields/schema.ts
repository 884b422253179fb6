// What tracking of fields needs to know of a type: which values are owned whole, which lists have keys, which fields are
// declared. Built-in types come from the facts table; custom resources bring schemas of the same shape; values without a
// schema are deduced (objects by field, lists whole). Upstream counterpart: schema of structured-merge-diff and its
// making out of OpenAPI (list-type, map-type, struct-type, and patch strategies where list-type is missing).
import type { Facts, FieldFacts, MessageFacts } from "../facts.ts";
import { fieldElement } from "./field-set.ts";

export type Schema = ScalarSchema | MapSchema | ListSchema | DeducedSchema;

export interface ScalarSchema {
  readonly kind: "scalar";
  readonly scalar: "string" | "number" | "boolean" | "untyped";
}
export interface MapSchema {
  readonly kind: "map";
  /** Owned as one value. */
  readonly atomic: boolean;
  /** Declared members. */
  readonly fields: ReadonlyMap<string, FieldSchema>;
  /** Of members that are not declared; undefined where there may be none. */
  readonly element: Schema | undefined;
  /** Declared members with `absent`, by name. */
  readonly values: readonly string[];
}
export interface FieldSchema {
  /** Its path element, made once: texts that are made anew are slow keys. */
  readonly path: string;
  readonly schema: Schema;
  /** What is there, empty, even where the member is left out: being there is nothing to own then. */
  readonly absent: object | undefined;
  /** What a key that is left out counts as; undefined: it may not be left out. */
  readonly default: unknown;
}
export interface ListSchema {
  readonly kind: "list";
  readonly type: "atomic" | "set" | "map";
  readonly keys: readonly string[];
  readonly element: Schema;
}
/** Whatever the value is. */
export interface DeducedSchema {
  readonly kind: "deduced";
}

export const deduced: Schema = { kind: "deduced" };
const noFields: ReadonlyMap<string, FieldSchema> = new Map();
export const deducedMap: MapSchema = { kind: "map", atomic: false, fields: noFields, element: deduced, values: [] };
export const deducedList: ListSchema = { kind: "list", type: "atomic", keys: [], element: deduced };

export const fieldSchema = (name: string, schema: Schema, absent?: object, fallback?: unknown): FieldSchema => ({
  path: fieldElement(name),
  schema,
  absent,
  default: fallback,
});

export type BuiltInSchemas = (type: string) => MapSchema;

const scalars: Readonly<Record<string, ScalarSchema["scalar"]>> = {
  string: "string",
  bytes: "string",
  duration: "string",
  bool: "boolean",
  int32: "number",
  int64: "number",
  uint32: "number",
  uint64: "number",
  double: "number",
};
const zeros: Readonly<Record<string, unknown>> = { string: "", number: 0, boolean: false };

/** Schemas of messages of the facts table, made on first use and kept. */
export function createBuiltInSchemas(facts: Facts): BuiltInSchemas {
  const known = new Map<string, MapSchema>();
  const messageSchema = (message: MessageFacts, structType: string): MapSchema => {
    const atomic = (structType === "" ? message.structType : structType) === "atomic";
    const key = `${message.name} ${atomic}`;
    const found = known.get(key);
    if (found) return found;
    // Types refer to themselves: the members are made when somebody looks.
    let fields: Map<string, FieldSchema> | undefined;
    let values: readonly string[] | undefined;
    const made: MapSchema = {
      kind: "map",
      atomic,
      get fields() {
        fields ??= fieldsOf(message);
        return fields;
      },
      element: undefined,
      get values() {
        values ??= [...this.fields].filter(([, field]) => field.absent).map(([name]) => name);
        return values;
      },
    };
    known.set(key, made);
    return made;
  };
  const fieldsOf = (message: MessageFacts): Map<string, FieldSchema> => {
    const out = new Map<string, FieldSchema>();
    if (message.isKind) {
      for (const name of ["apiVersion", "kind"]) {
        out.set(name, fieldSchema(name, { kind: "scalar", scalar: "string" }));
      }
    }
    for (const [name, field] of message.members) {
      const schema = schemaOf(field);
      const fallback = field.default ?? zeroOf(field, schema);
      out.set(name, fieldSchema(name, schema, absentOf(field, schema), fallback));
    }
    return out;
  };
  const elementOf = (field: FieldFacts): Schema => {
    if (field.union) return deduced;
    if (field.isMessage) return messageSchema(facts.message(field.type), field.structType);
    if (field.type === "raw" || field.type === "fields") return deduced;
    if (field.type === "strings") return deducedList;
    return { kind: "scalar", scalar: scalars[field.type] ?? "untyped" };
  };
  const schemaOf = (field: FieldFacts): Schema => {
    const element = elementOf(field);
    if (field.repeated) return { kind: "list", ...listType(field, element), element };
    if (!field.map) return element;
    return { kind: "map", atomic: field.mapType === "atomic", fields: noFields, element, values: [] };
  };
  return (type) => messageSchema(facts.message(type), "");
}

function listType(field: FieldFacts, element: Schema): Pick<ListSchema, "type" | "keys"> {
  if (field.listType === "map" && element.kind === "map") return { type: "map", keys: field.listMapKeys };
  if (field.listType === "set") return { type: "set", keys: [] };
  if (field.listType === "" && field.patchStrategies.includes("merge")) {
    if (field.mergeKey !== "" && element.kind === "map") return { type: "map", keys: [field.mergeKey] };
    if (element.kind === "scalar") return { type: "set", keys: [] };
  }
  return { type: "atomic", keys: [] };
}

const emptyMap = Object.freeze({});
const emptyList = Object.freeze([]);

/** Structs that are no pointers are always there in Go, lists and maps where they are always written. */
function absentOf(field: FieldFacts, schema: Schema): object | undefined {
  if (field.pointer || schema.kind === "scalar" || schema.kind === "deduced") return undefined;
  if (schema.kind === "list") return field.omitEmpty ? undefined : emptyList;
  return field.map && field.omitEmpty ? undefined : emptyMap;
}

/** What Go has where a member that it always writes was left out. */
function zeroOf(field: FieldFacts, schema: Schema): unknown {
  if (field.omitEmpty || field.pointer || schema.kind !== "scalar") return undefined;
  return zeros[schema.scalar];
}
