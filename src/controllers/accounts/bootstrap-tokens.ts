// Bootstrap tokens whose time has come are deleted. Upstream counterpart: pkg/controller/bootstrap/tokencleaner.go.
import type { Service } from "#base/service.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { secrets } from "#model/resources.ts";
import type { ControllerDeps } from "../runtime/controller.ts";
import { createExpiryController } from "../runtime/object-controller.ts";

const scope = { namespace: "kube-system", fieldSelector: "type=bootstrap.kubernetes.io/token" };

/** Undefined: it never expires. */
function expiryMsOf({ data }: Secret): number | undefined {
  const text = Buffer.from(data?.["expiration"] ?? "", "base64").toString("utf8");
  if (text === "") return undefined;
  const time = Date.parse(text);
  // What cannot be read authenticates nobody: it may go.
  return Number.isNaN(time) ? 0 : time;
}

export const createBootstrapTokenCleaner = (deps: ControllerDeps): Service =>
  createExpiryController(
    {
      name: "token-cleaner-controller",
      store: deps.informers.informer(secrets, scope),
      leftMs(secret, nowMs) {
        const expiryMs = expiryMsOf(secret);
        return expiryMs === undefined ? undefined : expiryMs - nowMs;
      },
    },
    deps,
  );
