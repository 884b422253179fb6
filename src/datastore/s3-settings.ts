// What must be known of a bucket of snapshots, under k3s's names of options, from flags or from a Secret: read and checked, so that a
// mistake is told before anything is sent. Apart from snapshot-s3.ts, because whoever reads a configuration needs this alone.
import { type AppError, messageOf } from "#base/errors.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";
import { parseProxy } from "#platform/http-proxy.ts";
import { datastoreError } from "./errors.ts";
import type { S3Target } from "./snapshot/s3-client.ts";

export interface S3Settings extends S3Target {
  /** Without slashes at its ends; empty: the bucket itself. */
  readonly folder: string;
  readonly retention: number;
}

/** Options by k3s's names without their `etcd-s3-`, as texts. */
export type S3Fields = Readonly<Record<string, string | undefined>>;

/** What an option is when nobody set it. */
const s3Defaults = {
  endpoint: "s3.amazonaws.com",
  region: "us-east-1",
  "bucket-lookup-type": "auto",
  timeout: "5m0s",
  retention: "5",
} as const;

/** `name` says how an option is called where it was written. `endpoint-ca` is PEM, bare or in base64. */
export function parseS3Settings(fields: S3Fields, name: (option: string) => string): S3Settings {
  const text = (option: string): string | undefined => fields[option] || undefined;
  const refuse = (option: string, why: string): AppError =>
    datastoreError("DATASTORE_BAD_REQUEST", `${name(option)}: ${why}`);
  const needed = (option: string): string => {
    const value = text(option);
    if (value === undefined) throw refuse(option, "is needed for S3");
    return value;
  };
  const flag = (option: string): boolean => {
    const value = text(option) ?? "false";
    if (!/^(true|false)$/i.test(value)) throw refuse(option, `"${value}" is not allowed; use true or false`);
    return value.toLowerCase() === "true";
  };
  const endpoint = text("endpoint") ?? s3Defaults.endpoint;
  if (!/^(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?$/i.test(endpoint)) {
    throw refuse("endpoint", `"${endpoint}" is not allowed; use HOST or HOST:PORT`);
  }
  const bucket = needed("bucket");
  if (!/^[\w.-]{1,255}$/.test(bucket)) throw refuse("bucket", `"${bucket}" is not allowed`);
  const bucketLookup = text("bucket-lookup-type") ?? s3Defaults["bucket-lookup-type"];
  if (bucketLookup !== "auto" && bucketLookup !== "dns" && bucketLookup !== "path") {
    throw refuse("bucket-lookup-type", `"${bucketLookup}" is not allowed; use one of auto, dns, path`);
  }
  const retention = text("retention") ?? s3Defaults.retention;
  if (!/^[1-9]\d{0,5}$/.test(retention))
    throw refuse("retention", `"${retention}" is not allowed; use a number above 0`);
  const proxy = text("proxy");
  try {
    if (proxy !== undefined) parseProxy(proxy);
  } catch (error) {
    throw refuse("proxy", messageOf(error));
  }
  return {
    endpoint,
    endpointCa: pemOf(text("endpoint-ca"), (why) => refuse("endpoint-ca", why)),
    skipSslVerify: flag("skip-ssl-verify"),
    insecure: flag("insecure"),
    keys: {
      accessKey: needed("access-key"),
      secretKey: needed("secret-key"),
      sessionToken: text("session-token"),
    },
    ...{ bucket, bucketLookup, proxy },
    region: text("region") ?? s3Defaults.region,
    folder: (text("folder") ?? "").replace(/^\/+|\/+$/g, ""),
    retention: Number(retention),
    timeoutMs: timeoutOf(text("timeout") ?? s3Defaults.timeout, (why) => refuse("timeout", why)),
  };
}

/** The data of a Secret whose keys are k3s's flag names, `etcd-s3-endpoint` and so on; values in base64. */
export function s3SettingsOfSecret(
  data: Readonly<Record<string, string | Uint8Array>> | undefined,
  secret: string,
): S3Settings {
  const fields: Record<string, string> = {};
  for (const [key, value] of Object.entries(data ?? {})) {
    const text = typeof value === "string" ? Buffer.from(value, "base64") : Buffer.from(value);
    if (key.startsWith("etcd-s3-")) fields[key.slice("etcd-s3-".length)] = text.toString("utf8").trim();
  }
  return parseS3Settings(fields, (option) => `secret ${secret}, key etcd-s3-${option}`);
}

function pemOf(text: string | undefined, refuse: (why: string) => AppError): string | undefined {
  if (text === undefined) return undefined;
  const pem = text.includes("-----BEGIN") ? text : Buffer.from(text, "base64").toString("latin1");
  if (!pem.includes("-----BEGIN CERTIFICATE-----")) throw refuse("is no certificate in PEM");
  return pem;
}

function timeoutOf(text: string, refuse: (why: string) => AppError): number {
  let timeoutMs: number;
  try {
    timeoutMs = parseDurationNanoseconds(text) / 1e6;
  } catch (error) {
    throw refuse(messageOf(error));
  }
  if (timeoutMs < 1000) throw refuse(`"${text}" is too short; use a duration such as 5m`);
  return timeoutMs;
}
