// The verbs on resources: from a parsed request to an answer. Which verb goes where, and the order of what each asks:
// bodies, the object that is there, what comes of both (incoming.ts), the registry. Lists and deletions have files of their own.
// Upstream counterpart: endpoints/handlers (create.go, get.go, update.go, patch.go).
import type { Clock, Random } from "#base/clock.ts";
import type { Backend } from "#datastore/backend.ts";
import type { Verb } from "#model/resource-info.ts";
import { conflict, methodNotAllowed, notFound } from "#model/status.ts";
import { parseApplyConfig, parseCborApplyConfig } from "../patch/apply.ts";
import { applyPatch, decodePatched, parsePatch, patchKind } from "../patch/dispatch.ts";
import type { Item } from "../registry/codec.ts";
import { fromStorage, toStorage } from "../registry/convert.ts";
import { tooLargeRevision } from "../registry/errors.ts";
import type { Registry, Resource } from "../registry/registry.ts";
import { type Bodies, fieldValidationOf } from "./bodies.ts";
import { Deletions } from "./deletions.ts";
import { applyOptions, type FieldTracking, managerOf } from "./field-tracking.ts";
import { cloneForWrite, Incoming, matchName } from "./incoming.ts";
import { checkListOptions, parseRevision } from "./list-options.ts";
import { Lists } from "./lists.ts";
import type { Formats } from "./negotiation.ts";
import { isTrue, type RequestInfo } from "./request-info.ts";
import type { HandlerRequest, Result, View } from "./result.ts";
import { parseSelection } from "./selection.ts";
import type { ServedResource } from "./served.ts";
import { type PlainSubresource, plainSubresources } from "./subresources.ts";
import { writeTo } from "./write-context.ts";

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

export class ResourceEndpoints {
  readonly #deps: ResourceEndpointDeps;
  readonly #lists: Lists;
  readonly #incoming: Incoming;
  readonly #deletions: Deletions;
  constructor(deps: ResourceEndpointDeps) {
    this.#deps = deps;
    this.#lists = new Lists(deps);
    this.#incoming = new Incoming(deps);
    this.#deletions = new Deletions({ registry: deps.registry, bodies: deps.bodies, lists: this.#lists });
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
        return this.#lists.list(served, view, info, request);
      case "watch":
        return this.#watch(served, view, info, request);
      case "create":
        return this.#create(served, view, info, request);
      case "update":
        return this.#update(served, view, info, request);
      case "patch":
        return this.#patch(served, view, undefined, info, request);
      case "delete":
        return this.#deletions.delete(served, view, info, request);
      case "deletecollection":
        return this.#deletions.deleteCollection(served, view, info, request);
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
            this.#incoming.redecode(request, bodyInfo, made, shown.metadata.managedFields),
          );
          matchName(object, info.name);
          return this.#deps.tracking.settled(served.info, () =>
            this.#incoming.changed(served, subresource, info, versioned, object, manager),
          );
        },
      },
      writeTo(served, request),
    );
    return this.#shown(view, subresource, item);
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
            this.#incoming.applied(served, subresource, info, request, live, config, options),
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
                this.#incoming.changed(served, subresource, info, live, object, manager),
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
}

const ofOneObject = new Set(["get", "update", "patch", "delete"]);
const notAllowed = "the server does not allow this method on the requested resource";
