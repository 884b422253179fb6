// The facts table: what the API's types look like, field by field. One table feeds the protobuf codec, strict decoding,
// strategic merge and OpenAPI. Generated text (gen/facts.ts) is split by package on first use of that package.
// Format: `@core/v1 <group>` starts a package; `=Enum a,b` lists values; a line in column 0 is a message with flags
// (k: has apiVersion and kind, st: structType); a line indented by one space is a field: `name number type flags`.
// Type: scalar, special type, `Name` of the same package or `pkg/v1.Name`, after `[]` for lists or `{}` for maps.
// Flags: r required, o omitempty, p pointer, i inline, t= Go's named type, ps= patchStrategy, mk= patchMergeKey,
// lt= listType, lk= listMapKey, mt= mapType, st= structType, d= default (JSON), u: may be something else than its
// message (a boolean where a schema may stand).
import { assert } from "#base/assert.ts";
import { extensionFactsText } from "./extension-facts.ts";
import { factsText } from "./gen/facts.ts";

export interface FieldFacts {
  /** JSON name; empty for inline fields. */
  readonly name: string;
  readonly number: number;
  /** Scalar, special or full message name (`core/v1.PodSpec`), of the element for lists and maps. */
  readonly type: string;
  readonly isMessage: boolean;
  readonly repeated: boolean;
  readonly map: boolean;
  readonly required: boolean;
  readonly omitEmpty: boolean;
  readonly pointer: boolean;
  readonly inline: boolean;
  /** Go's named type of a string, list or map (`Protocol`, `core/v1.ResourceList`); empty when it has none. */
  readonly goType: string;
  readonly patchStrategies: readonly string[];
  readonly mergeKey: string;
  readonly listType: string;
  readonly listMapKeys: readonly string[];
  readonly mapType: string;
  readonly structType: string;
  /** Anything that is no object is taken as it is; nobody owns parts of it. */
  readonly union: boolean;
  readonly default: unknown;
}
export interface MessageFacts {
  /** `core/v1.Pod`. */
  readonly name: string;
  /** `core/v1`. */
  readonly package: string;
  readonly shortName: string;
  readonly isKind: boolean;
  readonly structType: string;
  /** As in protobuf: inline structs are fields of their own. */
  readonly fields: readonly FieldFacts[];
  /** As in JSON: members of inline structs are members of the holder. Without apiVersion and kind. */
  readonly members: ReadonlyMap<string, FieldFacts>;
}
export interface PackageFacts {
  readonly name: string;
  readonly group: string;
  readonly version: string;
  readonly messages: ReadonlyMap<string, MessageFacts>;
  readonly enums: ReadonlyMap<string, readonly string[]>;
}
export interface Facts {
  readonly packageNames: readonly string[];
  package(name: string): PackageFacts;
  find(type: string): MessageFacts | undefined;
  /** Asserts that the table has it. */
  message(type: string): MessageFacts;
  /** Values of a named type, for fields whose goType is a closed set. */
  enumValues(field: FieldFacts, owner: string): readonly string[] | undefined;
}

const plainTypes: ReadonlySet<string> = new Set([
  ...["string", "bool", "int32", "int64", "uint32", "uint64", "double", "bytes"],
  ...["time", "microtime", "duration", "quantity", "intstr", "raw", "fields", "strings"],
]);

export function createFacts(text: string): Facts {
  const sources = new Map<string, string>();
  for (const part of text.split(/^@/m)) {
    if (part === "") continue;
    sources.set(/^[^\s]+/.exec(part)![0], part);
  }
  const parsed = new Map<string, PackageFacts>();
  const packageOf = (name: string): PackageFacts => {
    let found = parsed.get(name);
    if (!found) {
      const source = sources.get(name);
      assert(source !== undefined, `the facts table has no package ${name}`);
      found = parsePackage(source, find);
      parsed.set(name, found);
    }
    return found;
  };
  /** Of this table, so there are no more than it has. */
  const known = new Map<string, MessageFacts>();
  const find = (type: string): MessageFacts | undefined => {
    const before = known.get(type);
    if (before) return before;
    const dot = type.lastIndexOf(".");
    const owner = type.slice(0, dot);
    const found = sources.has(owner) ? packageOf(owner).messages.get(type.slice(dot + 1)) : undefined;
    if (found) known.set(type, found);
    return found;
  };
  return {
    packageNames: [...sources.keys()],
    package: packageOf,
    find,
    message(type) {
      const found = find(type);
      assert(found, `the facts table has no ${type}`);
      return found;
    },
    enumValues(field, owner) {
      if (field.goType === "") return undefined;
      const dot = field.goType.lastIndexOf(".");
      const name = dot < 0 ? owner : field.goType.slice(0, dot);
      // A package lists the values of every closed set its fields use, under the name its fields use.
      return sources.has(owner)
        ? packageOf(owner).enums.get(dot < 0 ? field.goType : `${name}${field.goType.slice(dot)}`)
        : undefined;
    },
  };
}

/** The table of the built-in API. */
export const facts: Facts = createFacts(factsText + extensionFactsText);

function parsePackage(source: string, find: (type: string) => MessageFacts | undefined): PackageFacts {
  const lines = source.split("\n");
  const [name = "", group = ""] = lines[0]!.split(" ");
  const messages = new Map<string, MessageFacts>();
  const enums = new Map<string, readonly string[]>();
  let fields: FieldFacts[] = [];
  for (const line of lines.slice(1)) {
    if (line === "") continue;
    if (line.startsWith("=")) {
      const space = line.indexOf(" ");
      enums.set(
        line.slice(1, space),
        line
          .slice(space + 1)
          .split(",")
          .map((value) => (value === '""' ? "" : value)),
      );
    } else if (line.startsWith(" ")) fields.push(parseField(line.slice(1), name));
    else {
      const [shortName = "", ...flags] = line.split(" ");
      const own: FieldFacts[] = [];
      fields = own;
      let members: Map<string, FieldFacts> | undefined;
      messages.set(shortName, {
        name: `${name}.${shortName}`,
        package: name,
        shortName,
        isKind: flags.includes("k"),
        structType: flagOf(flags, "st"),
        fields: own,
        get members() {
          members ??= membersOf(own, find);
          return members;
        },
      });
    }
  }
  return { name, group, version: name.slice(name.indexOf("/") + 1), messages, enums };
}

function membersOf(
  fields: readonly FieldFacts[],
  find: (type: string) => MessageFacts | undefined,
): Map<string, FieldFacts> {
  const members = new Map<string, FieldFacts>();
  for (const field of fields) {
    if (!field.inline) members.set(field.name, field);
    else for (const [name, member] of find(field.type)?.members ?? []) members.set(name, member);
  }
  return members;
}

function parseField(line: string, packageName: string): FieldFacts {
  const [name = "", number, type = "", ...flags] = line.split(" ");
  const repeated = type.startsWith("[]");
  const map = type.startsWith("{}");
  const base = repeated || map ? type.slice(2) : type;
  const isMessage = !plainTypes.has(base);
  const list = (key: string) =>
    flagOf(flags, key)
      .split(",")
      .filter((part) => part !== "");
  const fallback = flagOf(flags, "d");
  return {
    name: name === "-" ? "" : name,
    number: Number(number),
    type: isMessage && !base.includes("/") ? `${packageName}.${base}` : base,
    isMessage,
    repeated,
    map,
    required: flags.includes("r"),
    omitEmpty: flags.includes("o"),
    pointer: flags.includes("p"),
    inline: flags.includes("i"),
    goType: flagOf(flags, "t"),
    patchStrategies: list("ps"),
    mergeKey: flagOf(flags, "mk"),
    listType: flagOf(flags, "lt"),
    listMapKeys: list("lk"),
    mapType: flagOf(flags, "mt"),
    structType: flagOf(flags, "st"),
    union: flags.includes("u"),
    default: fallback === "" ? undefined : parseDefault(fallback),
  };
}

const flagOf = (flags: readonly string[], key: string): string =>
  flags.find((flag) => flag.startsWith(`${key}=`))?.slice(key.length + 1) ?? "";

/** A few markers refer to Go constants (`ref(...)`); those are left to the defaulting code. */
function parseDefault(text: string): unknown {
  return /^["{[\d]|^(true|false)$/.test(text) ? JSON.parse(text) : undefined;
}
