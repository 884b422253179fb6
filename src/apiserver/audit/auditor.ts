// The audit log as the request chain knows it: asks the policy once per request, and carries what is told to the ring in
// memory and to the log, if there is one. Upstream counterpart: audit.Backend with the union and truncate plugins.
import type { Clock, Random } from "#base/clock.ts";
import type { Metrics } from "#base/metrics.ts";
import type { RequestHeaders } from "#platform/https-server.ts";
import type { UserInfo } from "../authn/user.ts";
import { parseRequest, type RequestInfo } from "../endpoints/request-info.ts";
import { type AuditEvent, eventJson, eventText, withoutBodies } from "./event.ts";
import type { LogWriter } from "./log-writer.ts";
import type { AuditFormat } from "./options.ts";
import { type Decide, type Level, levels } from "./policy.ts";
import { type AuditedRequest, AuditRecord, type EventSink } from "./record.ts";
import { AuditRing, maxRingEventBytes } from "./ring.ts";

export interface AuditorOptions {
  readonly decide: Decide;
  /** Parts of the server's own process are told of too. */
  readonly seesInside: boolean;
}

/** Where events go beside memory. */
export interface Outlet {
  readonly plugin: "log" | "webhook";
  readonly writer: LogWriter;
  readonly format: AuditFormat;
  /** Undefined: events go out whole. */
  readonly maxEventBytes: number | undefined;
  /** A request may not begin before its event is kept. */
  readonly isStrict: boolean;
  readonly losses: Losses;
}

export interface AuditorDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly outlets: readonly Outlet[];
}

/** Events that could not be kept. */
export class Losses {
  count = 0;
}

/** Where the ring is read; a path that RBAC knows, so roles can grant it. */
export const auditPath = "/debug/audit";

const plainPath: RequestInfo = {
  ...{ isResource: false, path: "", verb: "", group: "", version: "", namespace: "" },
  ...{ resource: "", subresource: "", name: "", rest: "" },
};
const noHeaders: RequestHeaders = {};

export class Auditor implements EventSink {
  readonly clock: Clock;
  readonly #options: AuditorOptions;
  readonly #deps: AuditorDeps;
  readonly #ring = new AuditRing();
  readonly #byLevel: Record<Level, number> = { None: 0, Metadata: 0, Request: 0, RequestResponse: 0 };
  #events = 0;
  #rejected = 0;

  constructor(options: AuditorOptions, deps: AuditorDeps) {
    this.#options = options;
    this.#deps = deps;
    this.clock = deps.clock;
    this.#count();
  }

  /** Undefined: nothing is told of it. `info` undefined: no path this server can have. */
  begin(
    request: Omit<AuditedRequest, "info"> & { readonly info: RequestInfo | undefined; readonly method: string },
  ): AuditRecord | undefined {
    const info = request.info ?? {
      ...plainPath,
      path: request.uri.replace(/\?.*$/s, ""),
      verb: request.method.toLowerCase(),
    };
    const choice = this.#options.decide(info, request.user);
    this.#byLevel[choice.level]++;
    return choice.level === "None" ? undefined : new AuditRecord({ ...request, info }, choice, this);
  }

  /** Of a part of the same process. */
  beginInside(request: {
    readonly method: string;
    readonly path: string;
    readonly query: URLSearchParams;
    readonly user: UserInfo;
    readonly userAgent: string;
  }): AuditRecord | undefined {
    if (!this.#options.seesInside) return undefined;
    const { method, path, query, user, userAgent } = request;
    const info = parseRequest(method, path, query);
    if (!info) return undefined;
    const search = query.size === 0 ? "" : `?${query.toString()}`;
    return this.begin({
      auditId: this.#deps.random.uuid(),
      ...{ method, info, user },
      uri: path + search,
      headers: userAgent === "" ? noHeaders : { "user-agent": userAgent },
      remoteAddress: "127.0.0.1",
      isLongRunning: info.verb === "watch",
    });
  }

  /** The newest `limit` events that memory holds, one a line. */
  read(limit: number): Buffer {
    return this.#ring.read(limit);
  }

  emit(event: AuditEvent): Promise<boolean> | undefined {
    this.#events++;
    const json = eventJson(event);
    const short = json.length > maxRingEventBytes ? eventJson(withoutBodies(event)) : json;
    this.#ring.add(short, event.user === undefined);
    let kept: Promise<boolean> | undefined;
    for (const outlet of this.#deps.outlets) {
      const own = write(outlet, event, json);
      if (!own) continue;
      const before = kept;
      const isEnough = own.then((isKept) => isKept || !outlet.isStrict);
      kept = before ? Promise.all([before, isEnough]).then((all) => all.every((each) => each)) : isEnough;
    }
    return kept;
  }

  rejected(): void {
    this.#rejected++;
  }

  /** Counted here and told when somebody asks: requests are many, questions few. */
  #count(): void {
    const { metrics, outlets } = this.#deps;
    const events = metrics.counter("apiserver_audit_event_total", "Audit events that were made.");
    const perLevel = metrics.counter("apiserver_audit_level_total", "Requests by what the audit policy says of them.");
    const errors = metrics.counter("apiserver_audit_error_total", "Audit events that could not be kept, by where.");
    const rejected = metrics.counter(
      "apiserver_audit_requests_rejected_total",
      "Requests refused because the audit log could not be written.",
    );
    const told = { events: 0, errors: outlets.map(() => 0), rejected: 0, levels: { ...this.#byLevel } };
    metrics.beforeRender(() => {
      events.add(this.#events - told.events);
      for (const [index, { plugin, losses }] of outlets.entries()) {
        errors.add(losses.count - told.errors[index]!, { plugin });
        told.errors[index] = losses.count;
      }
      rejected.add(this.#rejected - told.rejected);
      for (const level of levels) {
        perLevel.add(this.#byLevel[level] - told.levels[level], { level });
        told.levels[level] = this.#byLevel[level];
      }
      [told.events, told.rejected] = [this.#events, this.#rejected];
    });
  }
}

function write(outlet: Outlet, event: AuditEvent, json: string): Promise<boolean> | undefined {
  const { writer, format, maxEventBytes, losses } = outlet;
  if (format === "legacy") return writer.write(eventText(event));
  if (maxEventBytes === undefined || json.length <= maxEventBytes) return writer.write(json);
  const cut = eventJson(withoutBodies(event));
  if (cut.length <= maxEventBytes) return writer.write(cut);
  losses.count++;
  return undefined;
}
