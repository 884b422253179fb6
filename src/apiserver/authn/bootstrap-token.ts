// Bootstrap tokens, `id.secret`: kept as secrets of a type of their own in kube-system, good for joining and little else.
// Upstream counterpart: plugin/pkg/auth/authenticator/token/bootstrap.
import { createHash, timingSafeEqual } from "node:crypto";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import type { Authenticator } from "./authenticator.ts";
import type { ReviewedToken } from "./service-account.ts";
import { defaultIssuer } from "./token-issuer.ts";

export interface BootstrapTokenDependencies {
  readonly clock: Clock;
  readonly log: Logger;
  /** Reads from the store. */
  get(resource: string, namespace: string, name: string): Promise<ApiObject | undefined>;
}

export interface BootstrapTokenAuthenticator extends Authenticator {
  /** For TokenReview. Such a token is meant for this API server: asked for others alone it is nobody's. */
  review(token: string, audiences: readonly string[]): Promise<ReviewedToken | undefined>;
}

const form = /^([a-z0-9]{6})\.([a-z0-9]{16})$/;
const everyone = "system:bootstrappers";
const groupForm = /^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$/;

export function createBootstrapTokenAuthenticator(
  dependencies: BootstrapTokenDependencies,
): BootstrapTokenAuthenticator {
  return {
    async review(token, audiences) {
      if (audiences.length > 0 && !audiences.includes(defaultIssuer)) return undefined;
      const user = await this.authenticate({ bearerToken: token });
      if (!user) return undefined;
      return { user: { ...user, groups: [...user.groups, "system:authenticated"] }, audiences: [defaultIssuer] };
    },
    async authenticate({ bearerToken }) {
      const match = bearerToken === undefined ? null : form.exec(bearerToken);
      if (!match) return undefined;
      const [, id = "", secret = ""] = match;
      const found = (await dependencies.get("secrets", "kube-system", `bootstrap-token-${id}`)) as Secret | undefined;
      const problem = found ? problemOf(found, id, secret, dependencies.clock.now()) : "no such secret";
      if (problem !== undefined) {
        dependencies.log.debug("bootstrap token refused", { id, reason: problem });
        return undefined;
      }
      const extra = textOf(found!, "auth-extra-groups");
      const groups = extra === "" ? [] : extra.split(",");
      return { name: `system:bootstrap:${id}`, groups: [...new Set([everyone, ...groups])] };
    },
  };
}

function problemOf(found: Secret, id: string, secret: string, nowMs: number): string | undefined {
  if (found.type !== "bootstrap.kubernetes.io/token") return "wrong type";
  if (found.metadata.deletionTimestamp !== undefined) return "is being deleted";
  if (textOf(found, "token-id") !== id || !isSame(textOf(found, "token-secret"), secret)) return "wrong secret";
  const expiration = textOf(found, "expiration");
  // A time that cannot be read has passed.
  if (expiration !== "" && !(Date.parse(expiration) > nowMs)) return "expired";
  if (textOf(found, "usage-bootstrap-authentication") !== "true") return "not for authentication";
  const extra = textOf(found, "auth-extra-groups");
  if (extra !== "" && !extra.split(",").every((group) => groupForm.test(group))) return "unusable group";
  return undefined;
}

const textOf = ({ data }: Secret, key: string): string => Buffer.from(data?.[key] ?? "", "base64").toString("utf8");

/** In time that does not depend on the content. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
