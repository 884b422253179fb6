// Field ownership of writes through the endpoints: which schema, version and manager a request has, and which fields a
// target resets. Writes that parts of the server make on their own (binding, eviction) are not tracked, as upstream.
// Upstream counterpart: the FieldManager of each RequestScope and the GetResetFields of strategies.
import { type Clock, rfc3339 } from "#base/clock.ts";
import { facts } from "#model/facts.ts";
import type { ManagedFieldsEntry } from "#model/gen/meta-v1.ts";
import { emptySet, type FieldSet, setOfPaths } from "#model/managed-fields/field-set.ts";
import { schemaOfKind } from "#model/managed-fields/openapi-schema.ts";
import { parentEntries, scaleEntries } from "#model/managed-fields/scale.ts";
import { type BuiltInSchemas, createBuiltInSchemas, type MapSchema } from "#model/managed-fields/schema.ts";
import { type Target, trackApply, trackUpdate, type Write } from "#model/managed-fields/tracking.ts";
import type { UnknownObject } from "#model/object.ts";
import type { JsonObject } from "#model/patch/json-value.ts";
import { groupVersion, qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import { fieldForbidden, fieldInvalid, fieldRequired, fieldTooLong, invalid } from "#model/status.ts";
import { fromStorage, toStorage } from "../registry/convert.ts";
import { labelledByStatus } from "../registry/object-rules.ts";
import { isTrue } from "./request-info.ts";
import type { HandlerRequest } from "./result.ts";

export interface FieldTrackingDeps {
  readonly clock: Clock;
  /** Every version of every resource. */
  readonly infos: readonly ResourceInfo[];
  /** OpenAPI schema of a kind without facts; whoever changes one makes a new row for the kind. */
  readonly openapiOf?: (info: ResourceInfo) => unknown;
  /** Another served version of the kind of a custom resource. */
  readonly versionOf?: (info: ResourceInfo, apiVersion: string) => ResourceInfo | undefined;
  /** Of a custom resource whose versions differ in more than their name. */
  readonly converterOf?: (info: ResourceInfo) => ConvertVersion | undefined;
}

export type ConvertVersion = (object: UnknownObject, apiVersion: string) => Promise<UnknownObject>;

/** Tracking is one step; what it has to wait for stops it, and it is done again with the answer. */
class NeedsConversion extends Error {
  readonly object: UnknownObject;
  readonly apiVersion: string;
  readonly key: string;
  constructor(object: UnknownObject, apiVersion: string, key: string) {
    super(`a conversion to ${apiVersion} is needed`);
    this.object = object;
    this.apiVersion = apiVersion;
    this.key = key;
  }
}
/** Of one write: a few objects in each version that somebody owns fields in. */
const maxConversions = 50;

/** Which options a write is made with; messages name them. */
export type WriteOptionsKind = "CreateOptions" | "UpdateOptions" | "PatchOptions";

const maxManagerChars = 128;

/** Checks fieldManager and force, and says who writes: what is asked for, else the client's own name. */
export function managerOf(request: HandlerRequest, kind: WriteOptionsKind, isApply = false): string {
  const asked = request.query.get("fieldManager") ?? "";
  const errors = [];
  if (isApply && asked === "") errors.push(fieldRequired("fieldManager", "is required for apply patch"));
  if (!isApply && kind === "PatchOptions" && request.query.has("force")) {
    errors.push(fieldForbidden("force", "may not be specified for non-apply patch"));
  }
  if (asked.length > maxManagerChars) errors.push(fieldTooLong("fieldManager", maxManagerChars));
  if (!plainName.test(asked) && [...asked].some((letter) => !isPrintable(letter))) {
    errors.push(fieldInvalid("fieldManager", asked, "should only contain printable characters"));
  }
  if (errors.length > 0) throw invalid("meta.k8s.io", kind, "", errors);
  return asked === "" ? nameOfAgent(request.header("user-agent") ?? "") : asked;
}

/** `kubectl/v1.32.3 (linux/amd64) …` is kubectl. */
function nameOfAgent(agent: string): string {
  const slash = agent.indexOf("/");
  const whole = slash < 0 ? agent : agent.slice(0, slash);
  if (plainName.test(whole)) return whole;
  let name = "";
  for (const letter of whole) {
    if (!isPrintable(letter)) continue;
    if (Buffer.byteLength(name + letter) > maxManagerChars) break;
    name += letter;
  }
  return name;
}

const plainName = /^[\x20-\x7e]{0,128}$/;
const isPrintable = (letter: string): boolean => letter === " " || /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(letter);

const statusResets = setOfPaths([["f:status"]]);
const specResets = setOfPaths([["f:spec"], ["f:metadata", "f:deletionTimestamp"], ["f:metadata", "f:ownerReferences"]]);
const specAndLabelResets = setOfPaths([
  ["f:spec"],
  ["f:metadata", "f:deletionTimestamp"],
  ["f:metadata", "f:labels"],
  ["f:metadata", "f:ownerReferences"],
]);

function resetsOf(info: ResourceInfo, subresource: string): FieldSet {
  if (subresource === "") return info.subresources["status"] ? statusResets : emptySet;
  if (subresource === "status") return labelledByStatus.has(qualifiedResource(info)) ? specResets : specAndLabelResets;
  return emptySet;
}

export class FieldTracking {
  readonly #deps: FieldTrackingDeps;
  /** Of the work under way, which is one step. */
  #converted: ReadonlyMap<string, UnknownObject> | undefined;
  readonly #builtIn: BuiltInSchemas = createBuiltInSchemas(facts);
  /** By row and subresource; gone with the row. */
  readonly #targets = new WeakMap<ResourceInfo, Map<string, Target>>();
  constructor(deps: FieldTrackingDeps) {
    this.#deps = deps;
  }

  /** `next` with its managedFields; in the version of `info`, as `live` is. */
  update(
    info: ResourceInfo,
    subresource: string,
    live: UnknownObject | undefined,
    next: UnknownObject,
    manager: string,
  ): UnknownObject {
    return trackUpdate(this.#target(info, subresource), live, next, this.#write(manager));
  }

  apply(
    info: ResourceInfo,
    subresource: string,
    live: UnknownObject | undefined,
    config: JsonObject,
    options: { readonly manager: string; readonly force: boolean },
  ): UnknownObject {
    const write = { ...this.#write(options.manager), force: options.force };
    return trackApply(this.#target(info, subresource), live, config, write);
  }

  /** What `work` makes with this tracking, once every conversion that it needs has been asked for. */
  settled<T>(info: ResourceInfo, work: () => T): T | Promise<T> {
    const convert = info.type === "" ? this.#deps.converterOf?.(info) : undefined;
    return convert ? this.#withConversions(convert, work) : work();
  }

  async #withConversions<T>(convert: ConvertVersion, work: () => T): Promise<T> {
    const known = new Map<string, UnknownObject>();
    for (;;) {
      let needed: NeedsConversion;
      try {
        this.#converted = known;
        return work();
      } catch (error) {
        if (!(error instanceof NeedsConversion) || known.size >= maxConversions) throw error;
        needed = error;
      } finally {
        this.#converted = undefined;
      }
      known.set(needed.key, await convert(needed.object, needed.apiVersion));
    }
  }

  #inVersion(object: object, apiVersion: string): UnknownObject {
    const known = this.#converted;
    if (!known || Object.keys(object).length === 0) return { ...object, apiVersion } as UnknownObject;
    const key = `${apiVersion} ${JSON.stringify(object)}`;
    const found = known.get(key);
    if (!found) throw new NeedsConversion(object as UnknownObject, apiVersion, key);
    return found;
  }

  #write(manager: string): Write {
    return { manager, now: rfc3339(this.#deps.clock.now()) };
  }

  #target(info: ResourceInfo, subresource: string): Target {
    const ofRow = this.#targets.get(info) ?? new Map<string, Target>();
    this.#targets.set(info, ofRow);
    let target = ofRow.get(subresource);
    if (!target) {
      target = {
        apiVersion: groupVersion(info),
        kind: info.kind,
        schema: this.#schema(info),
        subresource,
        resets: resetsOf(info, subresource),
        other: (apiVersion) => {
          if (info.type === "") return this.#otherCustom(info, apiVersion);
          const other = this.#deps.infos.find(
            (row) =>
              groupVersion(row) === apiVersion && row.kind === info.kind && row.storageVersion === info.storageVersion,
          );
          if (!other) return undefined;
          return {
            schema: this.#schema(other),
            to: (object) => fromStorage(other, toStorage(info, object as UnknownObject)),
            from: (object) => fromStorage(info, toStorage(other, object as UnknownObject)),
          };
        },
      };
      ofRow.set(subresource, target);
    }
    return target;
  }

  #otherCustom(info: ResourceInfo, apiVersion: string) {
    const other = this.#deps.versionOf?.(info, apiVersion);
    if (!other) return undefined;
    return {
      schema: this.#schema(other),
      to: (object: object) => this.#inVersion(object, apiVersion),
      from: (object: object) => this.#inVersion(object, groupVersion(info)),
    };
  }

  #schema(info: ResourceInfo): MapSchema {
    if (info.type !== "") return this.#builtIn(info.type);
    return schemaOfKind(this.#deps.openapiOf?.(info), this.#builtIn("meta/v1.ObjectMeta"));
  }
}

/** What a Scale shows of who owns its parent's replicas. */
export function withScaleEntries(
  scale: UnknownObject,
  parent: UnknownObject,
  replicas: readonly string[] | undefined,
): UnknownObject {
  return withEntries(scale, scaleEntries(parent.metadata.managedFields, replicas));
}

/** The parent with the owners of replicas as the Scale has them now. */
export function withParentEntries(
  info: ResourceInfo,
  parent: UnknownObject,
  scale: UnknownObject,
  replicas: readonly string[] | undefined,
): UnknownObject {
  const { managedFields } = parent.metadata;
  return withEntries(parent, parentEntries(managedFields, scale.metadata.managedFields, groupVersion(info), replicas));
}

function withEntries(object: UnknownObject, managedFields: ManagedFieldsEntry[] | undefined): UnknownObject {
  const { managedFields: _managedFields, ...metadata } = object.metadata;
  return { ...object, metadata: managedFields ? { ...metadata, managedFields } : metadata };
}

export interface ApplyOptions {
  readonly manager: string;
  readonly force: boolean;
}
export const applyOptions = (request: HandlerRequest): ApplyOptions => ({
  manager: managerOf(request, "PatchOptions", true),
  force: isTrue(request.query.get("force")),
});
