// Protobuf and CBOR for whatever kind an answer is: which message of the facts table an apiVersion and kind stand for.
// Upstream counterpart: the scheme behind the serializers.
import { Buffer } from "node:buffer";
import { facts, type MessageFacts } from "#model/facts.ts";
import type { UnknownObject } from "#model/object.ts";
import { encodeProtobuf, hasProtobuf, type ProtobufList, protobufList } from "#model/protobuf.ts";
import { groupVersion } from "#model/resource-info.ts";
import { knownResources } from "#model/resources.ts";
import { encodeCbor, encodeCborMap, encodeCborText } from "#wire/cbor.ts";

export interface ProtobufFormat {
  has(apiVersion: string, kind: string): boolean;
  /** With the envelope; undefined for kinds without a message. */
  encode(object: UnknownObject): Uint8Array | undefined;
  /** Of a list without its items; undefined for kinds without a message. */
  list(empty: UnknownObject): ProtobufList | undefined;
}

/** Kinds of the machinery, which every version serves. */
const metaKinds = new Set(["Status", "APIVersions", "APIGroup", "APIGroupList", "APIResourceList"]);

/** The message of an apiVersion and kind; empty: none. */
type TypeOf = (apiVersion: string, kind: string) => string;

function createTypeOf(): TypeOf {
  const folders = new Map([["meta.k8s.io/v1", "meta/v1"]]);
  for (const info of knownResources) folders.set(groupVersion(info), info.type.slice(0, info.type.indexOf(".")));
  return (apiVersion, kind) => {
    // /api itself is of no version.
    const isMeta = metaKinds.has(kind) && (apiVersion === "v1" || apiVersion === "");
    const folder = isMeta ? "meta/v1" : folders.get(apiVersion);
    const type = folder === undefined ? "" : `${folder}.${kind}`;
    return hasProtobuf(type) ? type : "";
  };
}

export function createProtobufFormat(): ProtobufFormat {
  const typeOf = createTypeOf();
  return {
    has: (apiVersion, kind) => typeOf(apiVersion, kind) !== "",
    encode(object) {
      const type = typeOf(object.apiVersion ?? "", object.kind ?? "");
      return type === "" ? undefined : encodeProtobuf(object, type);
    },
    list(empty) {
      const type = typeOf(empty.apiVersion ?? "", empty.kind ?? "");
      return type === "" ? undefined : protobufList(empty, type);
    },
  };
}

export interface CborFormat {
  encode(object: UnknownObject): Uint8Array;
  /** An item of a watch's sequence. */
  watchEvent(type: string, object: Uint8Array): Uint8Array;
}

export function createCborFormat(): CborFormat {
  const typeOf = createTypeOf();
  const holdsBytes = new Map<string, boolean>();
  /** Whether fields of the type, or of what it is made of, are bytes: few are, and the others need no walk. */
  const hasBytes = (name: string): boolean => {
    const known = holdsBytes.get(name);
    if (known !== undefined) return known;
    // Types that hold themselves are asked about again before they are answered.
    holdsBytes.set(name, false);
    const fields = [...facts.message(name).members.values()];
    const found = fields.some((field) => field.type === "bytes" || (field.isMessage && hasBytes(field.type)));
    holdsBytes.set(name, found);
    return found;
  };
  const marked = (value: unknown, message: MessageFacts): unknown => {
    if (typeof value !== "object" || value === null || Array.isArray(value) || !hasBytes(message.name)) return value;
    const out: Record<string, unknown> = { ...value };
    for (const field of message.members.values()) {
      const member = Object.hasOwn(out, field.name) ? out[field.name] : undefined;
      if (member === undefined || member === null) continue;
      const each =
        field.type === "bytes"
          ? (text: unknown) => (typeof text === "string" ? Buffer.from(text, "base64") : text)
          : field.isMessage && hasBytes(field.type)
            ? (inner: unknown) => marked(inner, facts.message(field.type))
            : undefined;
      if (!each) continue;
      if (field.repeated) out[field.name] = Array.isArray(member) ? member.map(each) : member;
      else if (field.map) out[field.name] = Object.fromEntries(Object.entries(member).map(([k, v]) => [k, each(v)]));
      else out[field.name] = each(member);
    }
    return out;
  };
  return {
    encode(object) {
      const type = typeOf(object.apiVersion ?? "", object.kind ?? "");
      const message = type === "" ? undefined : facts.find(type);
      return encodeCbor(message ? marked(object, message) : object);
    },
    watchEvent: (type, object) =>
      encodeCborMap([
        ["type", encodeCborText(type)],
        ["object", object],
      ]),
  };
}
