// Writes every value below a prefix anew that is not written as it would be now, a few at a time, until a whole pass finds
// none. A value that changes meanwhile is left to whoever changed it and looked at again in the next pass. What cannot be
// read is named and left alone: then keys must stay. Upstream counterpart: the storage migrator; k3s's reencryption.
import { messageOf } from "#base/errors.ts";
import { type Backend, type KeyRange, prefixRange } from "#datastore/backend.ts";
import { nextTurn } from "#platform/turns.ts";
import { refused } from "./configuration.ts";
import type { Slot, StoredItem } from "./slots.ts";

export interface RewriteOptions {
  /** Every key of one resource, whose values are durable. */
  readonly prefix: string;
  readonly slot: Slot;
  /** Told after each slice. */
  readonly progress: (rewritten: number) => void;
}

export interface Rewritten {
  readonly rewritten: number;
  /** Keys with the reason; at most `maxUnreadable`. */
  readonly unreadable: readonly string[];
}

/** Values in flight at once: they share a flush, and others get through between. */
const slice = 20;
/** Each pass leaves only what changed during it; a writer in a tight loop must not keep this going for ever. */
const maxPasses = 20;
/** Named in errors and events. */
const maxUnreadable = 10;

/** Rejects with the signal's reason when it is aborted. */
export async function rewriteAll(options: RewriteOptions, backend: Backend, signal: AbortSignal): Promise<Rewritten> {
  let rewritten = 0;
  for (let pass = 0; pass < maxPasses; pass++) {
    const unreadable: string[] = [];
    let isSettled = true;
    for await (const values of slices(options, backend, signal)) {
      const outcomes = await Promise.all(values.map((value) => rewriteOne(value, options.slot, backend)));
      for (const outcome of outcomes) {
        if (outcome === "rewritten") rewritten++;
        if (outcome === "rewritten" || outcome === "changed") isSettled = false;
        else if (unreadable.length < maxUnreadable) unreadable.push(outcome.unreadable);
      }
      options.progress(rewritten);
    }
    if (isSettled) return { rewritten, unreadable };
  }
  throw refused(
    `values below ${options.prefix} change faster than they can be written again; nothing is lost, try later`,
  );
}

/** The values that are to be written, in slices. */
async function* slices(
  { prefix, slot }: RewriteOptions,
  backend: Backend,
  signal: AbortSignal,
): AsyncGenerator<readonly StoredItem[]> {
  const range = prefixRange(prefix);
  let key: KeyRange["key"] = range.key;
  for (;;) {
    signal.throwIfAborted();
    const page = await backend.range({ key, end: range.end, limit: slice });
    const last = page.kvs.at(-1);
    if (!last) return;
    const outdated = page.kvs.filter(({ value }) => slot.transformer && !slot.transformer.isCurrent(value));
    if (outdated.length > 0) yield outdated;
    if (!page.more) return;
    key = `${last.key}\0`;
    await nextTurn();
  }
}

type Outcome = "rewritten" | "changed" | { readonly unreadable: string };

async function rewriteOne(item: StoredItem, slot: Slot, backend: Backend): Promise<Outcome> {
  const { key, modRevision } = item;
  let plain: Uint8Array;
  try {
    plain = slot.reveal(item).value;
  } catch (error) {
    return { unreadable: `${key}: ${messageOf(error)}` };
  }
  const result = await slot.write(key, plain, (value) =>
    backend.commit({
      compares: [{ key, target: "mod", op: "=", value: modRevision }],
      success: [{ type: "put", key, value, class: "durable" }],
    }),
  );
  return result.succeeded ? "rewritten" : "changed";
}
