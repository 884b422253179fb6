// Kubernetes objects as protobuf: the envelope `k8s\0` + runtime.Unknown around a message described by the facts table,
// and the types that JSON spells differently (Time, Quantity, IntOrString, RawExtension, …).
// Invariant: decode(encode(x)) equals x for any object that model/decode.ts produced.
// Upstream counterpart: runtime/serializer/protobuf and the generated.pb.go files.
import { Buffer } from "node:buffer";
import {
  createWireCodec,
  decodeMessage,
  defineMessage,
  encodeMessage,
  type WireCustom,
  type WireField,
  type WireMessage,
  type WireScalar,
} from "#wire/protobuf.ts";
import { formatDurationNanoseconds, parseDurationNanoseconds } from "./duration.ts";
import { facts as builtIn, type Facts, type FieldFacts } from "./facts.ts";
import { formatMicroTime, formatTime, parseTime } from "./time.ts";

export interface DecodedProtobuf {
  readonly apiVersion: string;
  readonly kind: string;
  readonly object: Record<string, unknown>;
}

const magic = Buffer.from([0x6b, 0x38, 0x73, 0x00]);
const codec = createWireCodec(`Unknown
 typeMeta 1 TypeMeta
 raw 2 bytes
 contentEncoding 3 string a
 contentType 4 string a
TypeMeta
 apiVersion 1 string a
 kind 2 string a
Time
 seconds 1 int64 a
 nanos 2 int32 a
Text
 text 1 string a
Number
 number 1 int64 a
Bytes
 bytes 1 bytes
Items
 items 1 []string
IntOrString
 type 1 int64 a
 intVal 2 int32 a
 strVal 3 string a
WatchEvent
 type 1 string a
 object 2 Raw
Raw
 raw 1 bytes
`);

export const isProtobuf = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && magic.equals(Buffer.from(bytes.buffer, bytes.byteOffset, 4));

/** `type`: message of the facts table. Rejects with WIRE_PROTOBUF. */
export function decodeProtobuf(
  bytes: Uint8Array,
  type: string,
  messages: MessageCodec = builtInCodec,
): DecodedProtobuf {
  const unknown = codec.decode<{ typeMeta?: { apiVersion: string; kind: string }; raw: Uint8Array }>(
    "Unknown",
    bytes.subarray(4),
  );
  const apiVersion = unknown.typeMeta?.apiVersion ?? "";
  const kind = unknown.typeMeta?.kind ?? "";
  const object = { ...(kind === "" ? {} : { apiVersion, kind }), ...messages.decode(type, unknown.raw) };
  return { apiVersion, kind, object };
}

/** With the envelope; `object` needs apiVersion and kind. */
export function encodeProtobuf(object: object, type: string, messages: MessageCodec = builtInCodec): Uint8Array {
  const { apiVersion = "", kind = "" } = object as { apiVersion?: string; kind?: string };
  const raw = messages.encode(type, object);
  return wrap(apiVersion, kind, raw);
}

/** A list whose items are encoded some at a time: byte for byte what `encodeProtobuf` makes of the whole. */
export interface ProtobufList {
  items(objects: readonly object[]): Uint8Array;
  /** What stands before and after all items, which say how long they are. */
  around(itemBytes: number): readonly [before: Uint8Array, after: Uint8Array];
}

/** `list`: without items. */
export function protobufList(list: object, type: string, messages: MessageCodec = builtInCodec): ProtobufList {
  const { apiVersion = "", kind = "" } = list as { apiVersion?: string; kind?: string };
  // Items are the last field of every list.
  const nothing = messages.encode(type, { items: [] }).length;
  return {
    items: (objects) => messages.encode(type, { items: objects }).subarray(nothing),
    around(itemBytes) {
      const raw = messages.encode(type, { ...list, items: [] });
      const one = codec.encode("Unknown", { typeMeta: { apiVersion, kind }, raw: new Uint8Array([1]) });
      // Of the envelope: what is before the length of `raw`, and what is behind its one byte.
      const after = one.subarray(one.length - emptyContentFields);
      const before = one.subarray(0, one.length - emptyContentFields - 2);
      return [Buffer.concat([magic, before, varint(raw.length + itemBytes), raw]), after];
    },
  };
}

/** contentEncoding and contentType, each a tag and a zero. */
const emptyContentFields = 4;

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

/** One frame of a watch stream, after its four-byte length: the event's object is an envelope of its own. */
export function encodeProtobufWatchEvent(type: string, object: Uint8Array): Uint8Array {
  const raw = codec.encode("WatchEvent", { type, object: { raw: object } });
  const frame = Buffer.alloc(4 + raw.length);
  frame.writeUInt32BE(raw.length, 0);
  frame.set(raw, 4);
  return frame;
}

/** Whether the table has a message for it; others are answered in JSON, and definitions too, whose unions it lacks. */
export const hasProtobuf = (type: string): boolean =>
  type !== "" && !type.startsWith("apiextensions/") && builtIn.find(type) !== undefined;

function wrap(apiVersion: string, kind: string, raw: Uint8Array): Uint8Array {
  const unknown = codec.encode("Unknown", { typeMeta: { apiVersion, kind }, raw });
  const bytes = Buffer.allocUnsafe(4 + unknown.length);
  bytes.set(magic, 0);
  bytes.set(unknown, 4);
  return bytes;
}

export interface MessageCodec {
  encode(type: string, object: object): Uint8Array;
  decode(type: string, bytes: Uint8Array): Record<string, unknown>;
}

/** Messages without the envelope. Wire tables are derived from the facts once per message. */
export function createMessageCodec(facts: Facts): MessageCodec {
  const messages = new Map<string, WireMessage>();
  const messageOf = (type: string): WireMessage => {
    let message = messages.get(type);
    if (!message) {
      message = defineMessage(
        type,
        facts.message(type).fields.map((field) => wireField(messageOf, field)),
      );
      messages.set(type, message);
    }
    return message;
  };
  return {
    encode: (type, object) => encodeMessage(messageOf(type), object),
    decode: (type, bytes) => decodeMessage(messageOf(type), bytes),
  };
}

function wireField(messageOf: (type: string) => WireMessage, field: FieldFacts): WireField {
  const custom = Object.hasOwn(customs, field.type) ? customs[field.type] : undefined;
  const single = !field.repeated && !field.map;
  return {
    name: field.name,
    number: field.number,
    type: field.isMessage ? "message" : custom ? "custom" : (field.type as WireScalar),
    repeated: field.repeated,
    map: field.map,
    // Go writes every member that is no pointer, zero or not.
    presence: single && !field.pointer && !nilable.has(field.type) ? "always" : "explicit",
    inline: field.inline,
    dropZero: single && !field.pointer && field.omitEmpty && (!custom || field.type === "bytes"),
    packed: false,
    ...(field.isMessage ? { message: () => messageOf(field.type) } : {}),
    ...(custom ? { custom } : {}),
  };
}

/** Slices in Go. */
const nilable: ReadonlySet<string> = new Set(["bytes", "strings"]);
const empty = new Uint8Array(0);
const timeCustom = (format: (parts: { seconds: number; nanos: number }) => string): WireCustom => ({
  encode(value) {
    if (typeof value !== "string") return empty;
    const { seconds, nanos } = parseTime(value);
    return codec.encode("Time", { seconds, nanos: format === formatTime ? 0 : nanos });
  },
  decode(bytes) {
    if (bytes.length === 0) return undefined;
    const { seconds, nanos } = codec.decode<{ seconds: number; nanos: number }>("Time", bytes);
    return format({ seconds, nanos });
  },
});
const jsonCustom: WireCustom = {
  encode: (value) =>
    value === undefined ? empty : codec.encode("Bytes", { bytes: Buffer.from(JSON.stringify(value)) }),
  decode(bytes) {
    const { bytes: json } = codec.decode<{ bytes: Uint8Array }>("Bytes", bytes);
    return json.length === 0 ? undefined : (JSON.parse(Buffer.from(json).toString("utf8")) as unknown);
  },
};

/** Codecs of what JSON shows as something else than its message. `undefined` encodes Go's zero value. */
const customs: Readonly<Record<string, WireCustom>> = {
  bytes: {
    encode: (value) => (value === undefined ? empty : Buffer.from(String(value), "base64")),
    decode: (bytes) => Buffer.from(bytes).toString("base64"),
  },
  time: timeCustom(formatTime),
  microtime: timeCustom(formatMicroTime),
  duration: {
    encode: (value) =>
      codec.encode("Number", { number: value === undefined ? 0 : parseDurationNanoseconds(String(value)) }),
    decode: (bytes) => formatDurationNanoseconds(codec.decode<{ number: number }>("Number", bytes).number),
  },
  quantity: {
    encode: (value) => codec.encode("Text", { text: value === undefined ? "0" : String(value) }),
    decode: (bytes) => codec.decode<{ text: string }>("Text", bytes).text || "0",
  },
  intstr: {
    encode: (value) =>
      typeof value === "string"
        ? codec.encode("IntOrString", { type: 1, strVal: value })
        : codec.encode("IntOrString", { type: 0, intVal: Number(value ?? 0) }),
    decode(bytes) {
      const value = codec.decode<{ type: number; intVal: number; strVal: string }>("IntOrString", bytes);
      return value.type === 1 ? value.strVal : value.intVal;
    },
  },
  raw: jsonCustom,
  fields: jsonCustom,
  strings: {
    encode: (value) => codec.encode("Items", { items: (value ?? []) as string[] }),
    decode: (bytes) => codec.decode<{ items: string[] }>("Items", bytes).items,
  },
};

const builtInCodec: MessageCodec = createMessageCodec(builtIn);
