// Signing requests for tests.
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import * as der from "./der.ts";

export interface RequestSpec {
  readonly commonName: string;
  readonly organizations?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ips?: readonly (readonly number[])[];
}

/** The request as PEM, and the key that signed it. */
export function makeSigningRequest(spec: RequestSpec): { readonly request: string; readonly key: string } {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = privateKey.export({ type: "sec1", format: "pem" }).toString();
  const attribute = (id: string, value: string) =>
    der.setOf(der.sequence(der.objectIdentifier(id), der.utf8String(value)));
  const subject = der.sequence(
    ...(spec.organizations ?? []).map((each) => attribute("2.5.4.10", each)),
    attribute("2.5.4.3", spec.commonName),
  );
  const names = [
    ...(spec.dnsNames ?? []).map((each) => der.implicit(2, Buffer.from(each, "latin1"))),
    ...(spec.ips ?? []).map((each) => der.implicit(7, Uint8Array.from(each))),
  ];
  const extension = der.sequence(der.objectIdentifier("2.5.29.17"), der.octetString(der.sequence(...names)));
  const attributes =
    names.length === 0
      ? []
      : [der.sequence(der.objectIdentifier("1.2.840.113549.1.9.14"), der.setOf(der.sequence(extension)))];
  const info = der.sequence(
    der.integer(Uint8Array.of(0)),
    subject,
    createPublicKey(key).export({ type: "spki", format: "der" }),
    der.explicit(0, ...attributes),
  );
  const signature = sign("sha256", info, { key: createPrivateKey(key), dsaEncoding: "der" });
  const algorithm = der.sequence(der.objectIdentifier("1.2.840.10045.4.3.2"));
  const bytes = der.sequence(info, algorithm, der.bitString(signature));
  const lines =
    Buffer.from(bytes)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  const request = `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join("\n")}\n-----END CERTIFICATE REQUEST-----\n`;
  return { request, key };
}
