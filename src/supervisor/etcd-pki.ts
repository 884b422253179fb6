// Keys and certificates of the etcd API that `mote server --etcd-listen https://…` serves: an authority of its own, so
// that no certificate of the cluster opens the store and none of these opens the cluster. Files, names and subjects are
// k3s's (server/tls/etcd); the pair for peers is there for whoever looks for it.

import { makeFolder } from "#platform/files.ts";
import type { KeyPair, PkiDependencies, PkiOptions } from "./pki.ts";
import { openPairStore, servingNames } from "./pki.ts";

export interface EtcdPki {
  readonly ca: KeyPair;
  /** Serves, and may call others. */
  readonly server: KeyPair;
  /** For those who use the API: etcdctl, an API server. */
  readonly client: KeyPair;
}

/** `folder`: that of the cluster's certificates. Running it again changes nothing. */
export async function ensureEtcdPki(options: PkiOptions, dependencies: PkiDependencies): Promise<EtcdPki> {
  const folder = `${options.folder}/etcd`;
  await makeFolder(folder, 0o700);
  const store = openPairStore(folder, dependencies);
  const [ca, peerCa] = await Promise.all([
    store.authority("server-ca", "etcd-server-ca"),
    store.authority("peer-ca", "etcd-peer-ca"),
  ]);
  const { dnsNames, ips } = servingNames(options).apiserver;
  const [server, client] = await Promise.all([
    store.leaf("server-client", ca, {
      commonName: "etcd-server",
      usage: "server+client",
      dnsNames: ["kine.sock", ...dnsNames],
      ips,
    }),
    store.leaf("client", ca, { commonName: "etcd-client", usage: "client" }),
    store.leaf("peer-server-client", peerCa, { commonName: "etcd-peer", usage: "server+client", dnsNames, ips }),
  ]);
  store.tell();
  return { ca, server, client };
}
