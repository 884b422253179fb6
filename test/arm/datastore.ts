// The datastore's self-test without a test runner, for Node.js under emulation: both logs against the model, a restart,
// and the index's own check. Throws at the first difference.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert } from "#base/assert.ts";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock } from "#platform/clock.ts";
import { againstModel } from "#test/harness/backend-model.ts";

/** Resolves with a line about what was done. */
export async function testDatastore(rounds = 400): Promise<string> {
  const deps = { clock: systemClock, log: silentLogger };
  const folder = mkdtempSync(join(tmpdir(), "mote-arm-"));
  try {
    for (const endpoint of ["memory://", `sqlite://${folder}/state.db`]) {
      const store = await openDatastore({ endpoint }, deps);
      await againstModel(store, 7, rounds);
      store.verify();
      const before = await store.range(prefixRange("/"));
      await store.close();
      if (endpoint === "memory://") continue;
      const again = await openDatastore({ endpoint }, deps);
      const after = await again.range(prefixRange("/"));
      again.verify();
      assert(JSON.stringify(after.kvs) === JSON.stringify(before.kvs), "a restart changed what is stored");
      await again.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return `${rounds} transactions and reads on the memory log and on SQLite, one restart`;
}
