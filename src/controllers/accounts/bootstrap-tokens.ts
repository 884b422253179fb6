// Bootstrap tokens whose time has come are deleted. Upstream counterpart: pkg/controller/bootstrap/tokencleaner.go.
import type { Service } from "#base/service.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf } from "#model/object.ts";
import { secrets } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";

const scope = { namespace: "kube-system", fieldSelector: "type=bootstrap.kubernetes.io/token" };

/** Undefined: it never expires. */
function expiryMsOf({ data }: Secret): number | undefined {
  const text = Buffer.from(data?.["expiration"] ?? "", "base64").toString("utf8");
  if (text === "") return undefined;
  const time = Date.parse(text);
  // What cannot be read authenticates nobody: it may go.
  return Number.isNaN(time) ? 0 : time;
}

export function createBootstrapTokenCleaner(deps: ControllerDeps): Service {
  const store = deps.informers.informer(secrets, scope);
  return createController(
    {
      name: "token-cleaner-controller",
      workers: 1,
      triggers: [on(store)],
      async sync(key, again) {
        const secret = store.get(key);
        const expiryMs = secret && expiryMsOf(secret);
        if (!secret || isDeleting(secret) || expiryMs === undefined) return;
        const waitMs = expiryMs - deps.clock.now();
        if (waitMs > 0) {
          again(waitMs);
          return;
        }
        const { uid } = secret.metadata;
        const preconditions = uid === undefined ? {} : { preconditions: { uid } };
        try {
          await deps.client.delete(secrets, { name: nameOf(secret), namespace: namespaceOf(secret) }, preconditions);
        } catch (error) {
          if (!isNotFound(error)) throw error;
        }
      },
    },
    deps,
  );
}
