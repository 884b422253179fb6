// The certificates of nodes: which there are, who signs them and what stands in them is the server's decision; a node only
// brings a public key. On the node's side: the request, and whether a certificate is due to be asked for again.
import { createPublicKey, X509Certificate } from "node:crypto";
import type { Clock, Random } from "#base/clock.ts";
import { parseSigningRequest } from "#wire/pkcs10.ts";
import { generateKey, issueCertificate, splitPem } from "../pki/certificate.ts";
import { type KeyPair, leafTimes, renewMs, servingNames } from "../pki.ts";

export const leafNames = ["serving-kubelet", "client-kubelet", "client-kube-proxy", "client-k3s-controller"] as const;
export type LeafName = (typeof leafNames)[number];

export interface Leaf {
  readonly authority: "client" | "server";
  /** Of one node, whose name must be proven. */
  readonly ofNode: boolean;
  readonly commonName: (node: string) => string;
  readonly organizations?: readonly string[];
}

export const leaves: Readonly<Record<LeafName, Leaf>> = {
  "serving-kubelet": { authority: "server", ofNode: true, commonName: (node) => node },
  "client-kubelet": {
    authority: "client",
    ofNode: true,
    commonName: (node) => `system:node:${node}`,
    organizations: ["system:nodes"],
  },
  "client-kube-proxy": { authority: "client", ofNode: false, commonName: () => "system:kube-proxy" },
  "client-k3s-controller": { authority: "client", ofNode: false, commonName: () => "system:k3s-controller" },
};

export interface LeafOrder {
  readonly name: LeafName;
  readonly node: string;
  readonly nodeIps: readonly string[];
  /** What came with the request: PKCS #10 in DER, or nothing. */
  readonly request: Uint8Array;
}

/**
 * PEM of the leaf and its authority. Who sent no request gets a key of its own at the end, as old agents expect it.
 * Undefined: the request is none, or not signed by its key.
 */
export function issueLeaf(
  order: LeafOrder,
  authority: KeyPair,
  deps: { readonly clock: Clock; readonly random: Random },
): string | undefined {
  const leaf = leaves[order.name];
  let key = "";
  let publicKey: string;
  if (order.request.length === 0) {
    key = generateKey();
    publicKey = createPublicKey(key).export({ type: "spki", format: "pem" }).toString();
  } else {
    const parsed = parseSigningRequest(pemOf("CERTIFICATE REQUEST", order.request));
    if (!parsed?.isSignatureValid) return undefined;
    publicKey = pemOf("PUBLIC KEY", parsed.publicKey);
  }
  // k3s gives `localhost` as well: nobody asks a node by it, and people ask servers so.
  const names =
    order.name === "serving-kubelet"
      ? {
          ...servingNames({ folder: "", nodeName: order.node, nodeIps: order.nodeIps }).kubelet,
          dnsNames: [order.node],
        }
      : {};
  const [signer = ""] = splitPem(authority.certificate);
  const certificate = issueCertificate(
    {
      commonName: leaf.commonName(order.node),
      ...(leaf.organizations ? { organizations: leaf.organizations } : {}),
      usage: leaf.authority,
      ...names,
      ...leafTimes(authority.certificate, deps.clock.now()),
    },
    publicKey,
    { certificate: signer, key: authority.key },
    deps.random,
  );
  return certificate + authority.certificate + key;
}

/** Whether to ask again: it has another signer, lacks an address, is near its end, or does not belong to the key. */
export function isDue(pair: KeyPair | undefined, authorities: string, ips: readonly string[], nowMs: number): boolean {
  if (!pair) return true;
  try {
    const leaf = new X509Certificate(pair.certificate);
    const isSigned = splitPem(authorities).some((pem) => {
      const authority = new X509Certificate(pem);
      return leaf.checkIssued(authority) && leaf.verify(authority.publicKey);
    });
    const isOwn = createPublicKey(pair.key).equals(leaf.publicKey);
    const lacks = ips.some((ip) => leaf.checkIP(ip) === undefined);
    return !isSigned || !isOwn || lacks || Date.parse(leaf.validTo) - nowMs < renewMs;
  } catch {
    // Half a file after a power cut is no certificate.
    return true;
  }
}

/** Whether the authority that a bundle signs with now has signed it, and not one before. */
export function isOfSigner({ certificate }: KeyPair, bundle: string): boolean {
  try {
    const [leaf, signer] = [new X509Certificate(certificate), new X509Certificate(bundle)];
    return leaf.checkIssued(signer) && leaf.verify(signer.publicKey);
  } catch {
    // Half a file after a power cut.
    return false;
  }
}

function pemOf(label: string, bytes: Uint8Array): string {
  return `-----BEGIN ${label}-----\n${Buffer.from(bytes).toString("base64")}\n-----END ${label}-----\n`;
}
