// NamespaceLifecycle: nothing is created in a namespace that does not exist or is going away, and the namespaces the
// system lives in are not deleted. Upstream: plugin/namespace/lifecycle.
import type { Namespace } from "#model/gen/core-v1.ts";
import { ApiError, forbidden, notFound } from "#model/status.ts";
import type { AdmissionPlugin } from "./plugin.ts";

const immortal = new Set(["default", "kube-system", "kube-public"]);
/** Access reviews ask about namespaces, they do not live in them. */
const reviews = new Set(["localsubjectaccessreviews"]);

export function createNamespaceLifecycle(): AdmissionPlugin {
  return {
    name: "NamespaceLifecycle",
    handles: ({ operation, resource, namespace }) =>
      operation === "DELETE"
        ? resource.group === "" && resource.plural === "namespaces"
        : operation === "CREATE" && namespace !== "" && resource.namespaced && !reviews.has(resource.plural),
    async mutate(request, context) {
      // Here and not in validate, so that a missing namespace is the first thing a client hears of.
      const { resource, namespace, name, operation } = request;
      const about = { group: resource.group, resource: resource.plural };
      if (operation === "DELETE") {
        if (immortal.has(name)) throw forbidden(about, name, "this namespace may not be deleted");
        return;
      }
      const found = await context.get<Namespace>("namespaces", "", namespace);
      if (!found) throw notFound({ group: "", resource: "namespaces" }, namespace);
      if (found.status?.phase !== "Terminating" && !found.metadata.deletionTimestamp) return;
      const refusal = forbidden(
        about,
        name,
        `unable to create new content in namespace ${namespace} because it is being terminated`,
      );
      const message = `namespace ${namespace} is being terminated`;
      throw new ApiError(403, "Forbidden", refusal.message, {
        ...refusal.status.details,
        causes: [{ reason: "NamespaceTerminating", message, field: "metadata.namespace" }],
      });
    },
  };
}
