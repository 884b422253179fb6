// JSON Web Tokens as service accounts use them: compact serialisation, ES256 to sign, ES256 and RS256 to verify
// (RFC 7515, 7518), keys named by the SHA-256 of their SPKI as upstream does.
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";

export type Claims = { readonly [claim: string]: unknown };

export interface VerificationKey {
  readonly id: string;
  readonly key: KeyObject;
  readonly algorithm: "ES256" | "RS256";
}

/** Longer than any token this server issues; more is not worth a signature check. */
const maxTokenBytes = 16 * 1024;

export function verificationKey(publicPem: string): VerificationKey {
  const key = createPublicKey(publicPem);
  return { id: keyId(key), key, algorithm: key.asymmetricKeyType === "rsa" ? "RS256" : "ES256" };
}

export function createSigner(privatePem: string): (claims: Claims) => string {
  const key = createPrivateKey(privatePem);
  const algorithm = key.asymmetricKeyType === "rsa" ? "RS256" : "ES256";
  const header = encode({ alg: algorithm, kid: keyId(createPublicKey(privatePem)) });
  return (claims) => {
    const signed = `${header}.${encode(claims)}`;
    const signature = sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" });
    return `${signed}.${signature.toString("base64url")}`;
  };
}

/** The claims without any check; undefined when `token` is no JWT. */
export function peekClaims(token: string): Claims | undefined {
  const parts = token.length > maxTokenBytes ? [] : token.split(".");
  return parts.length === 3 ? decode(parts[1] ?? "") : undefined;
}

/** The claims of a token that one of `keys` signed; undefined when none did. */
export function verifyClaims(token: string, keys: readonly VerificationKey[]): Claims | undefined {
  const parts = token.length > maxTokenBytes ? [] : token.split(".");
  if (parts.length !== 3) return undefined;
  const header = decode(parts[0] ?? "");
  const signature = Buffer.from(parts[2] ?? "", "base64url");
  const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
  for (const candidate of keys) {
    // The algorithm is the key's, never the token's word alone.
    if (!header || header["alg"] !== candidate.algorithm) continue;
    if (header["kid"] !== undefined && header["kid"] !== candidate.id) continue;
    if (verify("sha256", signed, { key: candidate.key, dsaEncoding: "ieee-p1363" }, signature)) {
      return decode(parts[1] ?? "");
    }
  }
  return undefined;
}

/** The JWKS document served at /openid/v1/jwks. */
export function keySet(keys: readonly VerificationKey[]): { keys: object[] } {
  return {
    keys: keys.map(({ id, key, algorithm }) => ({
      use: "sig",
      kid: id,
      alg: algorithm,
      ...key.export({ format: "jwk" }),
    })),
  };
}

function keyId(key: KeyObject): string {
  return createHash("sha256")
    .update(key.export({ type: "spki", format: "der" }))
    .digest("base64url");
}

const encode = (value: object): string => Buffer.from(JSON.stringify(value), "utf8").toString("base64url");

function decode(part: string): Claims | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Claims) : undefined;
  } catch {
    // Not JSON: not a token of ours, which is all the caller asks.
    return undefined;
  }
}
