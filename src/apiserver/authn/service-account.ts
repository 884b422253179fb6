// Service-account bearer tokens: signature, issuer, times and audience, and that the account and what the token is bound
// to (pod, secret, node) still exist with the same uid. Upstream counterpart: pkg/serviceaccount's validator.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { ApiObject } from "#model/object.ts";
import { unauthorized } from "#model/status.ts";
import { invalidSinceLabel, lastUsedLabel } from "#model/token-secrets.ts";
import type { Authenticator } from "./authenticator.ts";
import { type Claims, peekClaims, verificationKey, verifyClaims } from "./jwt.ts";
import { defaultIssuer } from "./token-issuer.ts";
import type { UserInfo } from "./user.ts";

export interface ServiceAccountAuthenticatorOptions {
  readonly issuer?: string;
  /** Audiences of this API server; a token must name one of them. Default the issuer. */
  readonly audiences?: readonly string[];
  /** PEM. */
  readonly publicKeys: readonly string[];
}

export interface ServiceAccountAuthenticatorDependencies {
  readonly clock: Clock;
  readonly log: Logger;
  /** Reads from the store; `resource` is the plural (serviceaccounts, pods, secrets, nodes). */
  get(resource: string, namespace: string, name: string): Promise<ApiObject | undefined>;
  /** A token that lives in this secret was used, for the first time on that day; told again until its label says so. */
  secretUsed?(secret: ApiObject, day: string): void;
}

export interface ReviewedToken {
  readonly user: UserInfo;
  /** The asked audiences that the token is for. */
  readonly audiences: readonly string[];
}

export interface ServiceAccountAuthenticator extends Authenticator {
  /**
   * For TokenReview: undefined when the token is not ours; rejects with 401 when it is but does not hold. No audiences:
   * those of this API server.
   */
  review(token: string, audiences: readonly string[]): Promise<ReviewedToken | undefined>;
}

/** How far the clocks of issuer and verifier may differ. They are the same clock unless it was just set. */
const leewaySeconds = 10;
/** A pod that is being deleted may still speak for this long after its end (as upstream). */
const deletionLeewayMs = 60_000;

export function createServiceAccountAuthenticator(
  options: ServiceAccountAuthenticatorOptions,
  dependencies: ServiceAccountAuthenticatorDependencies,
): ServiceAccountAuthenticator {
  const issuer = options.issuer ?? defaultIssuer;
  const ownAudiences = options.audiences ?? [issuer];
  const keys = options.publicKeys.map(verificationKey);

  const refuse = (reason: string): never => {
    dependencies.log.debug("service account token refused", { reason });
    throw unauthorized();
  };

  const existing = async (resource: string, namespace: string, reference: Claims): Promise<ApiObject> => {
    const object = await dependencies.get(resource, namespace, text(reference["name"]));
    const deletedMs = Date.parse(object?.metadata.deletionTimestamp ?? "");
    const isGone =
      !object ||
      object.metadata.uid !== reference["uid"] ||
      (!Number.isNaN(deletedMs) && dependencies.clock.now() > deletedMs + deletionLeewayMs);
    return isGone ? refuse(`${resource} of the token is gone`) : object;
  };

  const review = async (token: string, audiences: readonly string[]): Promise<ReviewedToken | undefined> => {
    if (peekClaims(token)?.["iss"] !== issuer) return undefined;
    const claims = verifyClaims(token, keys) ?? refuse("signature");
    const nowSeconds = dependencies.clock.now() / 1000;
    if (typeof claims["exp"] !== "number" || nowSeconds > claims["exp"] + leewaySeconds) refuse("expired");
    if (typeof claims["nbf"] === "number" && nowSeconds < claims["nbf"] - leewaySeconds) refuse("not yet valid");
    const tokenAudiences = list(claims["aud"]);
    const wanted = audiences.length === 0 ? ownAudiences : audiences;
    const common = wanted.filter((audience) => tokenAudiences.includes(audience));
    if (common.length === 0) refuse("audience");
    const bound = record(claims["kubernetes.io"]) ?? refuse("no kubernetes.io claim");
    const namespace = text(bound["namespace"]);
    const account = record(bound["serviceaccount"]) ?? refuse("no account");
    const name = text(account["name"]);
    if (claims["sub"] !== `system:serviceaccount:${namespace}:${name}`) refuse("subject");
    await existing("serviceaccounts", namespace, account);
    const extra: Record<string, readonly string[]> = {};
    if (typeof claims["jti"] === "string") extra[`${prefix}credential-id`] = [`JTI=${claims["jti"]}`];
    const pod = record(bound["pod"]);
    const node = record(bound["node"]);
    const secret = record(bound["secret"]);
    if (secret) {
      const holder = await existing("secrets", namespace, secret);
      const labels = holder.metadata.labels ?? {};
      if (labels[invalidSinceLabel]) refuse("its secret was not used for long and is marked as invalid");
      const day = new Date(dependencies.clock.now()).toISOString().slice(0, 10);
      // Never back: a clock that was just set is no reason to forget a use.
      if ((labels[lastUsedLabel] ?? "") < day) dependencies.secretUsed?.(holder, day);
    }
    if (pod) {
      await existing("pods", namespace, pod);
      extra[`${prefix}pod-name`] = [text(pod["name"])];
      extra[`${prefix}pod-uid`] = [text(pod["uid"])];
    }
    if (node) {
      // Informative beside a pod, as upstream: a pod token outlives the Node object's re-creation.
      if (!pod) await existing("nodes", "", node);
      extra[`${prefix}node-name`] = [text(node["name"])];
      if (node["uid"] !== undefined) extra[`${prefix}node-uid`] = [text(node["uid"])];
    }
    return { user: serviceAccountUser(namespace, name, text(account["uid"]), extra), audiences: common };
  };

  return {
    review,
    async authenticate(credentials) {
      if (credentials.bearerToken === undefined) return undefined;
      return (await review(credentials.bearerToken, ownAudiences))?.user;
    },
  };
}

/** Who a service account is to the authorizer. */
export function serviceAccountUser(
  namespace: string,
  name: string,
  uid: string,
  extra: UserInfo["extra"] = {},
): UserInfo {
  return {
    name: `system:serviceaccount:${namespace}:${name}`,
    uid,
    groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
    extra,
  };
}

const prefix = "authentication.kubernetes.io/";
const text = (value: unknown): string => (typeof value === "string" ? value : "");
const record = (value: unknown): Claims | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Claims) : undefined;
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [value]);
