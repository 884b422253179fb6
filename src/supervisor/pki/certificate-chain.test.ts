import { X509Certificate } from "node:crypto";
import { expect, test, vi } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { isServerNamed, leadsTo } from "#wire/certificate-chain.ts";
import { generateKey, type Issuer, issueCertificate } from "./certificate.ts";

const random = seededRandom(1);
/** Long over. */
const times = { notBeforeMs: Date.UTC(2001, 0, 1), notAfterMs: Date.UTC(2002, 0, 1) };
const authority = (commonName: string, key: string, issuer?: Issuer): string =>
  issueCertificate({ commonName, usage: "authority", ...times }, key, issuer, random);
const x509 = (...pems: string[]) => pems.map((pem) => new X509Certificate(pem));

const keys = { old: generateKey(), next: generateKey(), last: generateKey(), leaf: generateKey() };
const old = authority("old", keys.old);
const next = authority("next", keys.next);
const last = authority("last", keys.last);
const nextByOld = authority("next", keys.next, { certificate: old, key: keys.old });
const lastByNext = authority("last", keys.last, { certificate: next, key: keys.next });
const leafBy = (certificate: string, key: string, usage: "server" | "client" = "server") =>
  issueCertificate(
    { commonName: "x", usage, dnsNames: ["hub.lan"], ips: ["192.0.2.1"], ...times },
    keys.leaf,
    { certificate, key },
    random,
  );
const leaf = leafBy(last, keys.last);
/** Of the right name, by another key. */
const impostor = authority("last", keys.leaf);

test.each<[string, string, string[], string[], boolean]>([
  ["its own authority", leaf, [], [last], true],
  ["one that vouched for the one before", leaf, [lastByNext, nextByOld], [old], true],
  ["in another order, with more beside", leaf, [last, next, nextByOld, lastByNext, old], [old], true],
  ["a link is missing", leaf, [lastByNext], [old], false],
  ["nothing is known", leaf, [lastByNext, nextByOld, old], [], false],
  ["another authority of the same name", leaf, [], [impostor], false],
  [
    "an authority that somebody else sent along",
    leafBy(impostor, keys.leaf),
    [impostor, lastByNext, nextByOld],
    [old],
    false,
  ],
  ["a leaf is no authority", leafBy(leafBy(last, keys.last), keys.leaf), [leafBy(last, keys.last)], [last], false],
  ["the known key under another certificate", leaf, [], [lastByNext], true],
])("%s", (_name, of, others, anchors, isKnown) => {
  const [one] = x509(of);
  expect(leadsTo(one!, x509(...others), x509(...anchors))).toBe(isKnown);
});

test("whoever sends a heap of authorities is not worth more than a hundred signatures", () => {
  // Each was signed by the one before it.
  const heap: string[] = [];
  let by: Issuer | undefined;
  for (let i = 0; i < 32; i++) {
    const key = generateKey();
    const certificate = authority("one of many", key, by);
    heap.push(certificate);
    by = { certificate, key };
  }
  const [first] = x509(leafBy(by!.certificate, by!.key));
  // All have one name, and a stranger's need not say by which key they were signed.
  const issued = vi.spyOn(X509Certificate.prototype, "checkIssued").mockReturnValue(true);
  const verify = vi.spyOn(X509Certificate.prototype, "verify");
  try {
    expect(leadsTo(first!, x509(...heap), x509(old))).toBe(false);
    expect(verify.mock.calls.length).toBe(100);
  } finally {
    issued.mockRestore();
    verify.mockRestore();
  }
});

test("a circle ends", () => {
  const nextByLast = authority("next", keys.next, { certificate: last, key: keys.last });
  expect(leadsTo(x509(leaf)[0]!, x509(nextByLast, lastByNext), x509(old))).toBe(false);
});

test.each([
  ["hub.lan", true],
  ["other.lan", false],
  ["x", false],
  ["192.0.2.1", true],
  ["192.0.2.2", false],
  ["::1", false],
])("named %s", (host, isNamed) => {
  expect(isServerNamed(x509(leaf)[0]!, host)).toBe(isNamed);
});

test("what is for clients speaks for no server", () => {
  expect(isServerNamed(x509(leafBy(last, keys.last, "client"))[0]!, "hub.lan")).toBe(false);
});
