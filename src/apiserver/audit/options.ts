// What kube-apiserver's flags named audit-* say, as `--kube-apiserver-arg` takes them. Pure. Names and defaults are
// upstream's but for one: of old files ten are kept and not all of them, because a device's disk has an end.

export type AuditMode = "batch" | "blocking" | "blocking-strict";
export type AuditFormat = "json" | "legacy";

export interface AuditOptions {
  /** Absent: the built-in policy. */
  readonly policyFile?: string;
  /** Absent: no file, only memory. "-" is standard output. */
  readonly logPath?: string;
  readonly format: AuditFormat;
  readonly mode: AuditMode;
  /** 0: however old. */
  readonly maxAgeDays: number;
  /** 0: however many. */
  readonly maxBackups: number;
  readonly maxSizeMb: number;
  readonly compress: boolean;
  /** Events that may wait for the disk in the mode `batch`. */
  readonly bufferEvents: number;
  /** Undefined: events go out whole. */
  readonly truncate?: { readonly maxEventBytes: number; readonly maxBatchBytes: number };
}

export const auditDefaults: AuditOptions = {
  format: "json",
  mode: "blocking",
  maxAgeDays: 0,
  maxBackups: 10,
  maxSizeMb: 100,
  compress: false,
  bufferEvents: 10_000,
};

/** As they are read; what belongs together is put together at the end. */
interface Said {
  policyFile?: string;
  logPath?: string;
  format?: AuditFormat;
  mode?: AuditMode;
  maxAgeDays?: number;
  maxBackups?: number;
  maxSizeMb?: number;
  compress?: boolean;
  bufferEvents?: number;
  truncates?: boolean;
  maxEventBytes?: number;
  maxBatchBytes?: number;
}

type Refuse = (why: string) => Error;
type Setter = (text: string, into: Said, refuse: Refuse) => void;

const text =
  (field: "policyFile" | "logPath"): Setter =>
  (value, into, refuse) => {
    if (value === "") throw refuse("a path is expected");
    into[field] = value;
  };

const number =
  (
    field: "maxAgeDays" | "maxBackups" | "maxSizeMb" | "bufferEvents" | "maxEventBytes" | "maxBatchBytes",
    least: number,
    most: number,
  ): Setter =>
  (value, into, refuse) => {
    const count = Number(value);
    if (!/^\d{1,12}$/.test(value) || count < least || count > most) {
      throw refuse(`${JSON.stringify(value)} is not a whole number from ${least} to ${most}`);
    }
    into[field] = count;
  };

const flag =
  (field: "compress" | "truncates"): Setter =>
  (value, into, refuse) => {
    if (value !== "true" && value !== "false") throw refuse(`${JSON.stringify(value)} is neither true nor false`);
    into[field] = value === "true";
  };

function choice<F extends "format" | "mode">(field: F, allowed: readonly NonNullable<Said[F]>[]): Setter {
  return (value, into, refuse) => {
    const found = allowed.find((each) => each === value);
    if (found === undefined) throw refuse(`${JSON.stringify(value)} is none of ${allowed.join(", ")}`);
    into[field] = found as Said[F] & {};
  };
}

export const auditFlags: Readonly<Record<string, Setter>> = {
  "audit-policy-file": text("policyFile"),
  "audit-log-path": text("logPath"),
  "audit-log-format": choice("format", ["json", "legacy"]),
  "audit-log-mode": choice("mode", ["batch", "blocking", "blocking-strict"]),
  "audit-log-maxage": number("maxAgeDays", 0, 36_500),
  "audit-log-maxbackup": number("maxBackups", 0, 10_000),
  // 0 is upstream's way to say 100.
  "audit-log-maxsize": number("maxSizeMb", 0, 10_000),
  "audit-log-compress": flag("compress"),
  "audit-log-batch-buffer-size": number("bufferEvents", 1, 100_000),
  "audit-log-truncate-enabled": flag("truncates"),
  "audit-log-truncate-max-event-size": number("maxEventBytes", 1024, 10 * 1024 * 1024),
  "audit-log-truncate-max-batch-size": number("maxBatchBytes", 1024, 100 * 1024 * 1024),
  "audit-log-version"(value, _into, refuse) {
    if (value !== "audit.k8s.io/v1") throw refuse(`${JSON.stringify(value)} is not audit.k8s.io/v1`);
  },
};

/** Upstream's limits where truncation is on and no other is said. */
const truncateDefaults = { maxEventBytes: 100 * 1024, maxBatchBytes: 10 * 1024 * 1024 };

/** Reads `--kube-apiserver-arg`s of this family, one after the other, and says at the end what they come to. */
export class AuditArguments {
  readonly #said: Said = {};
  /** The first that is about a file. */
  #aboutLog: string | undefined;

  take(name: string, value: string, refuse: Refuse): void {
    auditFlags[name]!(value, this.#said, refuse);
    if (name.startsWith("audit-log-") && name !== "audit-log-path") this.#aboutLog ??= name;
  }

  /** Refuses what would do nothing. */
  result(refuse: (name: string, why: string) => Error): AuditOptions {
    const { truncates, maxEventBytes, maxBatchBytes, ...said } = this.#said;
    if (this.#aboutLog !== undefined && said.logPath === undefined) {
      throw refuse(this.#aboutLog, "needs audit-log-path beside it");
    }
    const limits = {
      maxEventBytes: maxEventBytes ?? truncateDefaults.maxEventBytes,
      maxBatchBytes: maxBatchBytes ?? truncateDefaults.maxBatchBytes,
    };
    if (limits.maxBatchBytes < limits.maxEventBytes) {
      throw refuse("audit-log-truncate-max-batch-size", "must not be below audit-log-truncate-max-event-size");
    }
    return {
      ...auditDefaults,
      ...said,
      ...(said.maxSizeMb === 0 ? { maxSizeMb: auditDefaults.maxSizeMb } : {}),
      ...(truncates ? { truncate: limits } : {}),
    };
  }
}
