// X.509 v3 certificates (RFC 5280): authorities and leaves. Keys made here are ECDSA P-256; an authority that somebody else
// made may sign with another kind. The DER is built here, keys and signatures come from node:crypto. Keys are SEC 1 PEM
// ("EC PRIVATE KEY"), as k3s writes them.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  X509Certificate,
} from "node:crypto";
import { assert } from "#base/assert.ts";
import type { Random } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import * as der from "#wire/der.ts";

export interface CertificateRequest {
  readonly commonName: string;
  readonly organizations?: readonly string[];
  readonly usage: "authority" | "client" | "server" | "server+client";
  readonly dnsNames?: readonly string[];
  readonly ips?: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface Issuer {
  /** PEM; the first certificate in it signs. */
  readonly certificate: string;
  readonly key: string;
}

/** A new P-256 key as PEM. */
export function generateKey(): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ type: "sec1", format: "pem" }).toString();
}

/** The certificate's PEM; without `issuer` it is signed by its own key, with one the public key is enough. */
export function issueCertificate(
  request: CertificateRequest,
  key: string,
  issuer: Issuer | undefined,
  random: Random,
): string {
  const publicKey = createPublicKey(key);
  const subject = nameOf(request.commonName, request.organizations ?? []);
  const ownKeyId = keyId(publicKey);
  const from = issuer ? identityOf(issuer.certificate) : { subject, keyId: ownKeyId };
  return assemble(
    {
      issuerName: from.subject,
      notBeforeMs: request.notBeforeMs,
      notAfterMs: request.notAfterMs,
      subject,
      publicKey: publicKey.export({ type: "spki", format: "der" }),
      extensions: extensionsOf(request, ownKeyId, from.keyId),
    },
    issuer?.key ?? key,
    random,
  );
}

/** A request for a certificate (PKCS #10) as DER. */
export function signingRequest(commonName: string, key: string): Uint8Array {
  const info = der.sequence(
    der.integer(Uint8Array.of(0)),
    nameOf(commonName, []),
    createPublicKey(key).export({ type: "spki", format: "der" }),
    der.explicit(0),
  );
  const signature = sign("sha256", info, { key: createPrivateKey(key), dsaEncoding: "der" });
  return der.sequence(info, ecdsaWithSha256(), der.bitString(signature));
}

/** A leaf for somebody else's key, with the names that were asked for. */
export interface ForeignRequest {
  /** DER, as they stand in the request. */
  readonly subject: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly alternativeNames: Uint8Array | undefined;
  /** As certificates.k8s.io names them; what has no bit or purpose is left out. */
  readonly usages: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export function issueForeignCertificate(request: ForeignRequest, issuer: Issuer, random: Random): string {
  const from = identityOf(issuer.certificate);
  const bits = request.usages.reduce((sum, usage) => sum | (keyUsageBits.get(usage) ?? 0), 0);
  const purposes = request.usages.flatMap((usage) => purposeIds.get(usage) ?? []);
  const ownKeyId = createHash("sha1").update(request.publicKey).digest();
  const extensions = [
    ...(bits > 0 ? [extension("2.5.29.15", true, der.bitString(Uint8Array.of(bits), trailingZeros(bits)))] : []),
    ...(purposes.length > 0
      ? [extension("2.5.29.37", false, der.sequence(...purposes.map((id) => der.objectIdentifier(id))))]
      : []),
    extension("2.5.29.19", true, der.sequence()),
    extension("2.5.29.14", false, der.octetString(ownKeyId)),
    extension("2.5.29.35", false, der.sequence(der.implicit(0, from.keyId))),
    ...(request.alternativeNames ? [request.alternativeNames] : []),
  ];
  return assemble({ ...request, issuerName: from.subject, extensions }, issuer.key, random);
}

/** Key usages as bits of the one byte that holds those of leaves, first bit leftmost. */
const keyUsageBits: ReadonlyMap<string, number> = new Map([
  ["digital signature", 0x80],
  ["signing", 0x80],
  ["content commitment", 0x40],
  ["key encipherment", 0x20],
  ["data encipherment", 0x10],
  ["key agreement", 0x08],
]);
const purposeIds: ReadonlyMap<string, string> = new Map([
  ["any", "2.5.29.37.0"],
  ["server auth", "1.3.6.1.5.5.7.3.1"],
  ["client auth", "1.3.6.1.5.5.7.3.2"],
  ["code signing", "1.3.6.1.5.5.7.3.3"],
  ["email protection", "1.3.6.1.5.5.7.3.4"],
  ["s/mime", "1.3.6.1.5.5.7.3.4"],
  ["ipsec end system", "1.3.6.1.5.5.7.3.5"],
  ["ipsec tunnel", "1.3.6.1.5.5.7.3.6"],
  ["ipsec user", "1.3.6.1.5.5.7.3.7"],
  ["timestamping", "1.3.6.1.5.5.7.3.8"],
  ["ocsp signing", "1.3.6.1.5.5.7.3.9"],
]);
const trailingZeros = (bits: number): number => 31 - Math.clz32(bits & -bits);

interface CertificateBody {
  readonly issuerName: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly subject: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly extensions: readonly Uint8Array[];
}

function assemble(parts: CertificateBody, issuerKey: string, random: Random): string {
  const serial = random.bytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40; // positive and always 16 bytes
  const key = createPrivateKey(issuerKey);
  const kind = signatureKinds.get(key.asymmetricKeyType ?? "");
  if (!kind)
    throw new AppError("PKI_AUTHORITY", `an authority with a key of type ${key.asymmetricKeyType} cannot sign`);
  const body = der.sequence(
    der.explicit(0, der.integer(Uint8Array.of(2))),
    der.integer(serial),
    kind.algorithm(),
    parts.issuerName,
    der.sequence(der.time(parts.notBeforeMs), der.time(parts.notAfterMs)),
    parts.subject,
    parts.publicKey,
    der.explicit(3, der.sequence(...parts.extensions)),
  );
  const signature = sign(kind.digest, body, { key, dsaEncoding: "der" });
  return pem("CERTIFICATE", der.sequence(body, kind.algorithm(), der.bitString(signature)));
}

const extension = (id: string, critical: boolean, value: Uint8Array): Uint8Array =>
  der.sequence(der.objectIdentifier(id), ...(critical ? [der.boolean(true)] : []), der.octetString(value));

/** The single certificates of a PEM bundle, in order. */
export function splitPem(bundle: string): string[] {
  const blocks: string[] = [];
  let start = bundle.indexOf(beginCertificate);
  while (start >= 0) {
    const end = bundle.indexOf(endCertificate, start);
    if (end < 0) break;
    blocks.push(`${bundle.slice(start, end + endCertificate.length)}\n`);
    start = bundle.indexOf(beginCertificate, end);
  }
  return blocks;
}

const beginCertificate = "-----BEGIN CERTIFICATE-----";
const endCertificate = "-----END CERTIFICATE-----";

const ecdsaWithSha256 = () => der.sequence(der.objectIdentifier("1.2.840.10045.4.3.2"));

/** By node's name of the key; null: the algorithm brings its own digest. */
const signatureKinds: ReadonlyMap<string, { readonly digest: string | null; readonly algorithm: () => Uint8Array }> =
  new Map([
    ["ec", { digest: "sha256", algorithm: ecdsaWithSha256 }],
    // RSA's identifier has a parameter: NULL.
    ["rsa", { digest: "sha256", algorithm: () => rsaWithSha256 }],
    ["ed25519", { digest: null, algorithm: () => der.sequence(der.objectIdentifier("1.3.101.112")) }],
  ]);
const rsaWithSha256 = der.sequence(der.objectIdentifier("1.2.840.113549.1.1.11"), Uint8Array.of(0x05, 0x00));

function nameOf(commonName: string, organizations: readonly string[]): Uint8Array {
  const attribute = (id: string, value: string) =>
    der.setOf(der.sequence(der.objectIdentifier(id), der.utf8String(value)));
  return der.sequence(
    ...organizations.map((organization) => attribute("2.5.4.10", organization)),
    attribute("2.5.4.3", commonName),
  );
}

function keyId(key: KeyObject): Uint8Array {
  return createHash("sha1")
    .update(key.export({ type: "spki", format: "der" }))
    .digest();
}

/** The raw subject and subject key identifier of an authority that somebody else may have made. */
function identityOf(certificate: string): { subject: Uint8Array; keyId: Uint8Array } {
  const x509 = new X509Certificate(certificate);
  const [outer] = der.elements(x509.raw);
  const [body] = der.elements(outer?.value ?? new Uint8Array());
  const fields = [...der.elements(body?.value ?? new Uint8Array())];
  // version [0] (absent in v1), serial, algorithm, issuer, validity, subject, key, …, extensions [3]
  const first = fields[0]?.tag === 0xa0 ? 1 : 0;
  const subject = fields[first + 4]?.whole;
  assert(subject, "certificate without subject");
  const [list] = der.elements(fields.find((field) => field.tag === 0xa3)?.value ?? new Uint8Array());
  const wanted = Buffer.from(der.objectIdentifier("2.5.29.14"));
  for (const extension of der.elements(list?.value ?? new Uint8Array())) {
    const parts = [...der.elements(extension.value)];
    if (!parts[0] || !wanted.equals(parts[0].whole)) continue;
    const [id] = der.elements(parts.at(-1)?.value ?? new Uint8Array());
    if (id) return { subject, keyId: id.value };
  }
  return { subject, keyId: keyId(x509.publicKey) };
}

function extensionsOf(request: CertificateRequest, ownKeyId: Uint8Array, issuerKeyId: Uint8Array): Uint8Array[] {
  const isAuthority = request.usage === "authority";
  // digitalSignature | keyEncipherment, and keyCertSign for authorities: bits 0, 2 and 5 from the left.
  const keyUsage = isAuthority ? der.bitString(Uint8Array.of(0xa4), 2) : der.bitString(Uint8Array.of(0xa0), 5);
  const out = [
    extension("2.5.29.15", true, keyUsage),
    extension("2.5.29.19", true, isAuthority ? der.sequence(der.boolean(true)) : der.sequence()),
    extension("2.5.29.14", false, der.octetString(ownKeyId)),
    extension("2.5.29.35", false, der.sequence(der.implicit(0, issuerKeyId))),
  ];
  const purposes: Uint8Array[] = [];
  if (request.usage.startsWith("server")) purposes.push(der.objectIdentifier("1.3.6.1.5.5.7.3.1"));
  if (request.usage.endsWith("client")) purposes.push(der.objectIdentifier("1.3.6.1.5.5.7.3.2"));
  if (purposes.length > 0) out.push(extension("2.5.29.37", false, der.sequence(...purposes)));
  const names = [
    ...(request.dnsNames ?? []).map((name) => der.implicit(2, Buffer.from(name, "latin1"))),
    ...(request.ips ?? []).map((ip) => der.implicit(7, ipBytes(ip))),
  ];
  if (names.length > 0) out.push(extension("2.5.29.17", false, der.sequence(...names)));
  return out;
}

/** 4 or 16 bytes of an address in text form. */
export function ipBytes(ip: string): Uint8Array {
  if (!ip.includes(":")) return Uint8Array.from(ip.split(".").map(Number));
  const [head = "", tail] = ip.split("::");
  const groups = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const all = [...left, ...Array<string>(8 - left.length - right.length).fill("0"), ...right];
  return Uint8Array.from(all.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff]));
}

function pem(label: string, bytes: Uint8Array): string {
  const lines =
    Buffer.from(bytes)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
