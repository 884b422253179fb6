// What one kind adds to the generic registry: the seam between the machinery (endpoints/, registry/) and the kinds
// (registry/strategies/, one module per kind, collected in registry/strategies/index table). Upstream counterpart: the
// rest.RESTCreateStrategy / RESTUpdateStrategy families in pkg/registry. Everything is optional: a kind without a
// strategy gets metadata handling, defaults (model/defaults) and validation (model/validation) from the shared tables.
import type { Clock, Random } from "#base/clock.ts";
import type { ApiObject } from "#model/object.ts";
import type { FieldError } from "#model/status.ts";
import type { UserInfo } from "./authn/user.ts";
import type { Guard } from "./registry/guard.ts";

/** What a strategy may look at. Reads go to the same store the write will go to. */
export interface StrategyContext {
  readonly user: UserInfo;
  readonly clock: Clock;
  readonly random: Random;
  readonly dryRun: boolean;
  /** Reads another object (storage version, shared: do not change), or undefined. */
  get<T extends ApiObject>(resource: string, namespace: string, name: string): Promise<T | undefined>;
  list<T extends ApiObject>(resource: string, namespace?: string): Promise<readonly T[]>;
  /**
   * Writes `to` over `from` past admission, if that is still what is stored: for what the server keeps beside the object
   * at hand, as the usage of a quota. False where it changed meanwhile. Not to be called in a dry run.
   */
  replace<T extends ApiObject>(resource: string, from: T, to: T): Promise<boolean>;
  /**
   * Makes an object that the server keeps beside the one at hand; undefined where its name is taken. It is the server's own,
   * whoever asked for the write. Not to be called in a dry run.
   */
  create<T extends ApiObject>(resource: string, object: T): Promise<T | undefined>;
  /** Takes such an object away again, if it is still this one. Not to be called in a dry run. */
  remove<T extends ApiObject>(resource: string, object: T): Promise<void>;
  /** Warnings to send in the Warning header. */
  warn(message: string): void;
  /** Notes for the audit log; the first value of a key stays. Absent: nobody takes them. */
  annotate?(key: string, value: string): void;
}

/** What a subresource decides in place of the main resource's rules. */
export interface SubresourceRules<T extends ApiObject = ApiObject> {
  /** `object` is ours to change, `old` must not be changed. */
  prepareForUpdate?(object: T, old: T, context: StrategyContext): void | Promise<void>;
  /** Everything that is checked of it: the shared validation of updates is not asked. */
  validateUpdate?(object: T, old: T, context: StrategyContext): readonly FieldError[] | Promise<readonly FieldError[]>;
}

export interface Strategy<T extends ApiObject = ApiObject> {
  /** Drops what a client may not set (status, generation) and fills what the server decides. `object` is ours to change. */
  prepareForCreate?(object: T, context: StrategyContext): void | Promise<void>;
  /** The same on update through the main resource; `old` must not be changed. */
  prepareForUpdate?(object: T, old: T, context: StrategyContext): void | Promise<void>;
  /** Beyond model/validation: what needs context (admission-like checks, allocations that may be refused). */
  validate?(object: T, context: StrategyContext): readonly FieldError[] | Promise<readonly FieldError[]>;
  validateUpdate?(object: T, old: T, context: StrategyContext): readonly FieldError[] | Promise<readonly FieldError[]>;
  /** On update of the status alone. */
  validateStatusUpdate?(
    object: T,
    old: T,
    context: StrategyContext,
  ): readonly FieldError[] | Promise<readonly FieldError[]>;
  /** By name: those that change the object by rules of their own. */
  readonly subresources?: Readonly<Record<string, SubresourceRules<T>>>;
  /** The object with what must be there before it may go: finalizers of the server. `object` must not be changed. */
  prepareForDelete?(object: T, context: StrategyContext): T;
  /** Spec fields whose change does not raise metadata.generation; default: any change outside metadata and status does. */
  readonly hasGeneration?: boolean;
  /** The generation is that of the creation for ever. */
  readonly keepsGeneration?: boolean;
  /** PUT to a missing name creates it (leases, endpoints, config maps … as upstream's AllowCreateOnUpdate). */
  readonly allowCreateOnUpdate?: boolean;
  /** PUT without resourceVersion is refused (AllowUnconditionalUpdate false). */
  readonly requireResourceVersion?: boolean;
  /** Grace in seconds that a delete gets when the client names none; return 0 to delete at once. Pods use it. */
  gracePeriodSeconds?(object: T, asked: number | undefined): number;
  /** Runs after the write is durable (release or repair allocations); must tolerate being run twice. */
  afterDelete?(object: T, context: StrategyContext): void | Promise<void>;
  /** Runs after an update is durable: gives back what only `old` held. `object` and `old` must not be changed. */
  afterUpdate?(object: T, old: T, context: StrategyContext): void | Promise<void>;
  /** What must hold when `object`, which prepare has filled, is written: that what was taken for it is still its own. */
  guards?(object: T): readonly Guard[];
  /** Called when a write failed after prepare, or was a dry run: gives back what prepare allocated. Must not fail. */
  rollback?(object: T, context: StrategyContext): void | Promise<void>;
  /** Extra fields a fieldSelector may name, beside metadata.name and metadata.namespace. */
  selectableFields?(object: T): Readonly<Record<string, string>>;
}
