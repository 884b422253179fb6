// Paths that are not resources: health, version, metrics, the list of paths, and the token issuer's public documents.
// Upstream counterpart: genericapiserver's routes and healthz.

import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import { badRequest } from "#model/status.ts";
import { type Auditor, auditPath } from "../audit/auditor.ts";
import type { TokenIssuer } from "../authn/token-issuer.ts";
import { type HandlerRequest, type Result, text } from "./result.ts";

/** One named condition of being alive or ready. */
export interface HealthCheck {
  readonly name: string;
  /** Counts for /readyz only. */
  readonly readyOnly?: boolean;
  /** Resolves when well; rejects or throws with the reason when not. */
  check(): Promise<void> | void;
}

export interface VersionInfo {
  readonly major: string;
  readonly minor: string;
  readonly gitVersion: string;
  readonly gitCommit: string;
  readonly gitTreeState: string;
  readonly buildDate: string;
  readonly goVersion: string;
  readonly compiler: string;
  readonly platform: string;
}

export interface SystemDeps {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly audit?: Auditor | undefined;
  readonly version: VersionInfo;
  readonly checks: readonly HealthCheck[];
  readonly tokenIssuer: TokenIssuer | undefined;
  readonly jwksUri: string;
  readonly paths: () => readonly string[];
}

/** Undefined: nothing of this kind lives at `path`. */
export async function answerSystem(
  deps: SystemDeps,
  request: HandlerRequest,
  path: string,
): Promise<Result | undefined> {
  const [, first = "", ...rest] = path.split("/");
  switch (first) {
    case "":
      return json({ paths: deps.paths() });
    case "version":
      return path === "/version" ? json(deps.version, 2) : undefined;
    case "metrics":
      if (path !== "/metrics") return undefined;
      return {
        type: "raw",
        status: 200,
        contentType: "text/plain; version=0.0.4; charset=utf-8",
        body: deps.metrics.render(),
      };
    case "healthz":
    case "livez":
    case "readyz":
      return health(deps, first, rest.join("/"), request);
    case "debug":
      return path === auditPath && deps.audit ? events(deps.audit, request) : undefined;
    case ".well-known":
      if (path !== "/.well-known/openid-configuration" || !deps.tokenIssuer) return undefined;
      return cacheable(deps.tokenIssuer.discovery(deps.jwksUri), "application/json");
    case "openid":
      if (path !== "/openid/v1/jwks" || !deps.tokenIssuer) return undefined;
      return cacheable(deps.tokenIssuer.jwks(), "application/jwk-set+json");
    default:
      return undefined;
  }
}

/** What the audit log holds in memory, one event a line; `?limit=N` for the newest only. */
function events(audit: Auditor, { query }: HandlerRequest): Result {
  const limit = query.get("limit") ?? "";
  if (!/^\d{0,9}$/.test(limit)) throw badRequest(`limit: ${JSON.stringify(limit)} is not a whole number`);
  return {
    type: "raw",
    status: 200,
    contentType: "application/x-ndjson",
    body: audit.read(limit === "" ? Number.MAX_SAFE_INTEGER : Number(limit)),
  };
}

/** Why a check fails may tell of the inside of the cluster: whoever may ask for the check alone is told, others see names. */
async function health(deps: SystemDeps, endpoint: string, single: string, request: HandlerRequest): Promise<Result> {
  const own = deps.checks.filter((check) => endpoint === "readyz" || !check.readyOnly);
  if (single !== "") {
    const check = own.find(({ name }) => name === single);
    if (!check) return text(404, "404 page not found\n");
    const reason = await failureOf(check);
    return reason === undefined ? text(200, "ok") : text(500, `internal server error: ${reason}\n`);
  }
  const excluded = new Set(request.query.getAll("exclude"));
  const failed: Record<string, string> = {};
  let body = "";
  for (const check of own) {
    if (excluded.delete(check.name)) {
      body += `[+]${check.name} excluded: ok\n`;
      continue;
    }
    const reason = await failureOf(check);
    if (reason === undefined) body += `[+]${check.name} ok\n`;
    else {
      failed[check.name] = reason;
      body += `[-]${check.name} failed: reason withheld\n`;
    }
  }
  if (excluded.size > 0) {
    const names = [...excluded].sort().map((name) => JSON.stringify(name));
    body += `warn: some health checks cannot be excluded: no matches for ${names.join(",")}\n`;
  }
  if (Object.keys(failed).length > 0) {
    deps.log.warn("health check failed", { endpoint, ...failed });
    return text(500, `${body}${endpoint} check failed\n`);
  }
  return text(200, request.query.has("verbose") ? `${body}${endpoint} check passed\n` : "ok");
}

async function failureOf(check: HealthCheck): Promise<string | undefined> {
  try {
    await check.check();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

const json = (value: unknown, indent = 2): Result => ({
  type: "raw",
  status: 200,
  contentType: "application/json",
  body: JSON.stringify(value, undefined, indent),
});

const cacheable = (value: object, contentType: string): Result => ({
  type: "raw",
  status: 200,
  contentType,
  body: JSON.stringify(value),
  headers: { "cache-control": "public, max-age=3600" },
});
