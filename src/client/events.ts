// Events: what components tell people about objects. `record` never waits and never fails the caller: it puts the event
// in a bounded queue from which `run` writes core/v1 Events. Repeats of one event become a count on the first; more than
// ten alike but for their message within ten minutes become one "(combined from similar events)"; each source may say 25
// things at once about one object and one more every five minutes. A write that fails is dropped and logged at debug,
// since an event is a courtesy and the state it speaks of stands in the object.
// Upstream counterpart: client-go tools/record (EventCorrelator).
import { type Clock, type Random, rfc3339 } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import type { Event, ObjectReference } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { events } from "#model/resources.ts";
import { isAlreadyExists, isNotFound } from "#model/status.ts";
import type { Client } from "./client.ts";

export interface EventInput {
  /** What kind of thing `object` is: objects out of lists do not say. */
  readonly resource: ResourceInfo<never> | ResourceInfo;
  readonly object: ApiObject;
  readonly type: "Normal" | "Warning";
  /** Upper camel case. */
  readonly reason: string;
  readonly message: string;
  /** As in spec.containers{name}. */
  readonly fieldPath?: string;
}

/** The part that components need; `EventRecorder` is one. */
export interface EventSink {
  record(event: EventInput): void;
}

export interface EventRecorderOptions {
  /** source.component, e.g. deployment-controller. */
  readonly component: string;
  /** source.host, for what runs on a node. */
  readonly host?: string;
}

export interface EventRecorderDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Upstream's broadcaster holds 1000 as well; beyond it events are lost rather than memory. */
const maxQueued = 1000;
/** Kinds of event remembered for counting; upstream 4096, a device has fewer objects. */
const maxRemembered = 1024;
const similarLimit = 10;
const similarWindowMs = 600_000;
const burst = 25;
const refillMs = 300_000;
/** Of the API: messages are cut to 1 KiB by upstream's recorder. */
const maxMessageLength = 1024;

interface Pending extends EventInput {
  readonly component: string;
  readonly host: string;
  readonly atMs: number;
}
interface Known {
  readonly name: string;
  count: number;
}

export class EventRecorder implements Service, EventSink {
  readonly name = "events";
  readonly #options: EventRecorderOptions;
  readonly #deps: EventRecorderDeps;
  readonly #queue: Pending[] = [];
  /** Written events by everything that makes them equal. */
  readonly #known = new Recent<Known>(maxRemembered);
  /** Distinct messages per group of similar events, and when the group began. */
  readonly #similar = new Recent<{ readonly sinceMs: number; readonly messages: Set<string> }>(maxRemembered);
  readonly #budgets = new Recent<{ tokens: number; atMs: number }>(maxRemembered);
  #wake: () => void = () => {};
  #sequence = 0;

  constructor(options: EventRecorderOptions, deps: EventRecorderDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  record(event: EventInput): void {
    this.#push(event, this.#options.component);
  }

  /** The same queue and limits under another component's name. */
  as(component: string): EventSink {
    return { record: (event) => this.#push(event, component) };
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort, { once: true });
    ready();
    try {
      while (!signal.aborted) {
        const next = this.#queue.shift();
        if (next) {
          await this.#write(next, signal);
          continue;
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (signal.aborted) resolve();
        });
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#wake = () => {};
    }
  }

  #push(event: EventInput, component: string): void {
    if (this.#queue.length >= maxQueued) {
      this.#deps.log.debug("event dropped", { reason: event.reason, why: "queue full" });
      return;
    }
    this.#queue.push({ ...event, component, host: this.#options.host ?? "", atMs: this.#deps.clock.now() });
    this.#wake();
  }

  async #write(event: Pending, signal: AbortSignal): Promise<void> {
    const { client, log } = this.#deps;
    const involvedObject = referenceTo(event);
    const { resourceVersion: _, ...about } = involvedObject;
    const source = [event.component, event.host, ...Object.values(about)].join("\n");
    if (!this.#spend(source)) {
      log.debug("event dropped", { reason: event.reason, why: "too many about one object" });
      return;
    }
    const group = [source, event.type, event.reason].join("\n");
    const isSimilar = this.#isOneOfMany(group, event.message);
    const text = isSimilar ? `(combined from similar events): ${event.message}` : event.message;
    const message = text.slice(0, maxMessageLength);
    const key = isSimilar ? group : `${group}\n${message}`;
    const nowText = rfc3339(event.atMs);
    const namespace = involvedObject.namespace || "default";
    try {
      const known = this.#known.get(key);
      if (known) {
        known.count++;
        const patch = { count: known.count, lastTimestamp: nowText, message };
        try {
          await client.patch(events, { name: known.name, namespace }, patch);
          return;
        } catch (error) {
          // Events expire; the next one starts a new count.
          if (!isNotFound(error)) throw error;
        }
      }
      const name = this.#nameFor(involvedObject.name ?? "", event.atMs);
      await client.create(events, {
        metadata: { name, namespace },
        involvedObject,
        reason: event.reason,
        message,
        source: { component: event.component, ...(event.host ? { host: event.host } : {}) },
        firstTimestamp: nowText,
        lastTimestamp: nowText,
        count: 1,
        type: event.type,
        reportingComponent: event.component,
        reportingInstance: event.host,
      } as Event);
      this.#known.set(key, { name, count: 1 });
    } catch (error) {
      if (isAbort(error, signal) || isAlreadyExists(error)) return;
      log.debug("event dropped", { reason: event.reason, why: messageOf(error) });
    }
  }

  /** `<object>.<nanoseconds in hex>`, as upstream; the clock's digits below the microsecond are a running number. */
  #nameFor(objectName: string, atMs: number): string {
    this.#sequence = (this.#sequence + 1) % 1000;
    const micros = Math.floor(this.#deps.random.float() * 1000);
    const nanos = BigInt(Math.floor(atMs)) * 1_000_000n + BigInt(micros * 1000 + this.#sequence);
    return `${objectName}.${nanos.toString(16)}`;
  }

  #spend(source: string): boolean {
    const nowMs = this.#deps.clock.monotonicMs();
    const budget = this.#budgets.get(source) ?? { tokens: burst, atMs: nowMs };
    budget.tokens = Math.min(burst, budget.tokens + (nowMs - budget.atMs) / refillMs);
    budget.atMs = nowMs;
    this.#budgets.set(source, budget);
    if (budget.tokens < 1) return false;
    budget.tokens--;
    return true;
  }

  #isOneOfMany(group: string, message: string): boolean {
    const nowMs = this.#deps.clock.monotonicMs();
    let similar = this.#similar.get(group);
    if (!similar || nowMs - similar.sinceMs > similarWindowMs) similar = { sinceMs: nowMs, messages: new Set() };
    this.#similar.set(group, similar);
    if (similar.messages.size < similarLimit) similar.messages.add(message);
    return similar.messages.size >= similarLimit && !similar.messages.has(message);
  }
}

function referenceTo(event: EventInput): ObjectReference {
  const { metadata } = event.object;
  return {
    kind: event.resource.kind,
    ...(metadata.namespace ? { namespace: metadata.namespace } : {}),
    name: metadata.name ?? "",
    uid: metadata.uid ?? "",
    apiVersion: groupVersion(event.resource),
    ...(metadata.resourceVersion ? { resourceVersion: metadata.resourceVersion } : {}),
    ...(event.fieldPath ? { fieldPath: event.fieldPath } : {}),
  };
}

/** A map that forgets what was used longest ago. */
class Recent<V> {
  readonly #max: number;
  readonly #values = new Map<string, V>();
  constructor(max: number) {
    this.#max = max;
  }
  get(key: string): V | undefined {
    const value = this.#values.get(key);
    if (value !== undefined) {
      this.#values.delete(key);
      this.#values.set(key, value);
    }
    return value;
  }
  set(key: string, value: V): void {
    this.#values.delete(key);
    this.#values.set(key, value);
    if (this.#values.size > this.#max) this.#values.delete(this.#values.keys().next().value!);
  }
}
