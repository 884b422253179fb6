// The verbs on resources: from a parsed request to an answer, through decoding, defaults, the registry and selections.
// Upstream counterpart: endpoints/handlers (create.go, get.go, update.go, patch.go, delete.go).
import type { Clock, Random } from "#base/clock.ts";
import type { Backend } from "#datastore/backend.ts";
import type { UnknownObject } from "#model/object.ts";
import { cloneJson, isObject, type JsonObject } from "#model/patch/json-value.ts";
import type { ResourceInfo, Verb } from "#model/resource-info.ts";
import {
  ApiError,
  badRequest,
  conflict,
  type FieldError,
  fieldForbidden,
  fieldNotSupported,
  invalid,
  methodNotAllowed,
  notFound,
} from "#model/status.ts";
import { nextTurn } from "#platform/turns.ts";
import { parseApplyConfig, parseCborApplyConfig } from "../patch/apply.ts";
import { applyPatch, decodePatched, parsePatch, patchKind } from "../patch/dispatch.ts";
import type { Item } from "../registry/codec.ts";
import { fromStorage, toStorage } from "../registry/convert.ts";
import { type DeleteOptions, validateDeleteOptions } from "../registry/deletion.ts";
import { tooLargeRevision } from "../registry/errors.ts";
import { collectionPrefix } from "../registry/keys.ts";
import { type Registry, type Resource, statusUpdate, type WriteContext } from "../registry/registry.ts";
import type { LiveResource } from "../watch/feed.ts";
import { type Bodies, fieldValidationOf } from "./bodies.ts";
import { decodeContinue, encodeContinue, expiredContinue } from "./continue-token.ts";
import { applyOptions, type FieldTracking, managerOf, withParentEntries, withScaleEntries } from "./field-tracking.ts";
import { acceptsGzip, type Formats, isPretty } from "./negotiation.ts";
import { isTrue, type RequestInfo } from "./request-info.ts";
import type { HandlerRequest, ListResult, MoreItems, Result, View } from "./result.ts";
import { parseSelection, type Selection } from "./selection.ts";
import { SharedLists } from "./shared-lists.ts";
import { type PlainSubresource, plainSubresources } from "./subresources.ts";

/** A resource in one version. */
export interface ServedResource {
  readonly info: ResourceInfo;
  readonly resource: Resource;
  /** Of custom resources. */
  readonly custom?: CustomParts;
}

/** What a definition makes differ from the built-in kinds. */
export interface CustomParts {
  /** Subresources that are not as those of all kinds: scale by paths. */
  readonly subresources: Readonly<Record<string, PlainSubresource>>;
  /** Fields that selectors may name. */
  readonly selectable: readonly string[];
  readonly live: LiveResource;
}

export interface ResourceEndpointDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly random: Random;
  readonly registry: Registry;
  readonly bodies: Bodies;
  readonly formats: Formats;
  readonly tracking: FieldTracking;
  /** Rejects with 403 where the user may not create what an update or apply of a missing name would create. */
  readonly authorizeCreate: (request: HandlerRequest, info: RequestInfo) => Promise<void>;
}

/** Upstream's --min-request-timeout: watches without timeoutSeconds end after one to two times this. */
const minWatchMs = 30 * 60_000;
/** Objects looked at in one go when a limited list has a selector. */
const selectorPage = 500;
/** Objects of a list without a limit that are read before anything is answered, and then at a time. */
const firstPage = 100;
const maxPage = 1000;
const pageBytes = 256 * 1024;
/** Objects a deletecollection deletes before it looks at the list again. */
const deleteSlice = 100;

export class ResourceEndpoints {
  readonly #deps: ResourceEndpointDeps;
  readonly #shared: SharedLists;
  constructor(deps: ResourceEndpointDeps) {
    this.#deps = deps;
    this.#shared = new SharedLists(deps);
  }

  async handle(served: ServedResource, info: RequestInfo, request: HandlerRequest): Promise<Result> {
    const { resource } = served;
    const view: View = { info: served.info, storage: resource.storage };
    if (info.subresource !== "") {
      const subresource = served.custom?.subresources[info.subresource] ?? plainSubresources[info.subresource];
      if (!subresource) throw methodNotAllowed(notAllowed);
      return this.#subresource(served, view, subresource, info, request);
    }
    if (!served.info.verbs.includes(info.verb as Verb)) throw methodNotAllowed(notAllowed);
    if (info.name === "" && ofOneObject.has(info.verb)) throw methodNotAllowed(notAllowed);
    switch (info.verb) {
      case "get":
        return { type: "item", status: 200, view, item: await this.#get(resource, info, request) };
      case "list":
        return this.#list(served, view, info, request);
      case "watch":
        return this.#watch(served, view, info, request);
      case "create":
        return this.#create(served, view, info, request);
      case "update":
        return this.#update(served, view, info, request);
      case "patch":
        return this.#patch(served, view, undefined, info, request);
      case "delete":
        return this.#delete(served, view, info, request);
      case "deletecollection":
        return this.#deleteCollection(served, view, info, request);
      default:
        throw methodNotAllowed(notAllowed);
    }
  }

  async #get(resource: Resource, info: RequestInfo, request: HandlerRequest): Promise<Item> {
    const asked = parseRevision(request.query.get("resourceVersion"));
    const current = this.#deps.backend.revision();
    if (asked > current) throw tooLargeRevision(asked, current);
    return this.#deps.registry.get(resource, info.namespace, info.name);
  }

  async #list(served: ServedResource, view: View, info: RequestInfo, request: HandlerRequest): Promise<Result> {
    const { query } = request;
    checkListOptions(query, false);
    const selection = parseSelection(served, query);
    const isSelecting = selection.matches !== undefined || selection.name !== undefined;
    const token = query.get("continue") ?? "";
    const isOfAnyState = query.get("resourceVersion") === "0" || token !== "";
    if (isSelecting || !isOfAnyState || !acceptsGzip(request.header("accept-encoding"))) {
      return this.#readList(served, view, info, query, selection);
    }
    const what = `${view.info.group}/${view.info.version}/${view.info.plural} ${info.namespace}?${query}`;
    const pretty = isPretty(query, request.header("user-agent"));
    const key = `${what} ${pretty} ${request.header("accept") ?? ""}`;
    return this.#shared.get(key, token !== "", () => this.#readList(served, view, info, query, selection));
  }

  async #readList(
    served: ServedResource,
    view: View,
    info: RequestInfo,
    query: URLSearchParams,
    selection: Selection,
  ): Promise<ListResult> {
    const limit = parseLimit(query.get("limit"));
    const token = query.get("continue") ?? "";
    const page = await this.#page(served, info.namespace, selection, limit, token, query);
    return {
      type: "list",
      view,
      items: page.items,
      more: page.more,
      metadata: {
        resourceVersion: String(page.revision),
        ...(page.next === undefined ? {} : { continue: page.next }),
        ...(page.next === undefined || selection.matches || selection.name !== undefined
          ? {}
          : { remainingItemCount: page.remaining }),
      },
    };
  }

  async #page(
    served: ServedResource,
    namespace: string,
    selection: Selection,
    limit: number,
    token: string,
    query: URLSearchParams,
  ): Promise<ListPage> {
    const { storage } = served.resource;
    const { backend } = this.#deps;
    let revision = 0;
    let after: string | undefined;
    const prefix = collectionPrefix(storage.info, namespace);
    const asked = parseRevision(query.get("resourceVersion"));
    if (token !== "") {
      if (asked > 0) throw badRequest("specifying resource version is not allowed when using continue");
      const decoded = decodeContinue(token);
      revision = decoded.revision;
      after = prefix + decoded.after;
    } else {
      const match = query.get("resourceVersionMatch") ?? "";
      const current = backend.revision();
      if (asked > current) throw tooLargeRevision(asked, current);
      if (asked > 0 && (match === "Exact" || (match === "" && limit > 0))) revision = asked;
    }
    // One object by name needs no scan.
    if (
      selection.name !== undefined &&
      (namespace !== "" || !storage.info.namespaced) &&
      revision === 0 &&
      after === undefined
    ) {
      const item = await storage.get(namespace, selection.name);
      const items = item && (!selection.matches || selection.matches(storage.decode(item))) ? [item] : [];
      return { items, revision: backend.revision(), next: undefined, remaining: 0 };
    }
    const isNamed = (item: Item) => selection.name === undefined || item.key.endsWith(`/${selection.name}`);
    const isSelecting = selection.matches !== undefined || selection.name !== undefined;
    const mayFollow = limit === 0 && token === "" && !isSelecting && storage.isPlain;
    const size = isSelecting ? Math.max(limit, selectorPage) : limit === 0 && mayFollow ? firstPage : limit;
    const items: Item[] = [];
    for (;;) {
      let page: Awaited<ReturnType<typeof storage.list>>;
      try {
        page = await storage.list(namespace, { limit: size, revision, ...(after === undefined ? {} : { after }) });
      } catch (error) {
        throw token === "" ? error : expiredContinue(error, after!.slice(prefix.length));
      }
      revision = page.revision;
      if (mayFollow && page.remaining > 0) {
        const pages = () => pagesBehind(storage, namespace, page.items, revision);
        return { items: page.items, revision, next: undefined, remaining: 0, more: { count: page.remaining, pages } };
      }
      for (let i = 0; i < page.items.length; i++) {
        const item = page.items[i]!;
        after = item.key;
        if (isNamed(item) && (!selection.matches || selection.matches(storage.decode(item)))) items.push(item);
        if (limit > 0 && items.length === limit) {
          const remaining = page.items.length - i - 1 + page.remaining;
          const next = remaining > 0 ? encodeContinue({ revision, after: after.slice(prefix.length) }) : undefined;
          return { items, revision, next, remaining };
        }
      }
      if (page.remaining <= 0 || page.items.length === 0) return { items, revision, next: undefined, remaining: 0 };
      await nextTurn();
    }
  }

  #watch(served: ServedResource, view: View, info: RequestInfo, request: HandlerRequest): Result {
    const { query } = request;
    checkListOptions(query, true);
    const selection = parseSelection(served, query);
    const asked = query.get("resourceVersion") ?? "";
    const after = parseRevision(asked);
    const sendInitial = query.get("sendInitialEvents");
    // Without sendInitialEvents: no revision means "begin with what there is".
    const initial = sendInitial === null ? after === 0 : isTrue(sendInitial);
    const seconds = Number(query.get("timeoutSeconds") ?? "0");
    const timeoutMs = seconds > 0 ? seconds * 1000 : minWatchMs * (1 + this.#deps.random.float());
    return {
      type: "watch",
      view,
      plan: {
        storage: served.resource.storage,
        namespace: info.namespace,
        // The old form /watch/…/NAME has the name in the path.
        name: selection.name ?? (info.name === "" ? undefined : info.name),
        matches: selection.matches,
        after: initial ? undefined : after === 0 ? this.#deps.backend.revision() : after,
        markInitialEnd: sendInitial !== null && isTrue(sendInitial) && isTrue(query.get("allowWatchBookmarks")),
        bookmarks: isTrue(query.get("allowWatchBookmarks")),
        timeoutMs,
        live: served.custom?.live,
      },
    };
  }

  async #create(served: ServedResource, view: View, info: RequestInfo, request: HandlerRequest): Promise<Result> {
    const { resource } = served;
    if (info.name !== "") throw methodNotAllowed(notAllowed);
    const manager = managerOf(request, "CreateOptions");
    const object = await this.#deps.bodies.read(request, served.info);
    const stored = toStorage(served.info, this.#deps.tracking.update(served.info, "", undefined, object, manager));
    const item = await this.#deps.registry.create(resource, info.namespace, stored, writeTo(served, request));
    return { type: "item", status: 201, view, item };
  }

  async #update(served: ServedResource, view: View, info: RequestInfo, request: HandlerRequest): Promise<Result> {
    const { resource } = served;
    const manager = managerOf(request, "UpdateOptions");
    const object = await this.#deps.bodies.read(request, served.info);
    matchName(object, info.name);
    const { item, created } = await this.#deps.registry.update(
      resource,
      info.namespace,
      info.name,
      {
        subresource: "",
        mayCreate: true,
        change: async (current) => {
          if (!current) await this.#deps.authorizeCreate(request, info);
          const live = current && fromStorage(served.info, current);
          const { tracking } = this.#deps;
          return tracking.settled(served.info, () =>
            toStorage(served.info, tracking.update(served.info, "", live, cloneForWrite(object), manager)),
          );
        },
      },
      writeTo(served, request),
    );
    return { type: "item", status: created ? 201 : 200, view, item };
  }

  async #patch(
    served: ServedResource,
    view: View,
    subresource: PlainSubresource | undefined,
    info: RequestInfo,
    request: HandlerRequest,
  ): Promise<Result> {
    const { resource } = served;
    const bodyInfo = subresource?.shape ?? served.info;
    const kind = patchKind(request.header("content-type"), bodyInfo, this.#deps.formats.cbor);
    if (kind === "apply" || kind === "apply-cbor") {
      return this.#apply(served, view, subresource, info, request, kind === "apply-cbor");
    }
    const manager = managerOf(request, "PatchOptions");
    const patch = parsePatch(kind, await request.body());
    const { item } = await this.#deps.registry.update(
      resource,
      info.namespace,
      info.name,
      {
        subresource: info.subresource,
        retries: 5,
        change: (current) => {
          if (!current) throw notFound(resource.about, info.name);
          const versioned = fromStorage(served.info, current);
          const shown = subresource ? subresource.show(versioned) : versioned;
          const patched = applyPatch(kind, bodyInfo, shown, patch);
          const object = decodePatched(kind, patch, patched, (made) =>
            this.#redecode(request, bodyInfo, made, shown.metadata.managedFields),
          );
          matchName(object, info.name);
          return this.#deps.tracking.settled(served.info, () =>
            this.#changed(served, subresource, info, versioned, object, manager),
          );
        },
      },
      writeTo(served, request),
    );
    return this.#shown(view, subresource, item);
  }

  /** What a patch or apply made, through the gate of bodies; `known` managedFields, often half of it, need not pass. */
  #redecode(
    request: HandlerRequest,
    info: ResourceInfo,
    made: UnknownObject,
    known: UnknownObject["metadata"]["managedFields"],
  ): UnknownObject {
    const { bodies } = this.#deps;
    // A patch may have made anything of metadata.
    if (known === undefined || !isObject(made.metadata) || made.metadata["managedFields"] !== known) {
      return bodies.redecode(request, info, made);
    }
    const { managedFields: _known, ...metadata } = made.metadata;
    const object = bodies.redecode(request, info, { ...made, metadata });
    object.metadata.managedFields = known;
    return object;
  }

  /** What an update through the main resource or a subresource makes of `live`, owned; of the storage version. */
  #changed(
    served: ServedResource,
    subresource: PlainSubresource | undefined,
    info: RequestInfo,
    live: UnknownObject,
    incoming: UnknownObject,
    manager: string,
  ): UnknownObject {
    const { tracking } = this.#deps;
    if (!subresource) return toStorage(served.info, tracking.update(served.info, "", live, incoming, manager));
    let next = subresource.merge(live, incoming);
    if (subresource.shape) {
      const scale = withScaleEntries(subresource.show(live), live, subresource.replicas);
      const owned = tracking.update(subresource.shape, info.subresource, scale, incoming, manager);
      next = withParentEntries(served.info, next, owned, subresource.replicas);
    } else {
      const isStatus = info.subresource === "status";
      if (isStatus) next = statusUpdateOf(served.info, live, next);
      next = tracking.update(served.info, info.subresource, live, next, manager);
      if (isStatus) return toStorage(served.info, cloneStatus(next));
    }
    return toStorage(served.info, cloneForWrite(next));
  }

  /** Server-side apply: makes the object where there is none. */
  async #apply(
    served: ServedResource,
    view: View,
    subresource: PlainSubresource | undefined,
    info: RequestInfo,
    request: HandlerRequest,
    isCbor: boolean,
  ): Promise<Result> {
    const { resource } = served;
    const options = applyOptions(request);
    const fieldValidation = fieldValidationOf(request);
    const body = await request.body();
    const config = isCbor
      ? parseCborApplyConfig(body)
      : parseApplyConfig(body, { fieldValidation, warn: (text) => request.warn(text) });
    const { item, created } = await this.#deps.registry.update(
      resource,
      info.namespace,
      info.name,
      {
        subresource: info.subresource,
        mayCreate: subresource ? false : "always",
        retries: 5,
        change: async (current) => {
          if (!current) await this.#deps.authorizeCreate(request, info);
          const live = current && fromStorage(served.info, current);
          const applied = await this.#deps.tracking.settled(served.info, () =>
            this.#applied(served, subresource, info, request, live, config, options),
          );
          if (current) return applied;
          if ((applied.metadata.uid ?? "") === "") return applied;
          throw conflict(
            resource.about,
            info.name,
            `uid mismatch: the provided object specified uid ${applied.metadata.uid}, and no existing object was found`,
          );
        },
      },
      writeTo(served, request),
    );
    const shown = this.#shown(view, subresource, item);
    return created ? { type: "item", status: 201, view, item } : shown;
  }

  #applied(
    served: ServedResource,
    subresource: PlainSubresource | undefined,
    info: RequestInfo,
    request: HandlerRequest,
    live: UnknownObject | undefined,
    config: JsonObject,
    options: { readonly manager: string; readonly force: boolean },
  ): UnknownObject {
    const bodyInfo = subresource?.shape ?? served.info;
    const shown =
      live && subresource?.shape ? withScaleEntries(subresource.show(live), live, subresource.replicas) : live;
    const merged = this.#deps.tracking.apply(bodyInfo, info.subresource, shown, config, options);
    const object = this.#redecode(request, bodyInfo, merged, merged.metadata.managedFields);
    matchName(object, info.name);
    if (!subresource || !live) return toStorage(served.info, object);
    let next = subresource.merge(live, object);
    if (subresource.shape) next = withParentEntries(served.info, next, object, subresource.replicas);
    else next = { ...next, metadata: withManagersOf(next.metadata, object.metadata) };
    return toStorage(served.info, cloneForWrite(next));
  }

  async #delete(served: ServedResource, view: View, info: RequestInfo, request: HandlerRequest): Promise<Result> {
    const { resource } = served;
    const options = await this.#deleteOptions(request);
    const write = writeContext(request, options);
    const { removed, item } = await this.#deps.registry.delete(resource, info.namespace, info.name, options, write);
    if (
      removed &&
      !returnsDeleted.has(
        resource.about.group === "" ? resource.about.resource : `${resource.about.resource}.${resource.about.group}`,
      )
    ) {
      return { type: "object", status: 200, object: successStatus(resource, item) };
    }
    const waits = !removed && options.orphanDependents === false;
    return { type: "item", status: waits ? 202 : 200, view, item };
  }

  async #deleteCollection(
    served: ServedResource,
    view: View,
    info: RequestInfo,
    request: HandlerRequest,
  ): Promise<Result> {
    const { resource } = served;
    const options = await this.#deleteOptions(request);
    checkListOptions(request.query, false);
    const selection = parseSelection(served, request.query);
    const write = writeContext(request, options);
    const deleted: Item[] = [];
    let token = "";
    let revision = 0;
    do {
      const page = await this.#page(served, info.namespace, selection, deleteSlice, token, new URLSearchParams());
      revision = page.revision;
      for (const item of page.items) {
        const name = item.key.slice(item.key.lastIndexOf("/") + 1);
        const namespace = resource.storage.decode(item).metadata.namespace ?? "";
        try {
          deleted.push((await this.#deps.registry.delete(resource, namespace, name, options, write)).item);
        } catch (error) {
          // Somebody else deleted it: that is what was asked for.
          if (!(error instanceof ApiError) || error.code !== 404) throw error;
        }
      }
      token = page.next ?? "";
    } while (token !== "");
    return { type: "list", view, items: deleted, metadata: { resourceVersion: String(revision) } };
  }

  async #subresource(
    served: ServedResource,
    view: View,
    subresource: PlainSubresource,
    info: RequestInfo,
    request: HandlerRequest,
  ): Promise<Result> {
    const { resource } = served;
    const declared = served.info.subresources[info.subresource];
    if (!declared?.verbs.includes(info.verb as Verb)) throw methodNotAllowed(notAllowed);
    switch (info.verb) {
      case "get":
        return this.#shown(view, subresource, await this.#get(resource, info, request));
      case "patch":
        return this.#patch(served, view, subresource, info, request);
      case "update": {
        const manager = managerOf(request, "UpdateOptions");
        const object = await this.#deps.bodies.read(request, subresource.shape ?? served.info);
        matchName(object, info.name);
        const { item } = await this.#deps.registry.update(
          resource,
          info.namespace,
          info.name,
          {
            subresource: info.subresource,
            change: (current) => {
              if (!current) throw notFound(resource.about, info.name);
              const live = fromStorage(served.info, current);
              return this.#deps.tracking.settled(served.info, () =>
                this.#changed(served, subresource, info, live, object, manager),
              );
            },
          },
          writeTo(served, request),
        );
        return this.#shown(view, subresource, item);
      }
      default:
        throw methodNotAllowed(notAllowed);
    }
  }

  #shown(view: View, subresource: PlainSubresource | undefined, item: Item): Result {
    if (!subresource?.shape) return { type: "item", status: 200, view, item };
    const object = subresource.show(fromStorage(view.info, view.storage.decode(item)));
    return { type: "object", status: 200, object };
  }

  async #deleteOptions(request: HandlerRequest): Promise<DeleteOptions> {
    const { query } = request;
    let options = (await this.#deps.bodies.deleteOptions(request)) as DeleteOptions;
    if (Object.keys(options).length === 0) {
      const grace = query.get("gracePeriodSeconds");
      if (grace !== null && !/^-?\d+$/.test(grace))
        throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(grace)}: invalid syntax`);
      const policy = query.get("propagationPolicy");
      const orphan = query.get("orphanDependents");
      options = {
        ...(grace === null ? {} : { gracePeriodSeconds: Number(grace) }),
        ...(policy === null ? {} : { propagationPolicy: policy }),
        ...(orphan === null ? {} : { orphanDependents: isTrue(orphan) }),
      };
    }
    const dryRun = query.getAll("dryRun");
    if (dryRun.length > 0 && options.dryRun === undefined) options = { ...options, dryRun };
    validateDeleteOptions(options);
    return options;
  }
}

interface ListPage {
  readonly items: readonly Item[];
  readonly revision: number;
  readonly next: string | undefined;
  readonly remaining: number;
  readonly more?: MoreItems;
}

/**
 * A list that nobody limited, page by page: history is kept for minutes, so its revision stays while it is sent. Pages are
 * of some bytes, going by the one before.
 */
async function* pagesBehind(
  storage: Resource["storage"],
  namespace: string,
  first: readonly Item[],
  revision: number,
): AsyncGenerator<readonly Item[]> {
  let last = first;
  for (let remaining = 1; remaining > 0 && last.length > 0; ) {
    await nextTurn();
    const bytes = last.reduce((sum, { value }) => sum + value.length, 0);
    const limit = Math.max(1, Math.min(maxPage, Math.floor((pageBytes * last.length) / Math.max(1, bytes))));
    const page = await storage.list(namespace, { limit, revision, after: last.at(-1)!.key });
    yield page.items;
    last = page.items;
    remaining = page.remaining;
  }
}

/** As the registry will: what a status write leaves alone is compared by reference then. */
function statusUpdateOf(info: ResourceInfo, live: UnknownObject, next: UnknownObject): UnknownObject {
  const { uid, resourceVersion, name, namespace } = next.metadata;
  const updated = statusUpdate(info, live, next);
  const asked: Record<string, unknown> = { name, namespace, uid, resourceVersion };
  const metadata: Record<string, unknown> = { ...updated.metadata };
  for (const [field, value] of Object.entries(asked)) {
    if (value === undefined) delete metadata[field];
    else metadata[field] = value;
  }
  return { ...updated, metadata: metadata as UnknownObject["metadata"] };
}

function withManagersOf(
  metadata: UnknownObject["metadata"],
  from: UnknownObject["metadata"],
): UnknownObject["metadata"] {
  const { managedFields: _managedFields, ...rest } = metadata;
  return from.managedFields ? { ...rest, managedFields: from.managedFields } : rest;
}

const ofOneObject = new Set(["get", "update", "patch", "delete"]);
const notAllowed = "the server does not allow this method on the requested resource";

/** Kinds whose DELETE answers with the object instead of a Status. */
const returnsDeleted = new Set([
  "pods",
  "services",
  "serviceaccounts",
  "persistentvolumes",
  "persistentvolumeclaims",
  "podtemplates",
  "resourcequotas",
  "storageclasses.storage.k8s.io",
  "volumeattachments.storage.k8s.io",
  "csinodes.storage.k8s.io",
  "csidrivers.storage.k8s.io",
  "csistoragecapacities.storage.k8s.io",
]);

function successStatus(resource: Resource, item: Item): UnknownObject {
  const { metadata } = resource.storage.decode(item);
  const { group, resource: plural } = resource.about;
  return {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Success",
    details: { name: metadata.name, ...(group === "" ? {} : { group }), kind: plural, uid: metadata.uid },
  };
}

const writeTo = (served: ServedResource, request: HandlerRequest): WriteContext => ({
  ...writeContext(request),
  served: served.info,
});

export function writeContext(request: HandlerRequest, options?: DeleteOptions): WriteContext {
  const dryRun = options?.dryRun ?? request.query.getAll("dryRun").filter((value) => value !== "");
  for (const value of dryRun) {
    if (value !== "All") {
      throw invalid("meta.k8s.io", "CreateOptions", "", [fieldNotSupported("dryRun", dryRun, ["All"])]);
    }
  }
  const { audit } = request;
  return {
    user: request.user,
    dryRun: dryRun.length > 0,
    warn: (message) => request.warn(message),
    ...(audit ? { annotate: (key: string, value: string) => audit.annotate(key, value) } : {}),
  };
}

function matchName(object: UnknownObject, name: string): void {
  const given = object.metadata.name ?? "";
  if (given === "") {
    throw badRequest(
      `the name of the object ( based on URL) was undeterminable: name must be provided`.replace("(", `(${name}`),
    );
  }
  if (given !== name)
    throw badRequest(`the name of the object (${given}) does not match the name on the URL (${name})`);
}

/** A body may be used again after a conflict; the registry changes what it is given, but never who owns what. */
function cloneForWrite(object: UnknownObject): UnknownObject {
  const { managedFields, ...metadata } = object.metadata ?? {};
  const clone = cloneJson({ ...object, metadata }) as UnknownObject;
  if (managedFields) clone.metadata.managedFields = managedFields;
  return clone;
}

/** For writes of status, which are most of all writes: nothing behind changes what is not theirs to change. */
function cloneStatus(object: UnknownObject): UnknownObject {
  const { metadata, status } = object;
  return { ...object, ...cloneForWrite({ metadata, ...(status === undefined ? {} : { status }) }) };
}

export function parseRevision(value: string | null): number {
  if (value === null || value === "") return 0;
  const number = Number(value);
  if (!/^\d{1,19}$/.test(value))
    throw badRequest(`invalid resource version: strconv.ParseUint: parsing ${JSON.stringify(value)}: invalid syntax`);
  return number;
}

function parseLimit(value: string | null): number {
  if (value === null || value === "") return 0;
  if (!/^-?\d{1,18}$/.test(value))
    throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`);
  return Math.max(0, Number(value));
}

function checkListOptions(query: URLSearchParams, watch: boolean): void {
  const errors: FieldError[] = [];
  const match = query.get("resourceVersionMatch") ?? "";
  const version = query.get("resourceVersion") ?? "";
  const sendInitial = query.get("sendInitialEvents");
  const forbiddenMatch = (why: string) => errors.push(fieldForbidden("resourceVersionMatch", why));
  if (watch) {
    if (sendInitial !== null && match === "")
      forbiddenMatch("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    else if (match !== "" && match !== "NotOlderThan") {
      forbiddenMatch("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if (sendInitial === null && match !== "")
      forbiddenMatch("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    if ((query.get("continue") ?? "") !== "" && sendInitial !== null) {
      errors.push(
        fieldForbidden("sendInitialEvents", "sendInitialEvents is forbidden for watch when continue is provided"),
      );
    }
  } else {
    if (sendInitial !== null)
      errors.push(fieldForbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    if (match !== "") {
      if (version === "") forbiddenMatch("resourceVersionMatch is forbidden unless resourceVersion is provided");
      if ((query.get("continue") ?? "") !== "")
        forbiddenMatch("resourceVersionMatch is forbidden when continue is provided");
      if (match !== "Exact" && match !== "NotOlderThan") {
        errors.push(fieldNotSupported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]));
      }
      if (match === "Exact" && version === "0") {
        forbiddenMatch('resourceVersionMatch "exact" is forbidden for resourceVersion "0"');
      }
    }
  }
  if (errors.length > 0) throw invalid("meta.k8s.io", "ListOptions", "", errors);
}
