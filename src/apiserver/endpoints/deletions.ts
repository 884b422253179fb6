// DELETE of one object and of a collection: options from body and query, and what is answered. Whether an object goes,
// waits or is only marked is decided in registry/deletion.ts.
// Upstream counterpart: endpoints/handlers/delete.go.

import type { UnknownObject } from "#model/object.ts";
import { ApiError, badRequest } from "#model/status.ts";
import type { Item } from "../registry/codec.ts";
import { type DeleteOptions, validateDeleteOptions } from "../registry/deletion.ts";
import type { Registry, Resource } from "../registry/registry.ts";
import type { Bodies } from "./bodies.ts";
import { checkListOptions } from "./list-options.ts";
import type { Lists } from "./lists.ts";
import { isTrue, type RequestInfo } from "./request-info.ts";
import type { HandlerRequest, Result, View } from "./result.ts";
import { parseSelection } from "./selection.ts";
import type { ServedResource } from "./served.ts";
import { writeContext } from "./write-context.ts";

export interface DeletionsDeps {
  readonly registry: Registry;
  readonly bodies: Bodies;
  readonly lists: Lists;
}

/** Objects a deletecollection deletes before it looks at the list again. */
const deleteSlice = 100;

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

export class Deletions {
  readonly #deps: DeletionsDeps;
  constructor(deps: DeletionsDeps) {
    this.#deps = deps;
  }

  async delete(served: ServedResource, view: View, info: RequestInfo, request: HandlerRequest): Promise<Result> {
    const { resource } = served;
    const options = await deleteOptions(this.#deps.bodies, request);
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

  async deleteCollection(
    served: ServedResource,
    view: View,
    info: RequestInfo,
    request: HandlerRequest,
  ): Promise<Result> {
    const { resource } = served;
    const options = await deleteOptions(this.#deps.bodies, request);
    checkListOptions(request.query, false);
    const selection = parseSelection(served, request.query);
    const write = writeContext(request, options);
    const deleted: Item[] = [];
    let token = "";
    let revision = 0;
    do {
      const page = await this.#deps.lists.page(
        served,
        info.namespace,
        selection,
        deleteSlice,
        token,
        new URLSearchParams(),
      );
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
}

async function deleteOptions(bodies: Bodies, request: HandlerRequest): Promise<DeleteOptions> {
  const { query } = request;
  let options = (await bodies.deleteOptions(request)) as DeleteOptions;
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
