import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { withEither } from "./either-signal.ts";

const listeners = (signal: AbortSignal) => getEventListeners(signal, "abort").length;

test.each([0, 1])("aborts with the first that does, for its reason (%i)", async (which) => {
  const sources = [new AbortController(), new AbortController()];
  const reason = new Error("enough");
  const seen = await withEither(
    sources.map(({ signal }) => signal),
    async (either) => {
      expect(either.aborted).toBe(false);
      sources[which]!.abort(reason);
      sources[1 - which]!.abort(new Error("later"));
      return either.reason as unknown;
    },
  );
  expect(seen).toBe(reason);
});

test("one that has aborted before counts", async () => {
  const lasting = new AbortController();
  const seen = await withEither(
    [lasting.signal, AbortSignal.abort("before")],
    async (either) => either.reason as unknown,
  );
  expect([seen, listeners(lasting.signal)]).toEqual(["before", 0]);
});

test("nothing stays on a signal that lasts, however the work ends", async () => {
  const lasting = new AbortController();
  for (let n = 0; n < 3; n++) {
    await withEither([new AbortController().signal, lasting.signal], async () => {
      expect(listeners(lasting.signal)).toBe(1);
    });
    await expect(withEither([lasting.signal], () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  }
  expect(listeners(lasting.signal)).toBe(0);
});
