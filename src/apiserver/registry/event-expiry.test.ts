import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { expireEvents } from "./event-expiry.ts";

test("an event goes an hour after its last write; others stay; the oldest go when there are too many", async () => {
  const clock = new FakeClock();
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  const put = (key: string) =>
    backend.commit({ compares: [], success: [{ type: "put", key, value: new Uint8Array([1]) }] });
  const keys = async (prefix: string) =>
    (await backend.range({ ...prefixRange(prefix), keysOnly: true })).kvs.map((kv) => kv.key);
  const abort = new AbortController();
  await put("/registry/events/default/a");
  await put("/registry/events/default/b");
  await put("/registry/eventsource/default/c");
  const done = expireEvents({ backend, clock, log: silentLogger }, abort.signal);
  await clock.advance(40 * 60_000);
  await put("/registry/events/default/b");
  await clock.advance(25 * 60_000);
  expect(await keys("/registry/events/")).toEqual(["/registry/events/default/b"]);
  await clock.advance(40 * 60_000);
  expect(await keys("/registry/")).toEqual(["/registry/eventsource/default/c"]);
  for (let i = 0; i < 5003; i++) await put(`/registry/events/default/n${i}`);
  await clock.advance(5 * 60_000);
  const left = await keys("/registry/events/");
  expect(left).toHaveLength(5000);
  expect(left).not.toContain("/registry/events/default/n2");
  expect(left).toContain("/registry/events/default/n3");
  abort.abort();
  await clock.advance(0);
  await done;
  await backend.close();
});
