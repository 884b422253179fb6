// Informers and the history of the datastore: a watch that cannot be resumed lists again and misses nothing.
import { afterEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { InformerFactory } from "#client/informer.ts";
import type { ConfigMap } from "#model/gen/core-v1.ts";
import { configMaps } from "#model/resources.ts";
import { settle } from "#test/harness/fake-clock.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

test("after compaction an informer that was away shows exactly what is there", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const write = (name: string, value: string) =>
    c.client.create(configMaps, { metadata: { name, namespace: "default" }, data: { value } } as ConfigMap);
  for (const name of ["kept", "gone", "changed"]) await write(name, "1");

  // A factory of its own whose transport can be cut.
  let isCut = false;
  const { transport } = c.client;
  const watches = new Set<AbortController>();
  const cutting: typeof transport = {
    request: (request, signal) => (isCut ? Promise.reject(new Error("cut")) : transport.request(request, signal)),
    async *watch(request, signal) {
      if (isCut) throw new Error("cut");
      const stop = new AbortController();
      watches.add(stop);
      const onAbort = () => stop.abort(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        yield* transport.watch(request, stop.signal);
      } finally {
        watches.delete(stop);
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
  const client = new (c.client.constructor as new (t: typeof transport) => typeof c.client)(cutting);
  const factory = new InformerFactory(
    { verify: true },
    { client, clock: c.clock, random: c.random, log: silentLogger },
  );
  const informer = factory.informer(configMaps, { namespace: "default" });
  const stop = new AbortController();
  const running = factory.run(stop.signal, () => {});
  await c.until(() => informer.hasSynced, "synced");
  const seen: string[] = [];
  informer.addHandler({
    update: (o) => seen.push(`update ${o.metadata.name}`),
    delete: (o) => seen.push(`delete ${o.metadata.name}`),
    add: (o) => seen.push(`add ${o.metadata.name}`),
  });
  seen.length = 0;

  isCut = true;
  for (const watch of watches) watch.abort(new Error("cut"));
  await settle();
  await c.client.delete(configMaps, { name: "gone", namespace: "default" });
  await c.client.patch(configMaps, { name: "changed", namespace: "default" }, { data: { value: "2" } });
  await write("new", "1");
  await c.datastore.compact(c.datastore.revision());
  await write("newer", "1");
  isCut = false;
  await c.until(() => informer.get("default/newer") !== undefined, "caught up");
  expect(seen.sort()).toEqual(["add new", "add newer", "delete gone", "update changed"]);
  const names = informer.list("default").map((o) => o.metadata.name);
  expect(names.filter((n) => n !== "kube-root-ca.crt").sort()).toEqual(["changed", "kept", "new", "newer"]);
  stop.abort(new Error("over"));
  await running;
});
