// The child of the kill -9 test: writes until it is killed, and prints what was acknowledged, a line each.
// Arguments: endpoint, number of writers. Keys are /k/<n>, each with its own number as value, n rising for ever.
import { writeSync } from "node:fs";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { createCompactor } from "#datastore/compactor.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import { systemClock } from "#platform/clock.ts";

const [endpoint = "", writers = "8"] = process.argv.slice(2);
const deps = { clock: systemClock, log: silentLogger };
const store: Datastore = await openDatastore({ endpoint }, deps);
// Compactions all the time, so that kills fall into them too.
const compactor = createCompactor({ intervalMs: 20, checkMs: 20 }, { ...deps, store });
let next = (await store.range({ ...prefixRange("/k/"), countOnly: true })).count;
const say = (line: string) => writeSync(1, `${line}\n`);
say(`ready ${store.revision()}`);

async function write(): Promise<never> {
  for (;;) {
    const n = next++;
    const value = Buffer.from(`${n} `.repeat(100));
    const { revision } = await store.commit({
      compares: [{ key: `/k/${n}`, target: "mod", op: "=", value: 0 }],
      success: [
        { type: "put", key: `/k/${n}`, value },
        { type: "put", key: "/counter", value },
        { type: "put", key: "/heartbeat", value, class: "heartbeat" },
      ],
    });
    say(`${revision} ${n}`);
  }
}
await Promise.all([
  compactor.run(new AbortController().signal, () => {}),
  ...Array.from({ length: Number(writers) }, write),
]);
