// YAML as Kubernetes' Go side reads and prints it: version 1.1 booleans and octals, dates left as strings, keys always
// strings, duplicate keys refused or, where asked for, told of in Go's words, aliases bounded. Printing matches kubectl: two
// spaces, lists not indented.
import { Buffer } from "node:buffer";
import {
  type DocumentOptions,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type ParseOptions,
  parseAllDocuments,
  type Scalar,
  type SchemaOptions,
  stringify,
} from "yaml";
import { AppError, messageOf } from "#base/errors.ts";
import { setMember } from "./protobuf.ts";

const language = { version: "1.1", schema: "yaml-1.1" } satisfies DocumentOptions & SchemaOptions;

const settings = {
  ...language,
  merge: true,
  // Looked at afterwards: the parser would hold each key of a map against all before it, minutes for three megabytes.
  uniqueKeys: false,
  intAsBigInt: true,
  // Neither dates nor base-60 numbers: Go reads `22:22` and hardware addresses as strings.
  customTags: (tags) =>
    tags.filter((tag) =>
      typeof tag === "string" ? !/timestamp|time/i.test(tag) : !/timestamp/.test(tag.tag) && tag.format !== "TIME",
    ),
} satisfies ParseOptions & DocumentOptions & SchemaOptions;

/** A text that happens to be the merge key is quoted: it would be read as one. */
const merge = { tag: "tag:yaml.org,2002:merge", default: true, test: /^<<$/, resolve: (text: string) => text } as const;

/** More aliased nodes than any manifest has: a few lines of YAML must not unfold into gigabytes. */
const maxAliasCount = 1000;

export interface YamlOptions {
  /** Takes `line 5: key "a" already set in map`, and the last of such keys counts. Absent: they are refused. */
  readonly onDuplicate?: (problem: string) => void;
}

/** One document; rejects with YAML_SYNTAX. Whole numbers beyond 2^53 come out as bigint. */
export function parseYaml(text: string, options: YamlOptions = {}): unknown {
  const documents = parseYamlDocuments(text, options);
  if (documents.length > 1) throw new AppError("YAML_SYNTAX", "expected one YAML document");
  return documents[0] ?? null;
}

/** All documents of a stream; empty ones are left out. */
export function parseYamlDocuments(text: string, options: YamlOptions = {}): unknown[] {
  const result: unknown[] = [];
  const { onDuplicate } = options;
  const lineCounter = new LineCounter();
  for (const document of parseAllDocuments(text, { ...settings, lineCounter })) {
    if (!("errors" in document)) continue;
    const error = document.errors[0];
    if (error) throw new AppError("YAML_SYNTAX", error.message.split("\n")[0]!.replace(/:$/, ""));
    for (const key of duplicateKeys(document.contents)) {
      if (!onDuplicate) {
        const { line, col } = lineCounter.linePos(startOf(key));
        throw new AppError("YAML_SYNTAX", `Map keys must be unique at line ${line}, column ${col}`);
      }
      const { line } = lineCounter.linePos(valueStartOf(key, text));
      const name = typeof key.value === "bigint" ? String(key.value) : JSON.stringify(key.value);
      onDuplicate(`line ${line}: key ${name} already set in map`);
    }
    try {
      const value = plain(document.toJS({ maxAliasCount, mapAsMap: true }));
      if (value !== null && value !== undefined) result.push(value);
    } catch (cause) {
      throw new AppError("YAML_SYNTAX", messageOf(cause), {}, { cause });
    }
  }
  return result;
}

/** Keys that their map had before, in the order of the text. */
function duplicateKeys(root: unknown): Scalar[] {
  const found: Scalar[] = [];
  const open = [root];
  while (open.length > 0) {
    const node = open.pop();
    if (isSeq(node)) for (const item of node.items) open.push(item);
    if (!isMap(node)) continue;
    const seen = new Set<unknown>();
    for (const { key, value } of node.items) {
      if (!isScalar(key)) open.push(key);
      else if (seen.has(key.value)) found.push(key);
      else seen.add(key.value);
      open.push(value);
    }
  }
  return found.sort((a, b) => startOf(a) - startOf(b));
}

const startOf = ({ range }: Scalar): number => range?.[0] ?? 0;

/** Where Go counts the line: behind the colon, blanks and comments. */
function valueStartOf({ range }: Scalar, text: string): number {
  const end = range?.[1] ?? 0;
  return end + (/^\s*:?(?:\s|#[^\n]*\n)*/.exec(text.slice(end, end + 1000))?.[0].length ?? 0);
}

/** Texts that a reader could take for a time or a base-60 number are quoted: Go does not read them so, but prints them so. */
export function stringifyYaml(value: unknown): string {
  return stringify(value, {
    ...language,
    customTags: (tags) => [
      ...tags.filter((tag) => tag !== "merge" && !(typeof tag === "object" && tag.tag === merge.tag)),
      merge,
    ],
    indent: 2,
    indentSeq: false,
    lineWidth: 0,
    aliasDuplicateObjects: false,
  });
}

/** Maps to objects with string keys, bigints to numbers where nothing is lost. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) {
    const object: Record<string, unknown> = {};
    for (const [key, member] of value) setMember(object, keyText(key), plain(member));
    return object;
  }
  if (value instanceof Set) return plain(new Map([...value].map((key) => [key, null])));
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  return value;
}

function keyText(key: unknown): string {
  if (typeof key === "object" && key !== null) throw new AppError("YAML_SYNTAX", "map keys must be strings");
  return String(key);
}
