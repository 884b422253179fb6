// Writes on a token secret the day on which its token was last used, so that the controllers can tell which of them nobody
// needs any more. Nobody waits for it: a write that fails is made with the next use.
// Upstream counterpart: pkg/serviceaccount/legacy.go.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Client } from "#client/client.ts";
import { type ApiObject, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { secrets } from "#model/resources.ts";
import { lastUsedLabel } from "#model/token-secrets.ts";

/** Writes at a time; more secrets than this wait for their next use. */
const maxPending = 16;

export function createSecretUseNotes(deps: {
  readonly client: () => Client;
  readonly log: Logger;
}): (secret: ApiObject, day: string) => void {
  const pending = new Set<string>();
  return (secret, day) => {
    const uid = uidOf(secret);
    if (pending.has(uid) || pending.size >= maxPending) return;
    pending.add(uid);
    const target = { name: nameOf(secret), namespace: namespaceOf(secret) };
    deps
      .client()
      .patch(secrets, target, { metadata: { uid, labels: { [lastUsedLabel]: day } } })
      .catch((error: unknown) =>
        deps.log.debug("cannot note the use of a token", { secret: keyOf(secret), error: messageOf(error) }),
      )
      .finally(() => pending.delete(uid));
  };
}
