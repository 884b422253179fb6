// Client certificates: common name is the user, organisations are the groups. A certificate counts when the client
// authority signed it, it is valid now and it is meant for clients. Where authorities have been replaced and this process has
// not heard of it, the new one counts if the one that signs here vouches for it: the client sends that along. Those above it in
// a bundle vouch for nobody, as they may be an owner's, who has other uses for them.
// Upstream counterpart: authentication/request/x509.
import { createHash, X509Certificate } from "node:crypto";
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { unauthorized } from "#model/status.ts";
import { leadsTo } from "#wire/certificate-chain.ts";
import type { Authenticator } from "./authenticator.ts";
import type { UserInfo } from "./user.ts";

export interface X509AuthenticatorOptions {
  /** PEM of the client authority or authorities. The first of them signs. */
  readonly clientCa: string;
}

/** Verified certificates remembered; a cluster has fewer clients, and one entry is below 1 KiB. */
const maxRemembered = 1000;

interface Verified {
  readonly user: UserInfo;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export function createX509Authenticator(
  options: X509AuthenticatorOptions,
  dependencies: {
    readonly clock: Clock;
    readonly log: Logger;
    /** Somebody came with a certificate of an authority that is not known here, and that was vouched for. */
    readonly onVouched?: () => void;
  },
): Authenticator {
  const authorities = (options.clientCa.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map(
    (pem) => new X509Certificate(pem),
  );
  const remembered = new Map<string, Verified>();
  /** Requests of one connection come with the same one. An error: nobody vouches for it, which looking again does not change. */
  const byCertificate = new WeakMap<Uint8Array, Verified | Error>();

  const verify = (der: Uint8Array, intermediates: () => readonly Uint8Array[]): Verified => {
    let found = byCertificate.get(der);
    if (!found) {
      try {
        found = verifyNew(der, intermediates);
      } catch (error) {
        found = error instanceof Error ? error : new Error(messageOf(error));
      }
      byCertificate.set(der, found);
    }
    if (found instanceof Error) throw found;
    return found;
  };
  const verifyNew = (der: Uint8Array, intermediates: () => readonly Uint8Array[]): Verified => {
    const fingerprint = createHash("sha256").update(der).digest("hex");
    const known = remembered.get(fingerprint);
    if (known) return known;
    const certificate = new X509Certificate(der);
    const isSigned = authorities.some((ca) => certificate.checkIssued(ca) && certificate.verify(ca.publicKey));
    const isVouched =
      !isSigned &&
      leadsTo(
        certificate,
        intermediates().map((one) => new X509Certificate(one)),
        authorities.slice(0, 1),
      );
    if (!isSigned && !isVouched) throw new Error("certificate signed by unknown authority");
    // Absent extended usage allows everything; 2.5.29.37.0 is "any".
    const usages: readonly string[] | undefined = certificate.keyUsage;
    if (usages && !usages.includes(clientAuth) && !usages.includes(anyUsage)) {
      throw new Error("certificate specifies an incompatible key usage");
    }
    const subject = certificate.toLegacyObject().subject as unknown as Record<string, string | string[] | undefined>;
    const name = listOf(subject["CN"]).at(-1) ?? "";
    if (name === "") throw new Error("certificate without common name");
    const entry: Verified = {
      user: {
        name,
        groups: [...listOf(subject["O"]), "system:authenticated"],
        extra: { "authentication.kubernetes.io/credential-id": [`X509SHA256=${fingerprint}`] },
      },
      notBeforeMs: Date.parse(certificate.validFrom),
      notAfterMs: Date.parse(certificate.validTo),
    };
    if (remembered.size >= maxRemembered) {
      const [oldest] = remembered.keys();
      if (oldest !== undefined) remembered.delete(oldest);
    }
    remembered.set(fingerprint, entry);
    if (isVouched) dependencies.onVouched?.();
    return entry;
  };

  return {
    async authenticate(credentials) {
      if (!credentials.clientCertificate) return undefined;
      try {
        const verified = verify(credentials.clientCertificate, credentials.clientIntermediates ?? none);
        const nowMs = dependencies.clock.now();
        if (nowMs < verified.notBeforeMs) throw new Error("certificate is not yet valid");
        if (nowMs > verified.notAfterMs) throw new Error("certificate has expired");
        return verified.user;
      } catch (error) {
        dependencies.log.debug("client certificate refused", { error: messageOf(error) });
        throw unauthorized();
      }
    },
  };
}

const none = (): readonly Uint8Array[] => [];
const clientAuth = "1.3.6.1.5.5.7.3.2";
const anyUsage = "2.5.29.37.0";

function listOf(value: string | string[] | undefined): string[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value];
}
