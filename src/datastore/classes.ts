// Which resource is in which storage class (docs/datastore.md says what a class promises). One table; durable is what
// is not named here.
import type { StorageClass } from "./backend.ts";

interface Row {
  readonly group: string;
  readonly resource: string;
  /** Absent: all namespaces. */
  readonly namespace?: string;
  /** Absent: all names. */
  readonly namePrefix?: string;
  readonly class: StorageClass;
  readonly why: string;
}

export const storageClasses: readonly Row[] = [
  {
    group: "coordination.k8s.io",
    resource: "leases",
    namespace: "kube-node-lease",
    class: "heartbeat",
    why: "every node writes one every 10 s; a lost one is written again within 10 s",
  },
  {
    group: "coordination.k8s.io",
    resource: "leases",
    namespace: "kube-system",
    namePrefix: "apiserver-",
    class: "heartbeat",
    why: "the identity of an API server, renewed every 10 s; a lost one is written again within 10 s",
  },
  { group: "", resource: "events", class: "event", why: "kept an hour, read by people, written in bursts" },
  { group: "events.k8s.io", resource: "events", class: "event", why: "the same objects under their other group" },
];

export function storageClassOf(
  group: string,
  resource: string,
  namespace: string | undefined,
  name: string,
): StorageClass {
  for (const row of storageClasses) {
    if (row.group !== group || row.resource !== resource) continue;
    if ((row.namespace ?? namespace) === namespace && name.startsWith(row.namePrefix ?? "")) return row.class;
  }
  return "durable";
}
