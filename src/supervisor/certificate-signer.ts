// Signs what certificates.k8s.io approved, with the cluster's authorities: clients' certificates with the one that the API
// server believes for clients, kubelets' serving certificates with the one that clients believe for servers. Whether a
// request may be signed is decided before (controllers/certificates). Nothing outlives the authority that signed it, and a
// clock that is behind this software does not count. Upstream counterpart: pkg/controller/certificates/authority.
import { X509Certificate } from "node:crypto";
import type { Clock, Random } from "#base/clock.ts";
import { parseSigningRequest } from "#wire/pkcs10.ts";
import { type Issuer, issueForeignCertificate } from "./pki/certificate.ts";
import { issueTime } from "./pki.ts";

interface CertificateOrder {
  readonly authority: "client" | "server";
  /** PEM of the request. */
  readonly request: string;
  readonly usages: readonly string[];
  readonly lifetimeSeconds: number;
}

/** Whoever verifies it may have a clock that is behind. Upstream: five minutes. */
const backdateMs = 300_000;

/** PEM of the certificate; throws where the request cannot be read. */
export function createCertificateSigner(
  authorities: () => Readonly<Record<CertificateOrder["authority"], Issuer>>,
  dependencies: { readonly clock: Clock; readonly random: Random },
): (order: CertificateOrder) => string {
  return ({ authority, request, usages, lifetimeSeconds }) => {
    const parsed = parseSigningRequest(request);
    if (!parsed?.isSignatureValid) throw new Error("unable to parse csr: its signature does not fit its key");
    const issuer = authorities()[authority];
    const nowMs = issueTime(dependencies.clock.now());
    const lastMs = Date.parse(new X509Certificate(issuer.certificate).validTo);
    const notAfterMs = Math.min(nowMs + lifetimeSeconds * 1000 - backdateMs, lastMs);
    const times = { notBeforeMs: nowMs - backdateMs, notAfterMs };
    return issueForeignCertificate({ ...parsed, usages, ...times }, issuer, dependencies.random);
  };
}
