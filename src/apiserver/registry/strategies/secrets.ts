// Secrets: the type is part of what may be selected by, and stays when an update leaves it out. Upstream:
// pkg/registry/core/secret.
import type { Secret } from "#model/gen/core-v1.ts";
import type { Strategy } from "../../strategy.ts";

export const secrets: Strategy = {
  prepareForUpdate(secret: Secret, old: Secret) {
    if (!secret.type && old.type) secret.type = old.type;
  },
  selectableFields: (secret: Secret) => ({ type: secret.type ?? "" }),
};
