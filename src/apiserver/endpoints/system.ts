// Paths that are not resources: health, version, metrics, the list of paths, and the token issuer's public documents.
// Upstream counterpart: genericapiserver's routes and healthz.

import { messageOf } from "#base/errors.ts";
import type { Metrics } from "#base/metrics.ts";
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
  readonly metrics: Metrics;
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
  const [, first = "", second = ""] = path.split("/");
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
      return health(deps, first, second, request);
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

async function health(deps: SystemDeps, endpoint: string, single: string, request: HandlerRequest): Promise<Result> {
  const own = deps.checks.filter((check) => endpoint === "readyz" || !check.readyOnly);
  const excluded = new Set(request.query.getAll("exclude"));
  const asked =
    single === "" ? own.filter((check) => !excluded.has(check.name)) : own.filter((check) => check.name === single);
  if (single !== "" && asked.length === 0) return text(404, "404 page not found\n");
  let body = "";
  let failed = false;
  for (const check of asked) {
    try {
      await check.check();
      body += `[+]${check.name} ok\n`;
    } catch (error) {
      failed = true;
      // The reason is for the log of whoever may read it; the name is for everybody.
      body += `[-]${check.name} failed: ${messageOf(error)}\n`;
    }
  }
  if (failed) return text(500, `${body}${endpoint} check failed\n`);
  if (single !== "" || !request.query.has("verbose")) return text(200, "ok");
  return text(200, `${body}${endpoint} check passed\n`);
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
