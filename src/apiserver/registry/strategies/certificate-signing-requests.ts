// Certificate signing requests: who asks is what authentication says, not what the request says. Upstream:
// pkg/registry/certificates/certificates.
import type { ApiObject } from "#model/object.ts";
import type { Strategy, StrategyContext } from "../../strategy.ts";

interface Request extends ApiObject {
  spec?: {
    signerName?: string;
    username?: string;
    uid?: string;
    groups?: string[];
    extra?: Record<string, string[]>;
  };
  status?: object;
}

export const certificateSigningRequests: Strategy = {
  prepareForCreate(request: Request, { user }: StrategyContext) {
    request.status = {};
    if (!request.spec) return;
    request.spec.username = user.name;
    request.spec.groups = [...user.groups];
    if (user.uid) request.spec.uid = user.uid;
    else delete request.spec.uid;
    const extra = Object.entries(user.extra ?? {}).map(([key, values]): [string, string[]] => [key, [...values]]);
    if (extra.length > 0) request.spec.extra = Object.fromEntries(extra);
    else delete request.spec.extra;
  },
  /** What was asked stays as it was asked; approval and status have their own subresources. */
  prepareForUpdate(request: Request, old: Request) {
    if (old.spec) request.spec = old.spec;
    if (old.status) request.status = old.status;
  },
  selectableFields: (request: Request) => ({ "spec.signerName": request.spec?.signerName ?? "" }),
};
