// One event of the audit log as text: audit.k8s.io/v1 JSON on one line, or upstream's older one-line form. Pure.
// Bodies come as JSON already, so that they are written once and as they were at their time.
// Upstream counterpart: apis/audit/v1 and audit/format.go.
import type { StatusDetails } from "#model/status.ts";
import type { UserInfo } from "../authn/user.ts";
import type { Level, Stage } from "./policy.ts";

export interface ObjectReference {
  readonly resource: string;
  readonly namespace?: string;
  readonly name?: string;
  readonly uid?: string;
  readonly apiGroup?: string;
  readonly apiVersion: string;
  readonly resourceVersion?: string;
  readonly subresource?: string;
}

export interface ResponseStatus {
  readonly metadata: object;
  readonly status?: string;
  readonly message?: string;
  readonly reason?: string;
  readonly details?: StatusDetails;
  readonly code: number;
}

export interface AuditEvent {
  readonly level: Level;
  readonly auditId: string;
  readonly stage: Stage;
  readonly requestUri: string;
  readonly verb: string;
  /** Undefined: nobody that is known. */
  readonly user: UserInfo | undefined;
  readonly impersonatedUser: UserInfo | undefined;
  readonly sourceIps: readonly string[];
  readonly userAgent: string;
  readonly objectRef: ObjectReference | undefined;
  readonly responseStatus: ResponseStatus | undefined;
  /** JSON. */
  readonly requestObject: string | undefined;
  /** JSON. */
  readonly responseObject: string | undefined;
  readonly receivedMs: number;
  readonly stageMs: number;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

export function eventJson(event: AuditEvent): string {
  const head = JSON.stringify({
    kind: "Event",
    apiVersion: "audit.k8s.io/v1",
    level: event.level,
    auditID: event.auditId,
    stage: event.stage,
    requestURI: event.requestUri,
    verb: event.verb,
    user: userOf(event.user),
    impersonatedUser: event.impersonatedUser && userOf(event.impersonatedUser),
    sourceIPs: event.sourceIps.length > 0 ? event.sourceIps : undefined,
    userAgent: event.userAgent === "" ? undefined : event.userAgent,
    objectRef: event.objectRef,
    responseStatus: event.responseStatus,
  });
  const tail = JSON.stringify({
    requestReceivedTimestamp: micros(event.receivedMs),
    stageTimestamp: micros(event.stageMs),
    annotations: event.annotations,
  });
  const request = event.requestObject === undefined ? "" : `,"requestObject":${event.requestObject}`;
  const response = event.responseObject === undefined ? "" : `,"responseObject":${event.responseObject}`;
  return `${head.slice(0, -1)}${request}${response},${tail.slice(1)}`;
}

/** Without its bodies, and saying so. */
export const withoutBodies = (event: AuditEvent): AuditEvent => ({
  ...event,
  requestObject: undefined,
  responseObject: undefined,
  annotations: { ...event.annotations, [truncatedKey]: "true" },
});

export const truncatedKey = "audit.k8s.io/truncated";

/** The form `legacy`. */
export function eventText(event: AuditEvent): string {
  const quote = (text: string) => JSON.stringify(text);
  const all = (texts: readonly string[]) => texts.map(quote).join(",");
  const { user, impersonatedUser: other } = event;
  const groups = user && user.groups.length > 0 ? all(user.groups) : "<none>";
  const fields: Readonly<Record<string, string>> = {
    id: event.auditId,
    stage: event.stage,
    ip: event.sourceIps[0] ?? "<unknown>",
    method: event.verb,
    user: user?.name || "<none>",
    groups,
    as: other ? other.name : "<self>",
    asgroups: other ? all(other.groups) : "<lookup>",
    "user-agent": event.userAgent,
    namespace: event.objectRef?.namespace ?? "<none>",
    uri: event.requestUri,
    response: event.responseStatus ? String(event.responseStatus.code) : "<deferred>",
  };
  const pairs = Object.entries(fields).map(([name, value]) => `${name}=${quote(value)}`);
  return `${micros(event.receivedMs)} AUDIT: ${pairs.join(" ")}`;
}

function userOf(user: UserInfo | undefined): object {
  if (!user) return {};
  const { name, uid, groups, extra } = user;
  return {
    username: name,
    uid: uid || undefined,
    groups: groups.length > 0 ? groups : undefined,
    extra: extra && Object.keys(extra).length > 0 ? extra : undefined,
  };
}

/** RFC 3339 with six digits; what is below a millisecond is in the fraction. */
function micros(ms: number): string {
  const whole = Math.floor(ms);
  const rest = Math.floor((ms - whole) * 1000);
  return `${new Date(whole).toISOString().slice(0, 23)}${String(rest).padStart(3, "0")}Z`;
}
