// What every namespace gets: a service account named "default" and a config map with the CA by which pods check the API
// server. Both come back when they are deleted, and the config map when it is changed.
// Upstream counterpart: pkg/controller/serviceaccount/serviceaccounts_controller.go, certificates/rootcacertpublisher.
import type { Service } from "#base/service.ts";
import type { Namespace } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf } from "#model/object.ts";
import { configMaps, namespaces, serviceAccounts } from "#model/resources.ts";
import { isAlreadyExists, isApiError, isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../runtime/controller.ts";
import { isEqual } from "../runtime/equal.ts";

const caName = "kube-root-ca.crt";
const caDescription =
  "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the " +
  "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/** Upstream's: from 1 ms, doubling. */
const secondsBuckets = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i);

const isActive = (namespace: Namespace | undefined): namespace is Namespace =>
  namespace !== undefined && !isDeleting(namespace) && namespace.status?.phase !== "Terminating";

/** A write that lost against another that made the same, or whose namespace is going away, has nothing left to do. */
async function tolerant(write: Promise<unknown>): Promise<void> {
  try {
    await write;
  } catch (error) {
    if (!isAlreadyExists(error) && !isNamespaceTerminating(error) && !isNotFound(error)) throw error;
  }
}

export function createServiceAccountController(deps: ControllerDeps): Service {
  const namespaceStore = deps.informers.informer(namespaces);
  const store = deps.informers.informer(serviceAccounts);
  return createController(
    {
      name: "serviceaccount-controller",
      workers: 1,
      triggers: [on(namespaceStore), on(store, (account) => [namespaceOf(account)])],
      async sync(namespace) {
        if (!isActive(namespaceStore.get(namespace)) || store.get(`${namespace}/default`)) return;
        await tolerant(deps.client.create(serviceAccounts, { metadata: { name: "default", namespace } }));
      },
    },
    deps,
  );
}

export function createRootCaController(deps: ControllerDeps, options: { readonly rootCa: string }): Service {
  const namespaceStore = deps.informers.informer(namespaces);
  const store = deps.informers.informer(configMaps, { fieldSelector: `metadata.name=${caName}` });
  const data = { "ca.crt": options.rootCa };
  const annotations = { "kubernetes.io/description": caDescription };
  const syncs = deps.metrics.counter(
    "root_ca_cert_publisher_sync_total",
    "Looks at the CA of a namespace, by the code of the answer.",
  );
  const seconds = deps.metrics.histogram(
    "root_ca_cert_publisher_sync_duration_seconds",
    "How long a look at the CA of a namespace takes.",
    secondsBuckets,
  );

  async function sync(namespace: string): Promise<void> {
    if (!isActive(namespaceStore.get(namespace))) return;
    const old = store.get(`${namespace}/${caName}`);
    if (!old) {
      const metadata = { name: caName, namespace, annotations };
      await tolerant(deps.client.create(configMaps, { metadata, data }));
    } else if (!isEqual(old.data ?? {}, data) || !isEqual(old.metadata.annotations, annotations)) {
      await tolerant(deps.client.update(configMaps, { ...old, metadata: { ...old.metadata, annotations }, data }));
    }
  }

  return createController(
    {
      name: "root-ca-certificate-publisher-controller",
      workers: 1,
      triggers: [on(namespaceStore), on(store, (map) => (nameOf(map) === caName ? [namespaceOf(map)] : []))],
      async sync(namespace) {
        const startedMs = deps.clock.monotonicMs();
        let code = "200";
        try {
          await sync(namespace);
        } catch (error) {
          code = isApiError(error) ? String(error.code) : "500";
          throw error;
        } finally {
          syncs.add(1, { code });
          seconds.observe((deps.clock.monotonicMs() - startedMs) / 1000, { code });
        }
      },
    },
    deps,
  );
}
