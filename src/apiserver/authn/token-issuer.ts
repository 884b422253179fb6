// Issues service-account tokens (the TokenRequest API) and publishes the keys to check them with (/openid/v1/jwks,
// /.well-known/openid-configuration). Upstream counterpart: pkg/serviceaccount. Lifetimes are not extended silently as
// upstream's --service-account-extend-token-expiration does: bound and short is the point.
import type { Clock, Random } from "#base/clock.ts";
import { createSigner, keySet, verificationKey } from "./jwt.ts";

export interface TokenIssuerOptions {
  /** `iss` claim; default https://kubernetes.default.svc.cluster.local */
  readonly issuer?: string;
  /** Audiences of this API server; default the issuer. The first is used where a request names none. */
  readonly audiences?: readonly string[];
  /** PEM of the signing key. */
  readonly privateKey: string;
  /** PEM of all keys that verify. */
  readonly publicKeys: readonly string[];
}

export interface ObjectReference {
  readonly name: string;
  readonly uid: string;
}

export interface TokenSpec {
  readonly namespace: string;
  readonly serviceAccount: ObjectReference;
  /** Empty: the server's own. */
  readonly audiences?: readonly string[];
  /** Default 3600. */
  readonly expirationSeconds?: number;
  /** What the token dies with. */
  readonly pod?: ObjectReference;
  /** The pod's node, where it is already bound. */
  readonly node?: ObjectReference;
  readonly secret?: ObjectReference;
}

export interface IssuedToken {
  readonly token: string;
  /** Its `jti` claim. */
  readonly id: string;
  readonly expirationMs: number;
  readonly audiences: readonly string[];
}

export interface TokenIssuer {
  readonly issuer: string;
  readonly audiences: readonly string[];
  issue(spec: TokenSpec): IssuedToken;
  /** Body of /openid/v1/jwks. */
  jwks(): { keys: object[] };
  /** Body of /.well-known/openid-configuration. */
  discovery(jwksUri: string): object;
}

export const defaultIssuer = "https://kubernetes.default.svc.cluster.local";

export function createTokenIssuer(
  options: TokenIssuerOptions,
  dependencies: { readonly clock: Clock; readonly random: Random },
): TokenIssuer {
  const issuer = options.issuer ?? defaultIssuer;
  const audiences = options.audiences ?? [issuer];
  const sign = createSigner(options.privateKey);
  const keys = options.publicKeys.map(verificationKey);
  return {
    issuer,
    audiences,
    issue(spec) {
      const nowSeconds = Math.floor(dependencies.clock.now() / 1000);
      const lifetimeSeconds = spec.expirationSeconds ?? 3600;
      const id = dependencies.random.uuid();
      const aud = spec.audiences && spec.audiences.length > 0 ? spec.audiences : audiences;
      const token = sign({
        aud,
        exp: nowSeconds + lifetimeSeconds,
        iat: nowSeconds,
        iss: issuer,
        jti: id,
        "kubernetes.io": {
          namespace: spec.namespace,
          ...(spec.node ? { node: spec.node } : {}),
          ...(spec.pod ? { pod: spec.pod } : {}),
          ...(spec.secret ? { secret: spec.secret } : {}),
          serviceaccount: spec.serviceAccount,
        },
        nbf: nowSeconds,
        sub: `system:serviceaccount:${spec.namespace}:${spec.serviceAccount.name}`,
      });
      return { token, id, expirationMs: (nowSeconds + lifetimeSeconds) * 1000, audiences: aud };
    },
    jwks: () => keySet(keys),
    discovery: (jwksUri) => ({
      issuer,
      jwks_uri: jwksUri,
      response_types_supported: ["id_token"],
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: [...new Set(keys.map((key) => key.algorithm))],
    }),
  };
}
