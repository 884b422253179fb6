import { createPrivateKey, X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { createCertificateSigner } from "./certificate-signer.ts";
import { generateKey, issueCertificate } from "./pki/certificate.ts";

const clock = new FakeClock(Date.UTC(2027, 0, 1));
const random = seededRandom(1);
const times = { notBeforeMs: 0, notAfterMs: clock.now() + 1e12 };
const key = generateKey();
const certificate = issueCertificate({ commonName: "ca", usage: "authority", ...times }, key, undefined, random);
const both = { client: { certificate, key }, server: { certificate, key } };
const sign = createCertificateSigner(() => both, { clock, random });

test("a certificate has what was asked for and no more", () => {
  const { request, key: own } = makeSigningRequest({
    commonName: "system:node:a",
    organizations: ["system:nodes"],
    dnsNames: ["a"],
    ips: [[10, 0, 0, 1]],
  });
  const usages = ["digital signature", "key encipherment", "server auth"];
  const signed = new X509Certificate(sign({ authority: "server", request, usages, lifetimeSeconds: 3600 }));
  expect(signed.subject).toBe("O=system:nodes\nCN=system:node:a");
  expect(signed.subjectAltName).toBe("DNS:a, IP Address:10.0.0.1");
  expect(signed.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
  expect(signed.ca).toBe(false);
  expect(signed.checkIssued(new X509Certificate(certificate))).toBe(true);
  expect(signed.verify(new X509Certificate(certificate).publicKey)).toBe(true);
  expect(signed.checkPrivateKey(createPrivateKey(own))).toBe(true);
  expect(Date.parse(signed.validTo) - clock.now()).toBe(3600_000 - 300_000);
  expect(Date.parse(signed.validFrom)).toBe(clock.now() - 300_000);
});

test.each<[string, number, number, number]>([
  ["1970", 0, Date.UTC(2026, 10, 1) - 300_000, Date.UTC(2026, 10, 1) + 3600_000 - 300_000],
  ["ten years ahead", Date.UTC(2036, 0, 1), Date.UTC(2036, 0, 1) - 300_000, Date.UTC(2036, 0, 1) + 3600_000 - 300_000],
  ["after its authority", clock.now() + 2e12, clock.now() + 2e12 - 300_000, clock.now() + 1e12],
])("signed in %s", (_name, nowMs, fromMs, untilMs) => {
  const at = createCertificateSigner(() => both, { clock: new FakeClock(nowMs), random });
  const { request } = makeSigningRequest({ commonName: "x" });
  const signed = new X509Certificate(at({ authority: "client", request, usages: [], lifetimeSeconds: 3600 }));
  const seconds = (ms: number) => Math.floor(ms / 1000);
  expect([signed.validFrom, signed.validTo].map((text) => seconds(Date.parse(text)))).toEqual(
    [fromMs, untilMs].map(seconds),
  );
});

test("a request that is not its key's is not signed", () => {
  const { request } = makeSigningRequest({ commonName: "plain" });
  const order = { authority: "client", usages: [], lifetimeSeconds: 600 } as const;
  const der = Buffer.from(request.replace(/-----.*-----|\s/g, ""), "base64");
  const encoded = () =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
  expect(sign({ ...order, request: encoded() })).toContain("BEGIN CERTIFICATE");
  // As readable as before, for another name.
  der.write("plane", der.indexOf("plain"));
  expect(() => sign({ ...order, request: encoded() })).toThrow("its signature does not fit");
});
