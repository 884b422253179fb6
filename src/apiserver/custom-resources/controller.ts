// Follows the definitions in the datastore: keeps the table of what is served, accepts names, and empties what is being
// deleted. One pass at a time, so that no two definitions take the same name.
//
//   change of a definition ──► table (at once) ──► mark ──► status: names accepted, established
//   deletion ──► Terminating ──► delete every instance ──► none left ──► finalizer goes, and with it the definition
//
// Upstream counterpart: the naming, establishing, apiapproval and finalizing controllers of apiextensions.
import { type Clock, pause, rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { revision as asRevision, type Backend, prefixRange, type WatchEvent } from "#datastore/backend.ts";
import { type CustomResourceDefinition, cleanupFinalizer } from "#model/custom-resources.ts";
import type { UnknownObject } from "#model/object.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import { loopback } from "../authn/user.ts";
import { decodeStored } from "../registry/codec.ts";
import { resourcePrefix } from "../registry/keys.ts";
import type { Registry, Resource, WriteContext } from "../registry/registry.ts";
import { planStatus, withCondition } from "./conditions.ts";
import type { CustomResourceTable } from "./table.ts";

export interface DefinitionControllerDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly log: Logger;
  readonly registry: Registry;
  readonly table: CustomResourceTable;
  /** Of definitions themselves. */
  readonly definitions: Resource;
}

/** Before the datastore is asked again after a failure. */
const retryMs = 1000;
/** How long instances with finalizers may take before they are looked at again. */
const instancesMs = 1000;
/** Instances listed at a time. */
const slice = 200;

const write: WriteContext = { user: loopback, dryRun: false, warn() {} };

type Definition = CustomResourceDefinition;

export class DefinitionController implements Service {
  readonly name = "custom-resource-definitions";
  readonly #deps: DefinitionControllerDeps;
  readonly #marked = new Set<string>();
  readonly #timers = new Map<string, () => void>();
  #wake = () => {};
  #state: "idle" | "loading" | "loaded" = "idle";

  constructor(deps: DefinitionControllerDeps) {
    this.#deps = deps;
  }

  /** It runs, but does not know the definitions yet. */
  get isLoading(): boolean {
    return this.#state === "loading";
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    this.#state = "loading";
    const working = this.#work(signal);
    let isFirst = true;
    while (!signal.aborted) {
      try {
        const revision = await this.#load();
        this.#state = "loaded";
        if (isFirst) ready();
        isFirst = false;
        await this.#follow(revision, signal);
      } catch (error) {
        if (!signal.aborted) this.#deps.log.warn("definitions cannot be read", { error: messageOf(error) });
      }
      await pause(this.#deps.clock, retryMs, signal);
    }
    this.#wake();
    await working;
    for (const cancel of this.#timers.values()) cancel();
    this.#timers.clear();
    this.#deps.table.close();
    this.#state = "idle";
  }

  async #load(): Promise<number> {
    const { table, definitions } = this.#deps;
    const page = await definitions.storage.list("");
    const gone = new Set(table.definitions.keys());
    for (const item of page.items) {
      const definition = decodeStored(item) as unknown as Definition;
      gone.delete(definition.metadata.name ?? "");
      table.apply(definition);
      this.#mark(definition.metadata.name ?? "");
    }
    for (const name of gone) table.remove(name);
    return page.revision;
  }

  /** Until the watch ends. */
  #follow(revision: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const range = prefixRange(resourcePrefix(this.#deps.definitions.info));
      const finish = () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const watch = this.#deps.backend.watch(
        { ...range, startRevision: asRevision(revision + 1) },
        {
          onEvents: (events) => {
            for (const event of events) this.#see(event);
          },
          onEnd: finish,
        },
      );
      const onAbort = () => {
        watch.cancel();
        finish();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) onAbort();
    });
  }

  #see(event: WatchEvent): void {
    const { table, log } = this.#deps;
    const name = event.kv.key.slice(event.kv.key.lastIndexOf("/") + 1);
    if (event.type === "delete") {
      const group = table.definitions.get(name)?.spec.group;
      table.remove(name);
      // Its names are free now.
      for (const [other, { spec }] of table.definitions) if (spec.group === group) this.#mark(other);
      return;
    }
    try {
      table.apply(decodeStored(this.#deps.definitions.storage.reveal(event.kv)) as unknown as Definition);
      this.#mark(name);
    } catch (error) {
      log.warn("a custom resource definition cannot be read", { name, error: messageOf(error) });
    }
  }

  #mark(name: string): void {
    this.#marked.add(name);
    this.#wake();
  }

  async #work(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const [name] = this.#marked;
      if (name === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (this.#marked.size > 0 || signal.aborted) resolve();
        });
        continue;
      }
      this.#marked.delete(name);
      try {
        await this.#reconcile(name);
      } catch (error) {
        if (signal.aborted || isNotFound(error)) continue;
        if (!isConflict(error)) {
          this.#deps.log.warn("a definition cannot be brought forward", { name, error: messageOf(error) });
        }
        this.#later(name, retryMs);
      }
    }
  }

  #later(name: string, ms: number): void {
    this.#timers.get(name)?.();
    this.#timers.set(
      name,
      this.#deps.clock.after(ms, () => {
        this.#timers.delete(name);
        this.#mark(name);
      }),
    );
  }

  async #reconcile(name: string): Promise<void> {
    const { table, clock } = this.#deps;
    const definition = table.definitions.get(name);
    if (!definition) return;
    if (definition.metadata.deletionTimestamp !== undefined) {
      await this.#empty(name, definition);
      return;
    }
    const others = [...table.definitions]
      .filter(([other, { spec }]) => other !== name && spec.group === definition.spec.group)
      .flatMap(([, { status }]) => status?.acceptedNames ?? []);
    const status = planStatus(definition, others, rfc3339(clock.now()));
    if (!status) return;
    await this.#writeStatus(name, (current) => ({ ...current, status: { ...current.status, ...status } }));
    // The table hears of it by the watch; whoever comes next must not take the same names meanwhile.
    table.apply({ ...definition, status });
  }

  async #empty(name: string, definition: Definition): Promise<void> {
    const { table, clock } = this.#deps;
    if (!definition.metadata.finalizers?.includes(cleanupFinalizer)) return;
    const now = () => rfc3339(clock.now());
    const inProgress = {
      type: "Terminating",
      status: "True",
      reason: "InstanceDeletionInProgress",
      message: "CustomResource deletion is in progress",
    };
    if (definition.status?.conditions?.find(({ type }) => type === "Terminating")?.reason !== inProgress.reason) {
      await this.#writeStatus(name, (current) => ({
        ...current,
        status: withCondition(current.status, now(), inProgress),
      }));
    }
    const resource = table.stored(name);
    if (resource && !(await this.#deleteInstances(resource))) {
      this.#later(name, instancesMs);
      return;
    }
    await this.#writeStatus(name, (current) => ({
      ...current,
      metadata: {
        ...current.metadata,
        finalizers: (current.metadata.finalizers ?? []).filter((finalizer) => finalizer !== cleanupFinalizer),
      },
      status: withCondition(current.status, now(), {
        type: "Terminating",
        status: "False",
        reason: "InstanceDeletionCompleted",
        message: "removed all instances",
      }),
    }));
  }

  /** Whether none is left. */
  async #deleteInstances(resource: Resource): Promise<boolean> {
    const { registry } = this.#deps;
    let after: string | undefined;
    let left = 0;
    for (;;) {
      const page = await resource.storage.list("", { limit: slice, ...(after === undefined ? {} : { after }) });
      for (const item of page.items) {
        const { name = "", namespace = "" } = resource.storage.decode(item).metadata;
        try {
          const { removed } = await registry.delete(resource, namespace, name, {}, write);
          if (!removed) left++;
        } catch (error) {
          if (!isNotFound(error)) throw error;
        }
        after = item.key;
      }
      if (page.remaining <= 0 || page.items.length === 0) return left === 0;
    }
  }

  async #writeStatus(name: string, change: (current: Definition) => Definition): Promise<void> {
    const { registry, definitions } = this.#deps;
    await registry.update(
      definitions,
      "",
      name,
      {
        subresource: "status",
        retries: 5,
        change: (current) => change(structuredClone(current) as unknown as Definition) as unknown as UnknownObject,
      },
      write,
    );
  }
}
