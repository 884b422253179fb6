// What a controller has written and its store does not show yet. A store lags behind writes; a controller that counts
// objects would make too many if it looked again before its own creations came back. Judged by the state of the store
// alone, never by counted events: an object that came and went while a watch was broken must not be waited for.
// A write whose answer was lost is not recorded: it may cost an object too many, which the next sync takes back.
// Upstream counterpart: ControllerExpectations, which count events.
import type { Clock } from "#base/clock.ts";
import type { Informer } from "#client/informer.ts";
import { type ApiObject, isDeleting, keyOf, uidOf } from "#model/object.ts";

/** After so long the store is trusted again, whatever it lacks. Upstream's bound. */
const timeoutMs = 300_000;
/** How soon to look again at a key whose writes are not shown yet, beside any event that comes first. */
export const lookAgainMs = 1000;

interface Pending {
  readonly kind: "created" | "deleted";
  readonly object: string;
  readonly uid: string;
  readonly revision: number;
  readonly sinceMs: number;
}

export class Expectations<T extends ApiObject> {
  readonly #clock: Clock;
  readonly #store: Informer<T>;
  readonly #pending = new Map<string, Pending[]>();

  constructor(clock: Clock, store: Informer<T>) {
    this.#clock = clock;
    this.#store = store;
  }

  /** `object` as the API answered to its creation. */
  created(key: string, object: T): void {
    this.#add(key, "created", object);
  }
  /** `object` as it was when its deletion was accepted. */
  deleted(key: string, object: T): void {
    this.#add(key, "deleted", object);
  }

  /** True when the store shows all that was written under `key`, or too much time has passed. */
  satisfied(key: string): boolean {
    const left = (this.#pending.get(key) ?? []).filter((pending) => !this.#isShown(pending));
    if (left.length > 0) this.#pending.set(key, left);
    else this.#pending.delete(key);
    return left.length === 0;
  }
  forget(key: string): void {
    this.#pending.delete(key);
  }

  #add(key: string, kind: Pending["kind"], object: T): void {
    const revision = Number(object.metadata.resourceVersion);
    const sinceMs = this.#clock.monotonicMs();
    const pending = { kind, object: keyOf(object), uid: uidOf(object), revision, sinceMs };
    const all = this.#pending.get(key);
    if (all) all.push(pending);
    else this.#pending.set(key, [pending]);
  }

  #isShown(pending: Pending): boolean {
    if (this.#clock.monotonicMs() - pending.sinceMs > timeoutMs) return true;
    const shown = this.#store.get(pending.object);
    const isSame = shown !== undefined && uidOf(shown) === pending.uid;
    if (pending.kind === "deleted") return !isSame || isDeleting(shown);
    // A store that is past its creation and does not have it has seen it go.
    return isSame || Number(this.#store.resourceVersion) >= pending.revision;
  }
}
