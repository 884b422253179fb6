// Client certificates of authorities that are not known here: who may vouch for them, and who may not.
import { X509Certificate } from "node:crypto";
import { expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { nextAuthorities } from "#supervisor/authorities.ts";
import { generateKey, issueCertificate, splitPem } from "#supervisor/pki/certificate.ts";
import { type KeyPair, makeAuthority } from "#supervisor/pki.ts";
import { createX509Authenticator } from "./x509.ts";

const nowMs = Date.UTC(2027, 0, 1);
const clock = { ...systemClock, now: () => nowMs };

function authority(commonName: string, issuer?: KeyPair): KeyPair {
  const key = generateKey();
  const own = makeAuthority({ commonName, key, nowMs, ...(issuer ? { issuer } : {}) }, systemRandom);
  return { certificate: own + (issuer?.certificate ?? ""), key };
}
function client(by: KeyPair): KeyPair {
  const key = generateKey();
  const order = { commonName: "ann", usage: "client", notBeforeMs: 0, notAfterMs: nowMs + 1e9 } as const;
  return { certificate: issueCertificate(order, key, by, systemRandom) + by.certificate, key };
}
function next(by: KeyPair): KeyPair {
  const made = nextAuthorities({ ClientCA: by.certificate, ClientCAKey: by.key }, nowMs, systemRandom);
  return { certificate: made.ClientCA ?? "", key: made.ClientCAKey ?? "" };
}

const first = authority("first");
const second = next(first);
const third = next(second);
const root = authority("an owner's root");
const ofRoot = authority("the cluster's", root);
const sibling = authority("the owner's other business", root);

test.each<[string, KeyPair, KeyPair, boolean]>([
  ["the next one", first, client(second), true],
  ["the one after that", first, client(third), true],
  ["the next one, where there were others before", second, client(third), true],
  ["one below the one that signs", ofRoot, client(authority("below", ofRoot)), true],
  ["one beside it, of the same root", ofRoot, client(sibling), false],
  ["one that nobody has vouched for", first, client(authority("first")), false],
  ["one that is none", first, client(client(first)), false],
])("%s", async (_, known, { certificate }, isBelieved) => {
  let vouched = 0;
  const authenticator = createX509Authenticator(
    { clientCa: known.certificate },
    { clock, log: silentLogger, onVouched: () => void vouched++ },
  );
  const [leaf, ...others] = splitPem(certificate).map((pem) => new Uint8Array(new X509Certificate(pem).raw));
  const credentials = { clientCertificate: leaf, clientIntermediates: () => others };
  const user = () =>
    authenticator.authenticate(credentials).then(
      (found) => found?.name,
      () => undefined,
    );
  expect([await user(), await user(), vouched]).toEqual(isBelieved ? ["ann", "ann", 1] : [undefined, undefined, 0]);
});

const derOf = (pem: string) => splitPem(pem).map((one) => new Uint8Array(new X509Certificate(one).raw));

test("the tenth generation is believed by who knows the first, for few signatures", async () => {
  let latest = first;
  for (let i = 1; i < 10; i++) latest = next(latest);
  const [leaf, ...others] = derOf(client(latest).certificate);
  const authenticator = createX509Authenticator({ clientCa: first.certificate }, { clock, log: silentLogger });
  const verify = vi.spyOn(X509Certificate.prototype, "verify");
  try {
    const credentials = { clientCertificate: leaf, clientIntermediates: () => others };
    expect(await authenticator.authenticate(credentials)).toMatchObject({ name: "ann" });
    expect(verify.mock.calls.length).toBeLessThan(50);
  } finally {
    verify.mockRestore();
  }
});

test("a stranger's certificate is looked at once for each connection", async () => {
  const [leaf, ...others] = derOf(client(authority("nobody's")).certificate);
  let asked = 0;
  const clientIntermediates = () => {
    asked++;
    return others;
  };
  const authenticator = createX509Authenticator({ clientCa: first.certificate }, { clock, log: silentLogger });
  for (let i = 0; i < 3; i++) {
    const answer = authenticator.authenticate({ clientCertificate: leaf, clientIntermediates });
    await expect(answer).rejects.toMatchObject({ code: 401 });
  }
  expect(asked).toBe(1);
});
