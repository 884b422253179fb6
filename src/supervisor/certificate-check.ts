// What `mote certificate check` tells: each certificate of each file, until when it is good, and whether that is soon.
// Field names, states and the form of the table are k3s's. Upstream counterpart: k3s pkg/cli/cert.
import { X509Certificate } from "node:crypto";
import { messageOf } from "#base/errors.ts";
import { splitPem } from "./pki/certificate.ts";
import { renewMs } from "./pki.ts";

export type CertificateStatus = "OK" | "WARNING" | "EXPIRED" | "NOT YET VALID" | "UNREADABLE";

/** k3s's JSON. */
export interface CertificateFacts {
  readonly Filename: string;
  readonly Subject: string;
  readonly Issuer: string;
  readonly Usages: readonly string[];
  /** RFC 3339. */
  readonly ExpiryTime: string;
  /** Nanoseconds. */
  readonly ResidualTime: number;
  readonly Status: CertificateStatus;
}

export function certificateFacts(file: string, pem: string, nowMs: number): readonly CertificateFacts[] {
  const blocks = splitPem(pem);
  if (blocks.length === 0) return [unreadable(file, "no certificate in it")];
  return blocks.map((block) => {
    try {
      return factsOf(file, new X509Certificate(block), nowMs);
    } catch (error) {
      return unreadable(file, messageOf(error));
    }
  });
}

function factsOf(file: string, certificate: X509Certificate, nowMs: number): CertificateFacts {
  const [fromMs, untilMs] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  const status: CertificateStatus =
    nowMs > untilMs ? "EXPIRED" : nowMs < fromMs ? "NOT YET VALID" : untilMs - nowMs < renewMs ? "WARNING" : "OK";
  return {
    Filename: file,
    Subject: commonNameIn(certificate.subject),
    Issuer: commonNameIn(certificate.issuer),
    Usages: usagesOf(certificate),
    ExpiryTime: new Date(status === "NOT YET VALID" ? fromMs : untilMs).toISOString().replace(".000Z", "Z"),
    ResidualTime: (untilMs - nowMs) * 1e6,
    Status: status,
  };
}

const unreadable = (file: string, why: string): CertificateFacts => ({
  ...{ Filename: file, Subject: why, Issuer: "", Usages: [] },
  ...{ ExpiryTime: "0001-01-01T00:00:00Z", ResidualTime: 0, Status: "UNREADABLE" },
});

const commonNameIn = (name: string): string => /^CN=(.*)$/m.exec(name)?.[1] ?? name.replaceAll("\n", ",");

const purposes: ReadonlyMap<string, string> = new Map([
  ["1.3.6.1.5.5.7.3.2", "ClientAuth"],
  ["1.3.6.1.5.5.7.3.1", "ServerAuth"],
]);

function usagesOf(certificate: X509Certificate): readonly string[] {
  const extended: readonly string[] | undefined = certificate.keyUsage;
  const found = [...(certificate.ca ? ["CertSign"] : []), ...(extended ?? []).flatMap((id) => purposes.get(id) ?? [])];
  return found.length > 0 ? found : ["Unknown"];
}

export function certificateTable(facts: readonly CertificateFacts[]): string {
  const rows = [
    ["FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL TIME", "STATUS"],
    ["--------", "-------", "------", "-------", "-------------", "------"],
    ...facts.map((one) => [
      ...[one.Filename, one.Subject, one.Usages.join(","), dateOf(one.ExpiryTime)],
      ...[residualText(one), one.Status],
    ]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)) + 3);
  return rows
    .map((row) => row.map((cell, i) => (i < row.length - 1 ? cell.padEnd(widths[i]!) : cell)).join(""))
    .join("\n");
}

export function certificateLine(one: CertificateFacts): string {
  const what = `${one.Filename}: certificate ${one.Subject} (${one.Usages.join(",")})`;
  switch (one.Status) {
    case "EXPIRED":
      return `${what} expired at ${one.ExpiryTime}`;
    case "NOT YET VALID":
      return `${what} is not valid before ${one.ExpiryTime}`;
    case "WARNING":
      return `${what} will expire within ${renewMs / dayMs} days at ${one.ExpiryTime}`;
    case "UNREADABLE":
      return `${one.Filename}: ${one.Subject}`;
    default:
      return `${what} is ok, expires at ${one.ExpiryTime}`;
  }
}

const dayMs = 24 * 3600_000;
const units: readonly (readonly [string, number])[] = [
  ["year", 360 * dayMs],
  ["month", 30 * dayMs],
  ["week", 7 * dayMs],
  ["day", dayMs],
  ["hour", 3600_000],
  ["minute", 60_000],
  ["second", 1000],
];

export const residualText = (one: CertificateFacts): string => roughly(one.ResidualTime / 1e6);

/** One whole number of the largest unit that fits. */
function roughly(ms: number): string {
  const [unit, sizeMs] = units.find(([, size]) => Math.abs(ms) >= size) ?? ["second", 1000];
  const count = Math.floor(Math.abs(ms) / sizeMs);
  return count === 0 ? "now" : `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** Nov 06, 2026 13:02 UTC */
function dateOf(rfc3339: string): string {
  const [, month = "", day = "", year = "", time = ""] =
    /, (\d+) (\w+) (\d+) (\d+:\d+)/
      .exec(new Date(rfc3339).toUTCString())
      ?.map((part, i, all) => (i === 1 ? all[2]! : i === 2 ? all[1]! : part)) ?? [];
  return `${month} ${day}, ${year} ${time} UTC`;
}
