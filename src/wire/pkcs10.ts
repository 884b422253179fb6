// Certificate signing requests (PKCS #10, RFC 2986) as far as signers and admission look at them: subject, key,
// alternative names, and that whoever asks holds the key. Bounded by the reader: one level at a time, no recursion.
import { createPublicKey, verify } from "node:crypto";
import * as der from "./der.ts";

export interface CertificateSigningRequest {
  readonly commonName: string;
  readonly organizations: readonly string[];
  /** The subject as it was asked for, DER. */
  readonly subject: Uint8Array;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  readonly dnsNames: readonly string[];
  readonly emailAddresses: readonly string[];
  readonly uris: readonly string[];
  /** Four or sixteen bytes each. */
  readonly ips: readonly Uint8Array[];
  /** The extension of alternative names, as it was asked for, DER. */
  readonly alternativeNames: Uint8Array | undefined;
  readonly isSignatureValid: boolean;
}

const commonNameId = "2.5.4.3";
const organizationId = "2.5.4.10";
const extensionRequestId = "1.2.840.113549.1.9.14";
const alternativeNamesId = "2.5.29.17";
/** Signature algorithms by the hex of their identifier; null: the algorithm brings its own digest (Ed25519). */
const digests = new Map<string, string | null>([
  [idHex("1.2.840.10045.4.3.2"), "sha256"],
  [idHex("1.2.840.10045.4.3.3"), "sha384"],
  [idHex("1.2.840.10045.4.3.4"), "sha512"],
  [idHex("1.2.840.113549.1.1.11"), "sha256"],
  [idHex("1.2.840.113549.1.1.12"), "sha384"],
  [idHex("1.2.840.113549.1.1.13"), "sha512"],
  [idHex("1.3.101.112"), null],
]);

function idHex(dotted: string): string {
  return Buffer.from(der.objectIdentifier(dotted)).toString("hex");
}

/** Undefined: no PEM block of that type, or not a request, or one with an address that is none. */
export function parseSigningRequest(pem: string): CertificateSigningRequest | undefined {
  const block = /-----BEGIN CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE REQUEST-----/.exec(pem);
  if (!block) return undefined;
  const [outer] = der.elements(Buffer.from(block[1]!, "base64"));
  const [info, algorithm, signature] = der.elements(outer?.value ?? new Uint8Array());
  if (outer?.tag !== 0x30 || info?.tag !== 0x30 || !algorithm || signature?.tag !== 0x03) return undefined;
  const [version, subject, publicKey, attributes] = der.elements(info.value);
  if (version?.tag !== 0x02 || subject?.tag !== 0x30 || publicKey?.tag !== 0x30) return undefined;
  const names = [...attributesOf(subject.value)];
  const alternativeNames = attributes?.tag === 0xa0 ? alternativeNamesOf(attributes.value) : undefined;
  const general = [...generalNames(alternativeNames)];
  const ips = general.filter((name) => name.tag === 0x87).map(({ value }) => value);
  if (ips.some(({ length }) => length !== 4 && length !== 16)) return undefined;
  const texts = (tag: number) =>
    general.filter((name) => name.tag === tag).map(({ value }) => Buffer.from(value).toString("latin1"));
  return {
    commonName: names.findLast(([id]) => id === idHex(commonNameId))?.[1] ?? "",
    organizations: names.filter(([id]) => id === idHex(organizationId)).map(([, text]) => text),
    subject: subject.whole,
    publicKey: publicKey.whole,
    emailAddresses: texts(0x81),
    dnsNames: texts(0x82),
    uris: texts(0x86),
    ips,
    alternativeNames,
    isSignatureValid: holdsKey(info.whole, algorithm.value, signature.value, publicKey.whole),
  };
}

/** Identifier (hex) and text of each attribute of a name. */
function* attributesOf(name: Uint8Array): Generator<readonly [string, string]> {
  for (const set of der.elements(name)) {
    for (const pair of der.elements(set.value)) {
      const [id, value] = der.elements(pair.value);
      if (!id || !value) continue;
      // BMPString is the one text that is not bytes of characters.
      const encoding = value.tag === 0x0c ? "utf8" : "latin1";
      yield [Buffer.from(id.whole).toString("hex"), Buffer.from(value.value).toString(encoding)];
    }
  }
}

function alternativeNamesOf(attributes: Uint8Array): Uint8Array | undefined {
  for (const attribute of der.elements(attributes)) {
    const [id, values] = der.elements(attribute.value);
    if (!id || !values || Buffer.from(id.whole).toString("hex") !== idHex(extensionRequestId)) continue;
    const [extensions] = der.elements(values.value);
    for (const extension of der.elements(extensions?.value ?? new Uint8Array())) {
      const [extensionId] = der.elements(extension.value);
      if (extensionId && Buffer.from(extensionId.whole).toString("hex") === idHex(alternativeNamesId)) {
        return extension.whole;
      }
    }
  }
  return undefined;
}

function* generalNames(extension: Uint8Array | undefined) {
  const [outer] = der.elements(extension ?? new Uint8Array());
  const octets = [...der.elements(outer?.value ?? new Uint8Array())].find(({ tag }) => tag === 0x04);
  const [list] = der.elements(octets?.value ?? new Uint8Array());
  yield* der.elements(list?.value ?? new Uint8Array());
}

function holdsKey(info: Uint8Array, algorithm: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  const [id] = der.elements(algorithm);
  const digest = id && digests.get(Buffer.from(id.whole).toString("hex"));
  if (digest === undefined) return false;
  try {
    const key = createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
    // The first byte of a bit string says how many bits at its end do not count.
    return verify(digest, info, key, signature.subarray(1));
  } catch {
    // A key that cannot be read signs nothing.
    return false;
  }
}
