// Where the options of a snapshot's bucket come from: flags and configuration, or, when they name no bucket, a Secret that
// the server reads. As in k3s.

import { messageOf } from "#base/errors.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { parseS3Settings, type S3Settings } from "#datastore/s3-settings.ts";
import { readFileIfExists } from "#platform/files.ts";

export interface S3Choice {
  /** By k3s's names without `etcd-s3-`; `endpoint-ca` is still a path. */
  readonly fields: Readonly<Record<string, string>>;
  /** Undefined where the fields say it all. */
  readonly secret: string | undefined;
}

const options = [
  ...["endpoint", "endpoint-ca", "skip-ssl-verify", "access-key", "secret-key", "session-token", "bucket"],
  ...["bucket-lookup-type", "region", "folder", "retention", "proxy", "insecure", "timeout"],
];

/** Undefined: no bucket. `prefix`: `etcd-s3` of the server, `s3` of the command. Refuses what cannot be. */
export function s3ChoiceOf(values: FlagValues, prefix: "etcd-s3" | "s3"): S3Choice | undefined {
  if (values[prefix] !== true) return undefined;
  const fields: Record<string, string> = {};
  for (const option of options) {
    const value = values[`${prefix}-${option}`];
    if (value !== undefined && value !== false && value !== "") fields[option] = String(value);
  }
  const secret = values[`${prefix}-config-secret`] as string | undefined;
  // Keys may come from the environment of others: the bucket is what tells.
  if (secret && fields["bucket"] === undefined) return { fields, secret };
  // The certificate is read when it is needed; all else is refused before anything starts.
  parse({ ...fields, "endpoint-ca": "" });
  return { fields, secret: undefined };
}

/** `readSecret`: asks whoever may read it. */
export async function resolveS3(
  { fields, secret }: S3Choice,
  readSecret: (name: string) => Promise<S3Settings>,
): Promise<S3Settings> {
  if (secret !== undefined) return readSecret(secret);
  const path = fields["endpoint-ca"];
  if (path === undefined) return parse(fields);
  const pem = await readFileIfExists(path);
  if (!pem) throw usageError(`etcd-s3-endpoint-ca: there is no file ${path}`);
  return parse({ ...fields, "endpoint-ca": pem.toString("latin1") });
}

function parse(fields: Readonly<Record<string, string>>): S3Settings {
  try {
    return parseS3Settings(fields, (option) => `etcd-s3-${option}`);
  } catch (error) {
    throw usageError(messageOf(error));
  }
}
