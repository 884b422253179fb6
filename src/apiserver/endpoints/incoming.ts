// What comes in, merged with the object that is there: the next object of an update, patch or apply through the main
// resource or a subresource, with its owners. Called again after a conflict, so nothing here keeps state or writes.
// Upstream counterpart: the update functions of endpoints/handlers/{update,patch}.go.
import type { UnknownObject } from "#model/object.ts";
import { cloneJson, isObject, type JsonObject } from "#model/patch/json-value.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { badRequest } from "#model/status.ts";
import { toStorage } from "../registry/convert.ts";
import { statusUpdate } from "../registry/object-rules.ts";
import type { Bodies } from "./bodies.ts";
import { type FieldTracking, withParentEntries, withScaleEntries } from "./field-tracking.ts";
import type { RequestInfo } from "./request-info.ts";
import type { HandlerRequest } from "./result.ts";
import type { ServedResource } from "./served.ts";
import type { PlainSubresource } from "./subresources.ts";

export class Incoming {
  readonly #deps: { readonly bodies: Bodies; readonly tracking: FieldTracking };
  constructor(deps: { readonly bodies: Bodies; readonly tracking: FieldTracking }) {
    this.#deps = deps;
  }

  /** What a patch or apply made, through the gate of bodies; `known` managedFields, often half of it, need not pass. */
  redecode(
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
  changed(
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

  /** What an apply makes of `live`, or out of nothing; of the storage version. */
  applied(
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
    const object = this.redecode(request, bodyInfo, merged, merged.metadata.managedFields);
    matchName(object, info.name);
    if (!subresource || !live) return toStorage(served.info, object);
    let next = subresource.merge(live, object);
    if (subresource.shape) next = withParentEntries(served.info, next, object, subresource.replicas);
    else next = { ...next, metadata: withManagersOf(next.metadata, object.metadata) };
    return toStorage(served.info, cloneForWrite(next));
  }
}

export function matchName(object: UnknownObject, name: string): void {
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
export function cloneForWrite(object: UnknownObject): UnknownObject {
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
