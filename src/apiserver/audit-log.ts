// The audit log as `mote server` has it: reads the policy file and opens the log before anything else starts, so that a
// mistake in either is told at once. Nothing is written to disk unless a path was named.
import type { Clock, Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { readFileIfExists } from "#platform/files.ts";
import { writeOutput } from "#platform/standard-streams.ts";
import { Auditor, Losses } from "./audit/auditor.ts";
import { builtInPolicy } from "./audit/built-in-policy.ts";
import { LogWriter } from "./audit/log-writer.ts";
import type { AuditOptions } from "./audit/options.ts";
import { type Decide, decideBy } from "./audit/policy.ts";
import { parsePolicy } from "./audit/policy-file.ts";
import { type LineTarget, openRotatingLog } from "./audit/rotation.ts";

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
/** Of lines written at once: few writes, and little memory. */
const batchBytes = 256 * 1024;

/** Rejects with APISERVER_AUDIT_POLICY or APISERVER_AUDIT_LOG. */
export async function openAudit(options: AuditOptions, deps: AuditDeps): Promise<Audit> {
  const { policyFile, truncate } = options;
  const decide = policyFile === undefined ? builtInPolicy : await policyFrom(policyFile);
  const target = options.logPath === undefined ? undefined : await targetOf(options.logPath, options, deps);
  const losses = new Losses();
  const isBatch = options.mode === "batch";
  const writer =
    target &&
    new LogWriter(
      {
        isBatch,
        maxLines: options.bufferEvents,
        batchBytes: Math.min(batchBytes, truncate?.maxBatchBytes ?? batchBytes),
      },
      {
        ...{ target, clock: deps.clock, log: deps.log },
        onLost(count) {
          losses.count += count;
        },
      },
    );
  const auditor = new Auditor(
    {
      decide,
      // Whoever writes a policy says in it whom it is about.
      seesInside: policyFile !== undefined,
      format: options.format,
      maxEventBytes: truncate?.maxEventBytes,
      isStrict: options.mode === "blocking-strict",
    },
    { ...{ clock: deps.clock, random: deps.random, metrics: deps.metrics }, log: writer, losses },
  );
  return {
    auditor,
    service: {
      name: "audit",
      async run(signal, ready) {
        ready();
        await untilAborted(signal);
        await writer?.close();
      },
    },
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
