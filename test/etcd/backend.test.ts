// The Backend that speaks to an external etcd is held to the same conformance suite as the local store: over Debian's
// etcd, and over mote's own etcd face.
import { afterAll, describe } from "vitest";
import { silentLogger } from "#base/log.ts";
import { openEtcdBackend } from "#datastore/etcd-backend.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { type BackendFixture, describeBackend } from "#test/conformance/backend.ts";
import { etcdPath, type Peer, startEtcd, startMote } from "./peers.ts";

const path = await etcdPath();
/** The largest value of the suite is 3 MiB. */
const maxRequestBytes = 4 * 1024 * 1024;
const peers: Peer[] = [];
afterAll(async () => {
  for (const peer of peers) await peer.close();
});

/** One peer for all tests, emptied after each. */
function over(start: () => Promise<Peer>): () => Promise<BackendFixture> {
  let peer: Promise<Peer> | undefined;
  return async () => {
    peer ??= start().then((started) => {
      peers.push(started);
      return started;
    });
    const { address, client } = await peer;
    const deps = { clock: systemClock, random: systemRandom, log: silentLogger };
    // Small pages and a small history, so that both ends are met.
    const open = () => openEtcdBackend({ endpoint: address, pageKeys: 400, historyBytes: 300_000 }, deps);
    let backend = await open();
    return {
      backend,
      realTime: true,
      async settle() {
        await new Promise((resolve) => setTimeout(resolve, 120));
      },
      async reopen() {
        await backend.close();
        backend = await open();
        return backend;
      },
      async cleanUp() {
        await backend.close();
        const leases = await client.call("Lease/LeaseLeases", {});
        if ("ok" in leases) for (const { ID } of leases.ok.leases) await client.call("Lease/LeaseRevoke", { ID });
        const all = { key: Uint8Array.of(0), rangeEnd: Uint8Array.of(0) };
        await client.call("KV/DeleteRange", all);
      },
    };
  };
}

describe.skipIf(!path)("over Debian's etcd", () => {
  describeBackend(
    "etcd",
    over(() => startEtcd(path!, { flags: ["--max-request-bytes", String(maxRequestBytes)] })),
  );
});

describeBackend(
  "etcd over mote's face",
  over(() => startMote({ maxRequestBytes }, "memory")),
);
