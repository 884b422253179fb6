// What kube-apiserver's flags named audit-* say, as `--kube-apiserver-arg` takes them. Pure. Names and defaults are
// upstream's but for one: of old files ten are kept and not all of them, because a device's disk has an end.

import { parseDurationNanoseconds } from "#model/duration.ts";

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
  readonly truncate?: Truncation;
  readonly webhook?: WebhookOptions;
}

export interface Truncation {
  readonly maxEventBytes: number;
  readonly maxBatchBytes: number;
}

export interface WebhookOptions {
  /** A kubeconfig. */
  readonly configFile: string;
  readonly mode: AuditMode;
  readonly initialBackoffMs: number;
  readonly bufferEvents: number;
  readonly batchEvents: number;
  readonly maxWaitMs: number;
  readonly truncate?: Truncation;
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

const webhookDefaults: Omit<WebhookOptions, "configFile"> = {
  mode: "batch",
  initialBackoffMs: 10_000,
  bufferEvents: 10_000,
  batchEvents: 400,
  maxWaitMs: 30_000,
};

/** As they are read; what belongs together is put together at the end. */
type Said = Partial<
  Record<NumberField, number> &
    Record<FlagField, boolean> &
    Record<TextField, string> &
    Record<ModeField, AuditMode> & { format: AuditFormat }
>;
type NumberField =
  | ("maxAgeDays" | "maxBackups" | "maxSizeMb" | "bufferEvents" | "maxEventBytes" | "maxBatchBytes")
  | (
      | "hookBackoffMs"
      | "hookBufferEvents"
      | "hookBatchEvents"
      | "hookWaitMs"
      | "hookMaxEventBytes"
      | "hookMaxBatchBytes"
    );
type FlagField = "compress" | "truncates" | "hookTruncates";
type TextField = "policyFile" | "logPath" | "hookFile";
type ModeField = "mode" | "hookMode";

type Refuse = (why: string) => Error;
type Setter = (text: string, into: Said, refuse: Refuse) => void;

const text =
  (field: TextField): Setter =>
  (value, into, refuse) => {
    if (value === "") throw refuse("a path is expected");
    into[field] = value;
  };

const number =
  (field: NumberField, least: number, most: number): Setter =>
  (value, into, refuse) => {
    const count = Number(value);
    if (!/^\d{1,12}$/.test(value) || count < least || count > most) {
      throw refuse(`${JSON.stringify(value)} is not a whole number from ${least} to ${most}`);
    }
    into[field] = count;
  };

/** As Go writes it. */
const duration =
  (field: NumberField, mostMs: number): Setter =>
  (value, into, refuse) => {
    let ms = Number.NaN;
    try {
      ms = parseDurationNanoseconds(value) / 1e6;
    } catch {
      // Told below, with what is allowed.
    }
    if (!(ms >= 1 && ms <= mostMs)) {
      throw refuse(`${JSON.stringify(value)} is not a time such as 10s, from 1ms to ${mostMs / 1000}s`);
    }
    into[field] = ms;
  };

const flag =
  (field: FlagField): Setter =>
  (value, into, refuse) => {
    if (value !== "true" && value !== "false") throw refuse(`${JSON.stringify(value)} is neither true nor false`);
    into[field] = value === "true";
  };

function oneOf<T extends string>(value: string, allowed: readonly T[], refuse: Refuse): T {
  const found = allowed.find((each) => each === value);
  if (found === undefined) throw refuse(`${JSON.stringify(value)} is none of ${allowed.join(", ")}`);
  return found;
}

const mode =
  (field: ModeField): Setter =>
  (value, into, refuse) => {
    into[field] = oneOf(value, ["batch", "blocking", "blocking-strict"], refuse);
  };

const version: Setter = (value, _into, refuse) => {
  if (value !== "audit.k8s.io/v1") throw refuse(`${JSON.stringify(value)} is not audit.k8s.io/v1`);
};

const mostEventBytes = 10 * 1024 * 1024;
const mostBatchBytes = 100 * 1024 * 1024;

export const auditFlags: Readonly<Record<string, Setter>> = {
  "audit-policy-file": text("policyFile"),
  "audit-log-path": text("logPath"),
  "audit-log-format"(value, into, refuse) {
    into.format = oneOf(value, ["json", "legacy"], refuse);
  },
  "audit-log-mode": mode("mode"),
  "audit-log-maxage": number("maxAgeDays", 0, 36_500),
  "audit-log-maxbackup": number("maxBackups", 0, 10_000),
  // 0 is upstream's way to say 100.
  "audit-log-maxsize": number("maxSizeMb", 0, 10_000),
  "audit-log-compress": flag("compress"),
  "audit-log-batch-buffer-size": number("bufferEvents", 1, 100_000),
  "audit-log-truncate-enabled": flag("truncates"),
  "audit-log-truncate-max-event-size": number("maxEventBytes", 1024, mostEventBytes),
  "audit-log-truncate-max-batch-size": number("maxBatchBytes", 1024, mostBatchBytes),
  "audit-log-version": version,
  "audit-webhook-config-file": text("hookFile"),
  "audit-webhook-mode": mode("hookMode"),
  "audit-webhook-initial-backoff": duration("hookBackoffMs", 600_000),
  "audit-webhook-batch-buffer-size": number("hookBufferEvents", 1, 100_000),
  "audit-webhook-batch-max-size": number("hookBatchEvents", 1, 100_000),
  "audit-webhook-batch-max-wait": duration("hookWaitMs", 3_600_000),
  "audit-webhook-truncate-enabled": flag("hookTruncates"),
  "audit-webhook-truncate-max-event-size": number("hookMaxEventBytes", 1024, mostEventBytes),
  "audit-webhook-truncate-max-batch-size": number("hookMaxBatchBytes", 1024, mostBatchBytes),
  "audit-webhook-version": version,
};

/** Upstream's limits where truncation is on and no other is said. */
const truncateDefaults: Truncation = { maxEventBytes: 100 * 1024, maxBatchBytes: 10 * 1024 * 1024 };

/** The flag that the others of its family need. */
const families: Readonly<Record<string, TextField>> = {
  "audit-log-path": "logPath",
  "audit-webhook-config-file": "hookFile",
};

/** Reads `--kube-apiserver-arg`s of this family, one after the other, and says at the end what they come to. */
export class AuditArguments {
  readonly #said: Said = {};
  readonly #names = new Set<string>();

  take(name: string, value: string, refuse: Refuse): void {
    auditFlags[name]!(value, this.#said, refuse);
    this.#names.add(name);
  }

  /** Refuses what would do nothing. */
  result(refuse: (name: string, why: string) => Error): AuditOptions {
    const said = this.#said;
    for (const [needed, field] of Object.entries(families)) {
      const family = needed.slice(0, needed.indexOf("-", "audit-".length) + 1);
      const [other] = [...this.#names].filter((name) => name.startsWith(family));
      if (other !== undefined && said[field] === undefined) throw refuse(other, `needs ${needed} beside it`);
    }
    const truncation = (family: string, on: boolean | undefined, event?: number, batch?: number) => {
      const limits: Truncation = {
        maxEventBytes: event ?? truncateDefaults.maxEventBytes,
        maxBatchBytes: batch ?? truncateDefaults.maxBatchBytes,
      };
      if (limits.maxBatchBytes < limits.maxEventBytes) {
        throw refuse(`${family}-truncate-max-batch-size`, `must not be below ${family}-truncate-max-event-size`);
      }
      return on ? { truncate: limits } : {};
    };
    const { format, mode, maxAgeDays, maxBackups, maxSizeMb, compress, bufferEvents } = said;
    const base = auditDefaults;
    const hook = webhookDefaults;
    return {
      ...(said.policyFile === undefined ? {} : { policyFile: said.policyFile }),
      ...(said.logPath === undefined ? {} : { logPath: said.logPath }),
      format: format ?? base.format,
      mode: mode ?? base.mode,
      maxAgeDays: maxAgeDays ?? base.maxAgeDays,
      maxBackups: maxBackups ?? base.maxBackups,
      maxSizeMb: maxSizeMb || base.maxSizeMb,
      compress: compress ?? base.compress,
      bufferEvents: bufferEvents ?? base.bufferEvents,
      ...truncation("audit-log", said.truncates, said.maxEventBytes, said.maxBatchBytes),
      ...(said.hookFile === undefined
        ? {}
        : {
            webhook: {
              configFile: said.hookFile,
              mode: said.hookMode ?? hook.mode,
              initialBackoffMs: said.hookBackoffMs ?? hook.initialBackoffMs,
              bufferEvents: said.hookBufferEvents ?? hook.bufferEvents,
              batchEvents: said.hookBatchEvents ?? hook.batchEvents,
              maxWaitMs: said.hookWaitMs ?? hook.maxWaitMs,
              ...truncation("audit-webhook", said.hookTruncates, said.hookMaxEventBytes, said.hookMaxBatchBytes),
            },
          }),
    };
  }
}
