// Answers as bytes: stored objects spliced where the client wants the stored version in JSON, decoded and rendered
// otherwise; tables, metadata-only objects, YAML, protobuf, CBOR; and watch events, each encoded once per representation and
// shared by all watchers of a change. Upstream counterpart: endpoints/handlers/response.go and the codecs.
import type { Clock } from "#base/clock.ts";
import type { UnknownObject } from "#model/object.ts";
import { encodeProtobufWatchEvent, type ProtobufList } from "#model/protobuf.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { notAcceptable, type Status } from "#model/status.ts";
import { nextTurn } from "#platform/turns.ts";
import { stringifyYaml } from "#wire/yaml.ts";
import type { Column } from "../printers/columns.ts";
import { type Item, listHead, spliceItems, spliceList, spliceObject } from "../registry/codec.ts";
import { fromStorage, isStorageVersion } from "../registry/convert.ts";
import type { FeedEvent } from "../watch/feed.ts";
import type { CborFormat, ProtobufFormat } from "./formats.ts";
import type { Representation } from "./negotiation.ts";
import { allItems, type IncludeObject, type ListMetadata, type ListResult, type View } from "./result.ts";

export interface EncodeDeps {
  readonly clock: Clock;
  readonly columnsFor: (info: ResourceInfo) => readonly Column[];
  readonly protobuf: ProtobufFormat;
  readonly cbor: CborFormat;
}

const utf8 = new TextEncoder();
/** Objects decoded before others have their turn: a few milliseconds. */
const decodeSlice = 200;

/** How one watch wants its events; watches of the same keys share encodings. */
export interface WatchForm {
  readonly view: View;
  readonly as: Representation;
  readonly include: IncludeObject;
  readonly keys: Readonly<Record<FeedEvent["type"], string>>;
}

export function watchForm(view: View, as: Representation, include: IncludeObject): WatchForm {
  const form = `${groupVersion(view.info)} ${as.format} ${as.shape} ${as.metaVersion} ${as.shape === "table" ? include : ""}`;
  const keys = { ADDED: `ADDED ${form}`, MODIFIED: `MODIFIED ${form}`, DELETED: `DELETED ${form}` };
  return { view, as, include, keys };
}

export class Encoder {
  readonly #deps: EncodeDeps;
  constructor(deps: EncodeDeps) {
    this.#deps = deps;
  }

  /** The object in the asked version; shared. */
  decoded(view: View, item: Item): UnknownObject {
    return fromStorage(view.info, view.storage.decode(item));
  }

  item(view: View, item: Item, as: Representation, include: IncludeObject): Uint8Array {
    if (isSpliced(view, as)) return spliceObject(item, view.storage.layout);
    const object = this.decoded(view, item);
    if (as.shape === "object") return this.object(object, as);
    if (as.shape === "metadata") return this.object(metadataOnly(object, as), as);
    const revision = object.metadata.resourceVersion ?? "";
    return this.object(this.#table(view.info, [object], as, include, { resourceVersion: revision }, true), as);
  }

  async list(list: ListResult, as: Representation, include: IncludeObject): Promise<Uint8Array> {
    const { view, metadata } = list;
    const items = await allItems(list);
    if (isSpliced(view, as)) return spliceList(listHead(view.info, metadata), items, view.storage.layout);
    const objects: UnknownObject[] = [];
    for (const item of items) {
      if (objects.length % decodeSlice === decodeSlice - 1) await nextTurn();
      objects.push(this.decoded(view, item));
    }
    return this.object(this.#list(view.info, objects, metadata, as, include), as);
  }

  /** The bytes of `list` in parts of some `partBytes`; undefined: it has to be made as a whole. */
  listParts(
    list: ListResult,
    as: Representation,
    include: IncludeObject,
    partBytes: number,
  ): AsyncIterable<Uint8Array> | undefined {
    if (as.format === "json" && !as.pretty) return this.#listParts(list, as, include, partBytes);
    if (as.format !== "protobuf") return undefined;
    const empty = this.#list(list.view.info, [], list.metadata, as, include);
    const encoding = this.#deps.protobuf.list(empty);
    return encoding && this.#protobufParts(list, as, include, encoding, partBytes);
  }

  /** All is encoded before anything is sent, with turns in between: the envelope says how long it is. */
  async *#protobufParts(
    list: ListResult,
    as: Representation,
    include: IncludeObject,
    encoding: ProtobufList,
    partBytes: number,
  ): AsyncGenerator<Uint8Array> {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for await (const items of slicesOf(list, partBytes)) {
      const objects = items.map((item) => this.decoded(list.view, item));
      const { items: shown } = this.#list(list.view.info, objects, list.metadata, as, include);
      const part = encoding.items(shown as readonly UnknownObject[]);
      parts.push(part);
      bytes += part.length;
    }
    const [before, after] = encoding.around(bytes);
    yield before;
    yield* parts;
    yield after;
  }

  async *#listParts(
    list: ListResult,
    as: Representation,
    include: IncludeObject,
    partBytes: number,
  ): AsyncGenerator<Uint8Array> {
    const { view, metadata } = list;
    const spliced = isSpliced(view, as);
    const empty = this.#list(view.info, [], metadata, as, include);
    // Its elements come last: `[]}`.
    let before = spliced ? `${listHead(view.info, metadata)}[` : JSON.stringify(empty).slice(0, -2);
    for await (const items of slicesOf(list, partBytes)) {
      if (spliced) yield spliceItems(before, items, view.storage.layout);
      else {
        const objects = items.map((item) => this.decoded(view, item));
        const { rows, items: shown } = this.#list(view.info, objects, metadata, as, include);
        yield utf8.encode(before + JSON.stringify(rows ?? shown).slice(1, -1));
      }
      before = ",";
    }
    yield utf8.encode(before === "," ? "]}" : `${before}]}`);
  }

  /** What no store has; unless it is a list, exactly one. */
  objects(
    info: ResourceInfo,
    objects: readonly UnknownObject[],
    isList: boolean,
    as: Representation,
    include: IncludeObject,
  ): Uint8Array {
    if (isList || as.shape === "table") return this.object(this.#list(info, objects, {}, as, include), as);
    const [object] = objects as readonly [UnknownObject];
    return this.object(as.shape === "metadata" ? metadataOnly(object, as) : object, as);
  }

  #list(
    info: ResourceInfo,
    objects: readonly UnknownObject[],
    metadata: Partial<ListMetadata>,
    as: Representation,
    include: IncludeObject,
  ): UnknownObject {
    if (as.shape === "table") return this.#table(info, objects, as, include, metadata, true);
    if (as.shape === "metadata") {
      return {
        kind: "PartialObjectMetadataList",
        apiVersion: `meta.k8s.io/${as.metaVersion}`,
        metadata: metadata as UnknownObject["metadata"],
        items: objects.map((object) => metadataOnly(object, as)),
      };
    }
    return {
      kind: `${info.kind}List`,
      apiVersion: groupVersion(info),
      metadata: metadata as UnknownObject["metadata"],
      items: objects.map(({ apiVersion: _apiVersion, kind: _kind, ...rest }) => rest),
    };
  }

  /** Any object that is not stored. */
  object(object: UnknownObject, as: Representation): Uint8Array {
    switch (as.format) {
      case "json":
        return utf8.encode(as.pretty ? `${JSON.stringify(object, undefined, 2)}\n` : JSON.stringify(object));
      case "yaml":
        return utf8.encode(stringifyYaml(object));
      case "cbor":
        return this.#deps.cbor.encode(object);
      case "protobuf": {
        const bytes = this.#deps.protobuf.encode(object);
        if (!bytes)
          throw notAcceptable("only the following media types are accepted: application/json, application/yaml");
        return bytes;
      }
    }
  }

  /** A line of a watch stream, or a length-delimited frame. `columns`: a table's first event says what they are. */
  event({ view, as, include, keys }: WatchForm, event: FeedEvent, columns: boolean): Uint8Array {
    const { change } = event;
    if (!change || (as.shape === "table" && columns))
      return this.#frame(event.type, this.#eventObject(view, event.item, as, include, columns), as);
    const key = keys[event.type];
    let bytes = change.encodings.get(key);
    if (!bytes) {
      bytes = this.#frame(event.type, this.#eventObject(view, event.item, as, include, false), as);
      change.encodings.set(key, bytes);
    }
    return bytes;
  }

  bookmark(view: View, revision: number, initialEnd: boolean, as: Representation): Uint8Array {
    const metadata = {
      resourceVersion: String(revision),
      ...(initialEnd ? { annotations: { "k8s.io/initial-events-end": "true" } } : {}),
    };
    const plain: UnknownObject = { kind: view.info.kind, apiVersion: groupVersion(view.info), metadata };
    const object =
      as.shape === "metadata"
        ? metadataOnly(plain, as)
        : as.shape === "table"
          ? { kind: "Table", apiVersion: `meta.k8s.io/${as.metaVersion}`, metadata, rows: [] }
          : plain;
    return this.#frame("BOOKMARK", this.object(object as UnknownObject, { ...as, pretty: false }), as);
  }

  error(status: Status, as: Representation): Uint8Array {
    return this.#frame("ERROR", this.object(status as unknown as UnknownObject, { ...as, pretty: false }), as);
  }

  #eventObject(view: View, item: Item, as: Representation, include: IncludeObject, columns: boolean): Uint8Array {
    const compact = { ...as, pretty: false };
    if (as.shape !== "table") return this.item(view, item, compact, include);
    const object = this.decoded(view, item);
    const metadata = { resourceVersion: object.metadata.resourceVersion ?? "" };
    return this.object(this.#table(view.info, [object], as, include, metadata, columns), compact);
  }

  #frame(type: string, object: Uint8Array, as: Representation): Uint8Array {
    if (as.format === "protobuf") return encodeProtobufWatchEvent(type, object);
    return as.format === "cbor" ? this.#deps.cbor.watchEvent(type, object) : jsonLine(type, object);
  }

  #table(
    info: ResourceInfo,
    objects: readonly UnknownObject[],
    as: Representation,
    include: IncludeObject,
    metadata: Partial<ListMetadata>,
    withColumns: boolean,
  ): UnknownObject {
    const columns = this.#deps.columnsFor(info);
    const nowMs = this.#deps.clock.now();
    return {
      kind: "Table",
      apiVersion: `meta.k8s.io/${as.metaVersion}`,
      metadata: metadata as UnknownObject["metadata"],
      columnDefinitions: withColumns
        ? columns.map(({ name, type, format, description, priority }) => ({
            name,
            type,
            format: format ?? "",
            description,
            priority,
          }))
        : [],
      rows: objects.map((object) => ({
        cells: columns.map((column) => column.value(object, nowMs)),
        ...(include === "None"
          ? { object: null }
          : { object: include === "Object" ? object : metadataOnly(object, as) }),
      })),
    };
  }
}

const isSpliced = (view: View, as: Representation): boolean =>
  as.format === "json" && as.shape === "object" && !as.pretty && isStorageVersion(view.info);

/** All items, some `bytes` of them at a time, with turns in between. */
async function* slicesOf({ items, more }: ListResult, bytes: number): AsyncGenerator<readonly Item[]> {
  for (let from = 0; from < items.length; ) {
    let to = from;
    for (let size = 0; to < items.length && size < bytes; to++) size += items[to]!.value.length;
    if (from > 0) await nextTurn();
    yield items.slice(from, to);
    from = to;
  }
  if (more) yield* more.pages();
}

const metadataOnly = (object: UnknownObject, as: Representation): UnknownObject => ({
  kind: "PartialObjectMetadata",
  apiVersion: `meta.k8s.io/${as.metaVersion}`,
  metadata: object.metadata,
});

function jsonLine(type: string, object: Uint8Array): Uint8Array {
  const head = `{"type":"${type}","object":`;
  const out = Buffer.allocUnsafe(head.length + object.length + 2);
  out.write(head, 0, "latin1");
  out.set(object, head.length);
  out.write("}\n", head.length + object.length, "latin1");
  return out;
}
