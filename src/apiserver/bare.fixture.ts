// An API server on the in-memory datastore with strategies and nothing around them: no authentication, no admission, and
// an authorizer without opinions, so that only system:masters may do anything unless a test says otherwise.
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Backend } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { columnsFor } from "./printers/tables.ts";
import { createStrategies } from "./registry/strategies.ts";
import { type ApiServer, type ApiServerDeps, createApiServer } from "./server.ts";

export interface BareServer {
  readonly server: ApiServer;
  readonly backend: Backend;
  readonly clock: FakeClock;
}

export async function openBareServer(
  seed: number,
  more: Partial<ApiServerDeps> = {},
  clock = new FakeClock(),
): Promise<BareServer> {
  const random = seededRandom(seed);
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  const server = createApiServer(
    { freezeShared: true },
    {
      ...{ backend, clock, random, log: silentLogger, metrics: new Metrics(), columnsFor },
      authenticators: [],
      authorizer: { authorize: () => ({ verdict: "no-opinion", reason: "" }) },
      strategies: createStrategies({ clock, random }),
      admission: [],
      ...more,
    },
  );
  return { server, backend, clock };
}
