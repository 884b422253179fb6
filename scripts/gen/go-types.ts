// Reads the struct declarations of Kubernetes' Go API packages: JSON names, tags and `+marker` comments.
// It is no Go parser: it relies on gofmt's layout (declarations start in column 0, one field per line).

export interface GoField {
  /** Go name; the type's own name for embedded structs. */
  readonly goName: string;
  readonly goType: string;
  readonly jsonName: string;
  readonly omitEmpty: boolean;
  readonly inline: boolean;
  /** 0: not in protobuf (TypeMeta). */
  readonly number: number;
  readonly patchStrategy: string;
  readonly patchMergeKey: string;
  readonly markers: ReadonlyMap<string, readonly string[]>;
}
export interface GoStruct {
  readonly name: string;
  readonly fields: GoField[];
  readonly markers: ReadonlyMap<string, readonly string[]>;
}
export interface GoPackage {
  readonly structs: Map<string, GoStruct>;
  /** Named types that are not structs: name to underlying type. */
  readonly named: Map<string, string>;
  /** Values of `+enum` types. */
  readonly enums: Map<string, string[]>;
  /** Import alias to import path. */
  readonly imports: Map<string, string>;
  readonly groupName: string | undefined;
}

export function parseGo(sources: readonly string[]): GoPackage {
  const structs = new Map<string, GoStruct>();
  const named = new Map<string, string>();
  const imports = new Map<string, string>();
  const enumNames = new Set<string>();
  const constants: { type: string; value: string }[] = [];
  let groupName: string | undefined;
  for (const source of sources) {
    let comment: string[] = [];
    let earlierComment: string[] = [];
    let current: GoStruct | undefined;
    for (const line of source.split("\n")) {
      const text = line.trim();
      if (text.startsWith("//")) {
        comment.push(text.slice(2).trim());
        continue;
      }
      if (text === "") {
        // Type markers may stand in a block of their own above the doc comment.
        if (!current) earlierComment = comment;
        else if (comment.length > 0) earlierComment = [];
        if (!current) comment = [];
        continue;
      }
      const imported = /^(?:import )?(\w+ )?"(k8s\.io\/[^"]+)"$/.exec(text);
      if (imported) imports.set(imported[1]?.trim() ?? imported[2]!.split("/").at(-1)!, imported[2]!);
      const group = /^(?:const )?GroupName\s*=\s*"([^"]*)"/.exec(text);
      if (group) groupName = group[1];
      if (current) {
        if (line === "}") current = undefined;
        else {
          const field = parseField(text, comment);
          if (field) current.fields.push(field);
        }
        comment = [];
        continue;
      }
      const struct = /^type (\w+) struct ?\{/.exec(line);
      const other = /^type (\w+) (=? ?[^\s{]+)(?: \/\/.*)?$/.exec(line);
      if (struct) {
        const parsed: GoStruct = { name: struct[1]!, fields: [], markers: markersOf([...earlierComment, ...comment]) };
        structs.set(parsed.name, parsed);
        if (!line.trimEnd().endsWith("}")) current = parsed;
      } else if (other) {
        named.set(other[1]!, other[2]!.replace(/^= ?/, ""));
        if (markersOf([...earlierComment, ...comment]).has("enum")) enumNames.add(other[1]!);
      }
      const constant = /^(?:const )?\w+\s+(\w+)\s*=\s*"([^"]*)"/.exec(text);
      if (constant) constants.push({ type: constant[1]!, value: constant[2]! });
      comment = [];
      earlierComment = [];
    }
  }
  const enums = new Map([...enumNames].map((name) => [name, [] as string[]]));
  for (const { type, value } of constants) {
    const values = enums.get(type);
    if (values && !values.includes(value)) values.push(value);
  }
  return { structs, named, enums, imports, groupName };
}

function parseField(text: string, comment: readonly string[]): GoField | undefined {
  const match = /^(?:(\w+)\s+)?([^\s`]+)\s*`([^`]*)`/.exec(text);
  if (!match) return undefined;
  const tags = match[3]!;
  const tag = (name: string) => new RegExp(`(?:^|\\s)${name}:"([^"]*)"`).exec(tags)?.[1] ?? "";
  const json = tag("json").split(",");
  const goType = match[2]!;
  return {
    goName: match[1] ?? goType.replace(/^\*/, "").split(".").at(-1)!,
    goType,
    jsonName: json[0]!,
    omitEmpty: json.includes("omitempty"),
    inline: json.includes("inline"),
    number: Number(tag("protobuf").split(",")[1] ?? 0),
    patchStrategy: tag("patchStrategy"),
    patchMergeKey: tag("patchMergeKey"),
    markers: markersOf(comment),
  };
}

function markersOf(comment: readonly string[]): Map<string, string[]> {
  const markers = new Map<string, string[]>();
  for (const line of comment) {
    const match = /^\+([\w:.-]+)(?:=(.*))?$/.exec(line);
    if (!match) continue;
    const values = markers.get(match[1]!) ?? [];
    values.push(match[2] ?? "");
    markers.set(match[1]!, values);
  }
  return markers;
}
