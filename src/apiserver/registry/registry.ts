// The generic registry: create, update, patch-shaped update and delete of any kind, around the strategy of the kind,
// admission and validation. Objects are of the storage version here; endpoints convert. Everything that is decided
// about an object is decided on one revision of it and written only if it is still that one. What holds for metadata of
// every kind stands in object-rules.ts, what strategies may do beside in strategy-context.ts.
// Upstream counterpart: registry.Store with rest.BeforeCreate / BeforeUpdate.
import { type Clock, type Random, randomSuffix, rfc3339 } from "#base/clock.ts";
import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import {
  type About,
  ApiError,
  alreadyExists,
  conflict,
  type FieldError,
  fieldInvalid,
  fieldRequired,
  invalid,
  notFound,
  serviceUnavailable,
  staleUpdate,
} from "#model/status.ts";
import type { AdmissionPlugin, AdmissionRequest } from "../admission/plugin.ts";
import type { UserInfo } from "../authn/user.ts";
import type { Strategy, StrategyContext } from "../strategy.ts";
import { encodeStored, type Item } from "./codec.ts";
import { type DeleteOptions, deletionIsDue, planDeletion } from "./deletion.ts";
import { type Guard, guardsOf } from "./guard.ts";
import { objectKey } from "./keys.ts";
import {
  checkFinalizers,
  cloneTop,
  isSameButTimes,
  keepServerFields,
  matchNamespace,
  serverFields,
  specChanged,
  statusUpdate,
} from "./object-rules.ts";
import type { ResourceStorage } from "./storage.ts";
import { strategyContext } from "./strategy-context.ts";

/** A resource as this server has it. */
export interface Resource {
  /** As stored. */
  readonly info: ResourceInfo;
  readonly about: About;
  readonly storage: ResourceStorage;
  readonly strategy: Strategy;
}

export interface RegistryDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly admission: readonly AdmissionPlugin[];
  /** By qualified resource, e.g. deployments.apps. */
  readonly resources: ReadonlyMap<string, Resource>;
  readonly validateObject: (
    info: ResourceInfo,
    object: UnknownObject,
    served: ResourceInfo | undefined,
  ) => readonly FieldError[];
  readonly validateObjectUpdate: (
    info: ResourceInfo,
    object: UnknownObject,
    old: UnknownObject,
    served: ResourceInfo | undefined,
  ) => readonly FieldError[];
}

export interface WriteContext {
  readonly user: UserInfo;
  readonly dryRun: boolean;
  /** What the client writes to, which may ask more than the resource as it is stored. */
  readonly served?: ResourceInfo;
  warn(message: string): void;
  /** Notes for the audit log. */
  annotate?(key: string, value: string): void;
}

/** What a subresource may change. `merge` makes the new object out of the old one and what came in; both shared. */
export interface UpdateOptions {
  readonly subresource: string;
  /** The new object, made from the current one (undefined: there is none). Ours to change. Called again after a conflict. */
  readonly change: (current: UnknownObject | undefined) => Promise<UnknownObject> | UnknownObject;
  /** A name that does not exist may be created: by a PUT where the kind allows that, by an apply always. */
  readonly mayCreate?: boolean | "always";
  /** Conflicts are retried where the client named no resourceVersion. */
  readonly retries?: number;
}

export interface Written {
  readonly item: Item;
  readonly created: boolean;
}

export interface Deleted {
  /** False: only marked, or nothing to do. */
  readonly removed: boolean;
  readonly item: Item;
}

/** generateName collisions in a row before the client hears of them (upstream: 8). */
const generateNameAttempts = 8;
/** The longest base that leaves room for the suffix. */
const maxGeneratedBase = 58;
const conflictRetries = 5;

export class Registry {
  readonly #deps: RegistryDeps;
  constructor(deps: RegistryDeps) {
    this.#deps = deps;
  }

  async get(resource: Resource, namespace: string, name: string): Promise<Item> {
    const item = await resource.storage.get(namespace, name);
    if (!item) throw notFound(resource.about, name);
    return item;
  }

  /** `object` is ours to change. `namespace` is that of the request. */
  async create(resource: Resource, namespace: string, object: UnknownObject, write: WriteContext): Promise<Item> {
    const { about, strategy, info } = resource;
    const meta = object.metadata;
    matchNamespace(resource.info, meta, namespace);
    if (meta.resourceVersion !== undefined && meta.resourceVersion !== "") {
      throw new ApiError(500, "", "resourceVersion should not be set on objects to be created");
    }
    for (const field of serverFields) delete meta[field];
    meta.uid = this.#deps.random.uuid();
    meta.creationTimestamp = rfc3339(this.#deps.clock.now());
    const generate = (meta.name ?? "") === "" && (meta.generateName ?? "") !== "";
    if (!generate && (meta.name ?? "") === "") {
      throw invalid(info.group, info.kind, "", [fieldRequired("metadata.name", "name or generateName is required")]);
    }
    if (strategy.hasGeneration) meta.generation = 1;

    const context = strategyContext(this.#deps, this, write);
    if (generate) meta.name = this.#generateName(meta.generateName!);
    const request: AdmissionRequest = {
      operation: "CREATE",
      resource: info,
      subresource: "",
      namespace,
      name: meta.name!,
      object,
      oldObject: undefined,
    };
    await this.#mutate(request, context);
    let written: Item | undefined;
    try {
      await strategy.prepareForCreate?.(object, context);
      const errors = [
        ...this.#deps.validateObject(info, object, write.served),
        ...((await strategy.validate?.(object, context)) ?? []),
      ];
      if (errors.length > 0) throw invalid(info.group, info.kind, generate ? "" : meta.name!, errors);
      await this.#admit(request, context);
      for (let attempt = 1; ; attempt++) {
        const name = object.metadata.name!;
        if (write.dryRun) {
          if (await resource.storage.get(namespace, name)) throw alreadyExists(about, name);
          return { key: objectKey(info, namespace, name), value: encodeStored(info, object), modRevision: 0 };
        }
        written = await resource.storage.create(namespace, name, object, guardsFor(strategy, object, write));
        if (written) return written;
        if (!generate || attempt >= generateNameAttempts) throw await this.#taken(resource, namespace, name);
        object.metadata.name = this.#generateName(meta.generateName!);
      }
    } finally {
      // Also after a dry run: what was allocated for it goes back.
      if (!written) await strategy.rollback?.(object, context);
    }
  }

  async update(
    resource: Resource,
    namespace: string,
    name: string,
    options: UpdateOptions,
    write: WriteContext,
  ): Promise<Written> {
    const { about, info } = resource;
    for (let attempt = 0; ; attempt++) {
      const old = await resource.storage.get(namespace, name);
      if (!old) {
        const mayCreate =
          options.mayCreate === "always" || (options.mayCreate && resource.strategy.allowCreateOnUpdate);
        if (!mayCreate || options.subresource !== "") throw notFound(about, name);
        const object = await options.change(undefined);
        if (object.metadata.resourceVersion && object.metadata.resourceVersion !== "0") throw notFound(about, name);
        delete object.metadata.resourceVersion;
        if ((object.metadata.uid ?? "") !== "") {
          throw conflict(
            about,
            name,
            `Precondition failed: UID in precondition: ${object.metadata.uid}, UID in object meta: `,
          );
        }
        return { item: await this.create(resource, namespace, object, write), created: true };
      }
      const current = resource.storage.decode(old);
      const next = await options.change(current);
      const asked = next.metadata.resourceVersion ?? "";
      const unconditional = asked === "" || asked === "0";
      if (unconditional && resource.strategy.requireResourceVersion && options.retries === undefined) {
        throw invalid(info.group, info.kind, name, [
          {
            ...fieldInvalid("metadata.resourceVersion", 0, "must be specified for an update"),
            message: "Invalid value: 0x0: must be specified for an update",
          },
        ]);
      }
      if (!unconditional && asked !== current.metadata.resourceVersion) throw conflict(about, name, staleUpdate);
      const item = await this.#writeUpdate(resource, old, current, next, options.subresource, write);
      if (item) return { item, created: false };
      const retries = options.retries ?? (unconditional ? conflictRetries : 0);
      if (attempt >= retries) throw conflict(about, name, staleUpdate);
    }
  }

  async delete(
    resource: Resource,
    namespace: string,
    name: string,
    options: DeleteOptions,
    write: WriteContext,
  ): Promise<Deleted> {
    const { about, storage, strategy, info } = resource;
    const context = strategyContext(this.#deps, this, write);
    for (let attempt = 0; attempt <= conflictRetries; attempt++) {
      const old = await this.get(resource, namespace, name);
      const current = storage.decode(old);
      const request: AdmissionRequest = {
        operation: "DELETE",
        resource: info,
        subresource: "",
        namespace,
        name,
        object: undefined,
        oldObject: current,
      };
      await this.#mutate(request, context);
      await this.#admit(request, context);
      const doomed = (strategy.prepareForDelete?.(current, context) ?? current) as UnknownObject;
      const plan = planDeletion(doomed, options, {
        about,
        graceSeconds: strategy.gracePeriodSeconds?.bind(strategy),
        nowMs: this.#deps.clock.now(),
      });
      if (plan.action === "none") return { removed: false, item: old };
      if (write.dryRun) {
        if (plan.action === "remove") return { removed: true, item: old };
        return { removed: false, item: { ...old, value: encodeStored(info, plan.object) } };
      }
      if (plan.action === "remove") {
        if (await storage.remove(old, guardsOf(write.user))) {
          await strategy.afterDelete?.(current, context);
          return { removed: true, item: old };
        }
      } else {
        const item = await storage.update(old, cloneTop(plan.object), guardsOf(write.user));
        if (item) return { removed: false, item };
      }
    }
    throw conflict(about, name, staleUpdate);
  }

  /** Asks the plugins about what writes no object of its own: a token, an eviction. */
  async admit(request: AdmissionRequest, write: WriteContext): Promise<void> {
    const context = strategyContext(this.#deps, this, write);
    await this.#mutate(request, context);
    await this.#admit(request, context);
  }

  /** Undefined when the object changed meanwhile. */
  async #writeUpdate(
    resource: Resource,
    old: Item,
    current: UnknownObject,
    next: UnknownObject,
    subresource: string,
    write: WriteContext,
  ): Promise<Item | undefined> {
    const { about, info, storage, strategy } = resource;
    const name = current.metadata.name ?? "";
    const namespace = current.metadata.namespace ?? "";
    const context = strategyContext(this.#deps, this, write);
    matchNamespace(resource.info, next.metadata, namespace);
    const uid = next.metadata.uid ?? "";
    if (uid !== "" && uid !== current.metadata.uid) {
      throw conflict(
        about,
        name,
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${current.metadata.uid ?? ""}`,
      );
    }
    const object = subresource === "status" ? statusUpdate(info, current, next) : next;
    keepServerFields(object, current);
    const request: AdmissionRequest = {
      operation: "UPDATE",
      resource: info,
      subresource,
      namespace,
      name,
      object,
      oldObject: current,
    };
    await this.#mutate(request, context);
    let written = false;
    try {
      if (subresource === "") await strategy.prepareForUpdate?.(object, current, context);
      const own = strategy.subresources?.[subresource];
      await own?.prepareForUpdate?.(object, current, context);
      const mayRise = strategy.hasGeneration && !strategy.keepsGeneration;
      if (subresource !== "status" && mayRise && specChanged(object, current)) {
        object.metadata.generation = (current.metadata.generation ?? 0) + 1;
      }
      const errors: FieldError[] = [...checkFinalizers(object, current)];
      if (subresource === "" || subresource === "scale") {
        errors.push(...this.#deps.validateObjectUpdate(info, object, current, write.served));
        errors.push(...((await strategy.validateUpdate?.(object, current, context)) ?? []));
      } else if (subresource === "status") {
        errors.push(...((await strategy.validateStatusUpdate?.(object, current, context)) ?? []));
      } else {
        errors.push(...((await own?.validateUpdate?.(object, current, context)) ?? []));
      }
      if (errors.length > 0) throw invalid(info.group, info.kind, name, errors);
      await this.#admit(request, context);
      if (deletionIsDue(about, object)) {
        // Whoever took the last finalizer away is shown the object without it.
        const last = { ...old, value: encodeStored(info, object) };
        if (write.dryRun) return last;
        if (!(await storage.remove(old, guardsOf(write.user)))) return undefined;
        written = true;
        await strategy.afterDelete?.(current, context);
        return last;
      }
      object.metadata.resourceVersion = current.metadata.resourceVersion!;
      // Nothing changed: no write, no event, no revision.
      if (isSameButTimes(object, current) && storage.isCurrent(old)) return old;
      if (write.dryRun) return { ...old, value: encodeStored(info, object) };
      const item = await storage.update(old, cloneTop(object), guardsFor(strategy, object, write));
      written = item !== undefined;
      if (written) await strategy.afterUpdate?.(object, current, context);
      return item;
    } finally {
      if (!written) await strategy.rollback?.(object, context);
    }
  }

  async #mutate(request: AdmissionRequest, context: StrategyContext): Promise<void> {
    for (const plugin of this.#deps.admission) {
      if (plugin.mutate && plugin.handles(request)) await plugin.mutate(request, context);
    }
  }

  async #admit(request: AdmissionRequest, context: StrategyContext): Promise<void> {
    for (const plugin of this.#deps.admission) {
      if (plugin.validate && plugin.handles(request)) await plugin.validate(request, context);
    }
  }

  #generateName(base: string): string {
    return base.slice(0, maxGeneratedBase) + randomSuffix(this.#deps.random);
  }

  async #taken(resource: Resource, namespace: string, name: string): Promise<ApiError> {
    const item = await resource.storage.get(namespace, name);
    // Gone again between the two: the client may simply try again.
    if (!item) return serviceUnavailable(`${resource.about.resource} "${name}" is being replaced, try again`);
    const error = alreadyExists(resource.about, name);
    if (resource.storage.decode(item).metadata.deletionTimestamp === undefined) return error;
    return new ApiError(409, "AlreadyExists", `object is being deleted: ${error.message}`, error.status.details);
  }
}

/** Of the writer, and of what was allocated for the object. */
const guardsFor = (strategy: Strategy, object: UnknownObject, { user }: WriteContext): readonly Guard[] => [
  ...guardsOf(user),
  ...(strategy.guards?.(object) ?? []),
];
