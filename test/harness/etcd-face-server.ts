// The etcd API of a store in memory, on a port of its own, for tests that speak to it.
import { silentLogger } from "#base/log.ts";
import { createEtcdListener, type EtcdListenerOptions } from "#datastore/etcd-face.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import { systemClock } from "#platform/clock.ts";

export interface EtcdFaceServer {
  readonly store: Datastore;
  readonly port: number;
  close(): Promise<void>;
}

export async function startEtcdFace(options: Partial<EtcdListenerOptions> = {}): Promise<EtcdFaceServer> {
  const store = await openDatastore({ endpoint: "memory://" }, { clock: systemClock, log: silentLogger });
  const stop = new AbortController();
  let port = 0;
  let done: Promise<void> = Promise.resolve();
  try {
    await new Promise<void>((resolve, reject) => {
      const service = createEtcdListener(
        { listen: { host: "127.0.0.1", port: 0 }, ...options },
        { backend: store, clock: systemClock, log: silentLogger },
        (address) => {
          port = Number(address.split(":").at(-1));
        },
      );
      done = service.run(stop.signal, resolve);
      done.catch(reject);
    });
  } catch (error) {
    await store.close();
    throw error;
  }
  return {
    store,
    port,
    async close() {
      stop.abort();
      await done;
      await store.close();
    },
  };
}
