import { afterEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Lease } from "#model/gen/coordination-v1.ts";
import type { Namespace } from "#model/gen/core-v1.ts";
import { leases, namespaces } from "#model/resources.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { loopback } from "./authn/user.ts";
import { columnsFor } from "./printers/tables.ts";
import { createStrategies } from "./registry/strategies.ts";
import { createApiServer } from "./server.ts";
import { apiServerId, createServerIdentity, isExpired } from "./server-identity.ts";

const cleaning: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleaning.splice(0).reverse()) await clean();
});

test("the name is upstream's: 16 bytes of the host name's SHA-256 in base 32", () => {
  // printf kind-control-plane | sha256sum | cut -c1-32 | xxd -r -p | base32
  expect(apiServerId("node-1")).toMatch(/^apiserver-[a-z2-7]{26}$/);
  expect(apiServerId("kind-control-plane")).toBe("apiserver-c4vwjftbvpc5os2vvzle4qg27a");
});

test("the lease is renewed every ten seconds without a durable write, and those of others go when they are over", async () => {
  const [clock, random] = [new FakeClock(), seededRandom(4)];
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  cleaning.push(() => backend.close());
  const server = createApiServer(
    {},
    {
      ...{ backend, clock, random, log: silentLogger, metrics: new Metrics(), columnsFor },
      authenticators: [],
      authorizer: { authorize: () => ({ verdict: "allow", reason: "" }) },
      strategies: createStrategies({ clock, random }),
      admission: [],
    },
  );
  const client = new Client(server.transport(loopback));
  await client.create(namespaces, { metadata: { name: "kube-system" } } as Namespace);
  const other = (name: string, labels: Record<string, string>, renewTime: string): Promise<Lease> =>
    client.create(leases, {
      metadata: { name, namespace: "kube-system", labels },
      spec: { holderIdentity: "x", leaseDurationSeconds: 3600, renewTime },
    });
  const label = { "apiserver.kubernetes.io/identity": "kube-apiserver" };
  await other("apiserver-gone", label, "2020-01-01T00:00:00.000000Z");
  await other("apiserver-lives", label, "2036-01-01T00:00:00.000000Z");
  await other("kube-scheduler", {}, "2020-01-01T00:00:00.000000Z");
  const written = backend.accounts().durableWrites;
  const stop = new AbortController();
  const running = createServerIdentity("board-7", { client, clock, random, log: silentLogger }).run(
    stop.signal,
    () => {},
  );
  await settle();
  const name = apiServerId("board-7");
  const first = await client.get(leases, name, "kube-system");
  expect(first).toMatchObject({
    metadata: { labels: { ...label, "kubernetes.io/hostname": "board-7" } },
    spec: { leaseDurationSeconds: 3600, renewTime: "2026-01-01T00:00:00.000000Z" },
  });
  expect(first.spec?.holderIdentity).toMatch(new RegExp(`^${name}_[0-9a-f-]{36}$`));
  await clock.advance(10_000);
  await settle();
  const second = await client.get(leases, name, "kube-system");
  expect(second.spec?.renewTime).toBe("2026-01-01T00:00:10.000000Z");
  const names = async () =>
    (await client.list(leases, { namespace: "kube-system" })).items.map(({ metadata }) => metadata.name);
  expect(await names()).toContain("apiserver-gone");
  expect(backend.accounts().durableWrites).toBe(written);
  for (let s = 0; s < 3600; s += 10) {
    await clock.advance(10_000);
    await settle(2);
  }
  await settle();
  expect(backend.accounts().durableWrites - written).toBeLessThanOrEqual(1);
  expect(await names()).toEqual([name, "apiserver-lives", "kube-scheduler"].sort());
  stop.abort();
  await running;
});

test.each<[string, Lease["spec"] | undefined, boolean]>([
  ["lives", { leaseDurationSeconds: 10, renewTime: "2026-01-01T00:00:00Z" }, false],
  ["is over", { leaseDurationSeconds: 10, renewTime: "2025-12-31T23:59:49Z" }, true],
  ["was never renewed", { leaseDurationSeconds: 10 }, true],
  ["says nothing", undefined, true],
])("a lease that %s", (_name, spec, expected) => {
  expect(isExpired(spec, Date.UTC(2026, 0, 1))).toBe(expected);
});
