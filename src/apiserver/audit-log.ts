// The audit log as `mote server` has it: reads the policy file and opens the log before anything else starts, so that a
// mistake in either is told at once. Nothing is written to disk unless a path was named.
import type { Clock, Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { readFileIfExists } from "#platform/files.ts";
import { writeOutput } from "#platform/standard-streams.ts";
import { Auditor, Losses, type Outlet } from "./audit/auditor.ts";
import { builtInPolicy } from "./audit/built-in-policy.ts";
import { type LineTarget, LogWriter, type LogWriterOptions } from "./audit/log-writer.ts";
import type { AuditFormat, AuditMode, AuditOptions, Truncation } from "./audit/options.ts";
import { type Decide, decideBy } from "./audit/policy.ts";
import { parsePolicy } from "./audit/policy-file.ts";
import { openRotatingLog } from "./audit/rotation.ts";
import { openWebhook } from "./audit/webhook.ts";

export interface AuditDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
}

export interface Audit {
  readonly auditor: Auditor;
  /** Keeps the log open while it runs: to be stopped after all that is audited. */
  readonly service: Service;
}

/** Nobody writes more by hand. */
const maxPolicyBytes = 1024 * 1024;
/** Of lines written at once: few writes, and little memory. A collector is sent as much as upstream's limit is. */
const batchBytes = { log: 256 * 1024, webhook: 10 * 1024 * 1024 };

/** Rejects with APISERVER_AUDIT_POLICY, APISERVER_AUDIT_LOG or APISERVER_AUDIT_WEBHOOK. */
export async function openAudit(options: AuditOptions, deps: AuditDeps): Promise<Audit> {
  const { policyFile, logPath, webhook, truncate } = options;
  const decide = policyFile === undefined ? builtInPolicy : await policyFrom(policyFile);
  const outlets: Outlet[] = [];
  if (logPath !== undefined) {
    const target = await targetOf(logPath, options, deps);
    outlets.push(
      outletOf("log", options.mode, options.format, truncate, { target, maxLines: options.bufferEvents }, deps),
    );
  }
  if (webhook) {
    const target = await openWebhook(webhook, deps);
    const isBatch = webhook.mode === "batch";
    const queue = {
      ...{ target, maxLines: webhook.bufferEvents },
      ...(isBatch ? { batchLines: webhook.batchEvents, lingerMs: webhook.maxWaitMs } : {}),
    };
    outlets.push(outletOf("webhook", webhook.mode, "json", webhook.truncate, queue, deps));
  }
  const auditor = new Auditor(
    {
      decide,
      // Whoever writes a policy says in it whom it is about.
      seesInside: policyFile !== undefined,
    },
    { clock: deps.clock, random: deps.random, metrics: deps.metrics, outlets },
  );
  return {
    auditor,
    service: {
      name: "audit",
      async run(signal, ready) {
        ready();
        await untilAborted(signal);
        await Promise.all(outlets.map(({ writer }) => writer.close()));
      },
    },
  };
}

function outletOf(
  plugin: Outlet["plugin"],
  mode: AuditMode,
  format: AuditFormat,
  truncate: Truncation | undefined,
  queue: Pick<LogWriterOptions, "maxLines" | "batchLines" | "lingerMs"> & { readonly target: LineTarget },
  deps: AuditDeps,
): Outlet {
  const losses = new Losses();
  const { target, ...bounds } = queue;
  const writer = new LogWriter(
    {
      ...bounds,
      isBatch: mode === "batch",
      batchBytes: Math.min(batchBytes[plugin], truncate?.maxBatchBytes ?? batchBytes[plugin]),
    },
    {
      ...{ target, clock: deps.clock, log: deps.log.child({ plugin }) },
      onLost(count) {
        losses.count += count;
      },
    },
  );
  return {
    plugin,
    writer,
    format,
    maxEventBytes: truncate?.maxEventBytes,
    isStrict: mode === "blocking-strict",
    losses,
  };
}

async function policyFrom(path: string): Promise<Decide> {
  let bytes: Buffer | undefined;
  try {
    bytes = await readFileIfExists(path);
  } catch (error) {
    throw new AppError("APISERVER_AUDIT_POLICY", `audit-policy-file ${path}: cannot be read: ${messageOf(error)}`);
  }
  if (!bytes) throw new AppError("APISERVER_AUDIT_POLICY", `audit-policy-file ${path}: there is no such file`);
  if (bytes.length > maxPolicyBytes) {
    throw new AppError("APISERVER_AUDIT_POLICY", `audit-policy-file ${path}: is larger than ${maxPolicyBytes} bytes`);
  }
  return decideBy(parsePolicy(bytes.toString("utf8"), path));
}

async function targetOf(path: string, options: AuditOptions, deps: AuditDeps): Promise<LineTarget> {
  if (path === "-") return standardOutput;
  try {
    const { maxAgeDays, maxBackups, compress } = options;
    return await openRotatingLog(
      { path, maxBytes: options.maxSizeMb * 1024 * 1024, maxAgeDays, maxBackups, compress },
      deps,
    );
  } catch (error) {
    throw new AppError("APISERVER_AUDIT_LOG", `audit-log-path ${path}: cannot be written: ${messageOf(error)}`);
  }
}

const standardOutput: LineTarget = {
  async append(lines) {
    writeOutput(Buffer.concat(lines).toString("utf8"));
    return 0;
  },
  async close() {},
};
