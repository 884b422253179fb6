import { expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { certificateFacts, certificateLine, certificateTable } from "./certificate-check.ts";
import { generateKey, issueCertificate } from "./pki/certificate.ts";

const dayMs = 24 * 3600_000;
const nowMs = Date.UTC(2027, 0, 1, 12);
const key = generateKey();
const make = (usage: "authority" | "client" | "server", fromMs: number, untilMs: number) =>
  issueCertificate(
    { commonName: `some-${usage}`, organizations: ["o"], usage, notBeforeMs: fromMs, notAfterMs: untilMs },
    key,
    undefined,
    seededRandom(1),
  );

test("files are told as k3s tells them", () => {
  const facts = [
    ...certificateFacts(
      "a.crt",
      make("client", 0, nowMs + 400 * dayMs) + make("authority", 0, nowMs + 10_950 * dayMs),
      nowMs,
    ),
    ...certificateFacts("b.crt", make("server", 0, nowMs + 100 * dayMs), nowMs),
    ...certificateFacts("c.crt", make("server", 0, nowMs - 3600_000), nowMs),
    ...certificateFacts("d.crt", make("server", nowMs + dayMs, nowMs + 2 * dayMs), nowMs),
    ...certificateFacts("e.crt", "torn", nowMs),
  ];
  expect(facts.map(({ Status }) => Status)).toEqual(["OK", "OK", "WARNING", "EXPIRED", "NOT YET VALID", "UNREADABLE"]);
  expect(facts[0]).toEqual({
    ...{ Filename: "a.crt", Subject: "some-client", Issuer: "some-client", Usages: ["ClientAuth"] },
    ...{ ExpiryTime: "2028-02-05T12:00:00Z", ResidualTime: 400 * dayMs * 1e6, Status: "OK" },
  });
  expect(certificateTable(facts).split("\n")).toEqual([
    "FILENAME   SUBJECT                USAGES       EXPIRES                  RESIDUAL TIME   STATUS",
    "--------   -------                ------       -------                  -------------   ------",
    "a.crt      some-client            ClientAuth   Feb 05, 2028 12:00 UTC   1 year          OK",
    "a.crt      some-authority         CertSign     Dec 24, 2056 12:00 UTC   30 years        OK",
    "b.crt      some-server            ServerAuth   Apr 11, 2027 12:00 UTC   3 months        WARNING",
    "c.crt      some-server            ServerAuth   Jan 01, 2027 11:00 UTC   1 hour          EXPIRED",
    "d.crt      some-server            ServerAuth   Jan 02, 2027 12:00 UTC   2 days          NOT YET VALID",
    "e.crt      no certificate in it                Jan 01, 0001 00:00 UTC   now             UNREADABLE",
  ]);
  expect(facts.map(certificateLine).slice(2)).toEqual([
    "b.crt: certificate some-server (ServerAuth) will expire within 120 days at 2027-04-11T12:00:00Z",
    "c.crt: certificate some-server (ServerAuth) expired at 2027-01-01T11:00:00Z",
    "d.crt: certificate some-server (ServerAuth) is not valid before 2027-01-02T12:00:00Z",
    "e.crt: no certificate in it",
  ]);
});
