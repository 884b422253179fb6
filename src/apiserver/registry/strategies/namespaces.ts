// Namespaces: born Active with the finalizer that keeps them until their content is gone. Upstream:
// pkg/registry/core/namespace.
import type { Namespace } from "#model/gen/core-v1.ts";
import type { Strategy } from "../../strategy.ts";

export const namespaces: Strategy<Namespace> = {
  prepareForCreate(namespace) {
    const finalizers = namespace.spec?.finalizers ?? [];
    namespace.spec = { finalizers: finalizers.includes("kubernetes") ? finalizers : [...finalizers, "kubernetes"] };
    namespace.status = { phase: "Active" };
  },
  /** Spec changes go through namespaces/finalize only. */
  prepareForUpdate(namespace, old) {
    namespace.spec = old.spec ?? {};
    namespace.status = old.status ?? {};
  },
  selectableFields: (namespace) => ({ "status.phase": namespace.status?.phase ?? "" }),
} satisfies Strategy<Namespace> as Strategy<Namespace>;
