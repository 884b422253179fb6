// In whose name and how a request writes: user, dry run, warnings, notes for the audit log.
// Upstream counterpart: the dry-run checks of endpoints/handlers and rest.*Options.
import { fieldNotSupported, invalid } from "#model/status.ts";
import type { DeleteOptions } from "../registry/deletion.ts";
import type { WriteContext } from "../registry/registry.ts";
import type { HandlerRequest } from "./result.ts";
import type { ServedResource } from "./served.ts";

/** For writes that are validated as the version they came in asks. */
export const writeTo = (served: ServedResource, request: HandlerRequest): WriteContext => ({
  ...writeContext(request),
  served: served.info,
});

export function writeContext(request: HandlerRequest, options?: DeleteOptions): WriteContext {
  const dryRun = options?.dryRun ?? request.query.getAll("dryRun").filter((value) => value !== "");
  for (const value of dryRun) {
    if (value !== "All") {
      throw invalid("meta.k8s.io", "CreateOptions", "", [fieldNotSupported("dryRun", dryRun, ["All"])]);
    }
  }
  const { audit } = request;
  return {
    user: request.user,
    dryRun: dryRun.length > 0,
    warn: (message) => request.warn(message),
    ...(audit ? { annotate: (key: string, value: string) => audit.annotate(key, value) } : {}),
  };
}
