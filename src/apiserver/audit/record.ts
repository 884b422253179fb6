// What is gathered of one request for the audit log, from when it is known who asks until the answer is out, and told at
// the stages its policy wants. Costs a small object where nothing is told. Upstream counterpart: audit.AuditContext and
// endpoints/filters/audit.go.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { UnknownObject } from "#model/object.ts";
import { internalError, type Status } from "#model/status.ts";
import { isIp } from "#model/validation/names.ts";
import type { RequestHeaders } from "#platform/https-server.ts";
import { parseYaml } from "#wire/yaml.ts";
import type { UserInfo } from "../authn/user.ts";
import type { RequestInfo } from "../endpoints/request-info.ts";
import { isFailure } from "./built-in-policy.ts";
import { type AuditEvent, type ObjectReference, type ResponseStatus, truncatedKey } from "./event.ts";
import { type Choice, levels, type Stage } from "./policy.ts";

export interface AuditedRequest {
  readonly auditId: string;
  readonly info: RequestInfo;
  /** Who sent it, before acting as anybody else; undefined: nobody that is known. */
  readonly user: UserInfo | undefined;
  /** Path and query as they came. */
  readonly uri: string;
  readonly headers: RequestHeaders;
  readonly remoteAddress: string;
  /** Watches and streams: told of when they begin as well. */
  readonly isLongRunning: boolean;
}

/** Where events go. */
export interface EventSink {
  /** Undefined: nobody has to wait. Else false where a request must not go on, as it could not be kept. Never rejects. */
  emit(event: AuditEvent): Promise<boolean> | undefined;
  /** A request was refused because its event could not be kept. */
  rejected(): void;
  readonly clock: Clock;
}

/** More than a body that clients may send; a list beyond it would need its size again to be written. */
export const maxObjectBytes = 8 * 1024 * 1024;
const maxUserAgentChars = 1024;
/** Addresses of proxies in front; the header is the client's. */
const maxForwarded = 32;

export class AuditRecord {
  readonly #request: AuditedRequest;
  readonly #choice: Choice;
  readonly #sink: EventSink;
  readonly #receivedMs: number;
  readonly #startedMs: number;
  #impersonated: UserInfo | undefined;
  #annotations: Record<string, string> | undefined;
  #decision: { readonly decision: string; readonly reason: string } | undefined;
  #named: Partial<Record<"namespace" | "name" | "uid" | "resourceVersion", string>> | undefined;
  #requestObject: string | undefined;
  #responseObject: string | undefined;
  #code = 0;
  #status: Omit<ResponseStatus, "metadata" | "code"> | undefined;
  #isPanic = false;
  #end: Promise<void> | "told" | undefined;

  constructor(request: AuditedRequest, choice: Choice, sink: EventSink) {
    this.#request = request;
    this.#choice = choice;
    this.#sink = sink;
    this.#receivedMs = sink.clock.now();
    this.#startedMs = sink.clock.monotonicMs();
  }

  get wantsAnswer(): boolean {
    return this.#choice.level === "RequestResponse";
  }
  get #wantsBodies(): boolean {
    return levels.indexOf(this.#choice.level) >= levels.indexOf("Request");
  }

  /** Before anything is done; rejects where that must not go on. Undefined: nothing to wait for. */
  received(): Promise<void> | undefined {
    if (this.#choice.onlyFailures) return undefined;
    const kept = this.#tell("RequestReceived");
    return kept && this.#checked(kept);
  }

  async #checked(kept: Promise<boolean>): Promise<void> {
    if (await kept) return;
    this.#sink.rejected();
    throw internalError("the audit log cannot be written");
  }

  /** The first value of a key stays. */
  annotate(key: string, value: string): void {
    this.#annotations ??= {};
    if (!Object.hasOwn(this.#annotations, key)) this.#annotations[key] = value;
  }

  /** What the authoriser said. */
  decided(decision: "allow" | "forbid", reason: string): void {
    this.#decision ??= { decision, reason };
  }

  actingAs(user: UserInfo): void {
    this.#impersonated = user;
  }

  /** The body as it was understood, with defaults and before admission. */
  requestObject(object: object): void {
    if (this.#end !== undefined) return;
    const { metadata } = object as Partial<UnknownObject>;
    if (typeof metadata === "object" && metadata !== null) {
      const { namespace, name, uid, resourceVersion } = metadata;
      this.#name({ namespace, name, uid, resourceVersion });
    }
    if (this.#wantsBodies) this.#requestObject = this.#textOf(object);
  }

  /** A patch is no object: it is told of as it came. */
  requestPatch(bytes: Uint8Array, contentType: string | undefined): void {
    if (!this.#wantsBodies || this.#end !== undefined || contentType?.includes("cbor")) return;
    const text = new TextDecoder().decode(bytes);
    try {
      this.#requestObject = JSON.stringify(JSON.parse(text));
    } catch {
      // Apply takes YAML; what is neither is refused, and kept as text.
      this.#requestObject = JSON.stringify(yamlOf(text) ?? text);
    }
  }

  /** What was made or found, of which a request may not have known the name. */
  answered(key: string): void {
    if (this.#request.info.verb === "create") this.#name({ name: key.slice(key.lastIndexOf("/") + 1) });
  }

  /** Of the level RequestResponse. Undefined: too large to be kept. */
  responseObject(object: UnknownObject | undefined): void {
    if (this.#end !== undefined) return;
    if (object) this.#responseObject = this.#textOf(object);
    else this.annotate(truncatedKey, "true");
  }

  /** The Status that was answered. */
  status({ status, message, reason, details }: Status): void {
    this.#status = {
      status,
      ...(message === undefined ? {} : { message }),
      ...(reason === undefined ? {} : { reason }),
      ...(details && Object.keys(details).length > 0 ? { details } : {}),
    };
  }

  /** The answer begins. */
  head(code: number): void {
    if (this.#code !== 0 || this.#end !== undefined) return;
    this.#code = code;
    if (this.#request.isLongRunning && this.#isTold()) void this.#tell("ResponseStarted");
  }

  /** Something broke that should not be able to. */
  panicked(error: unknown): void {
    this.#isPanic = true;
    this.#status = { status: "Failure", message: `APIServer panic'd: ${messageOf(error)}`, reason: "InternalError" };
  }

  /** Who asks is not known; `tried` says how they wanted to be. Upstream tells of this at one stage only. */
  refused(tried: string): Promise<void> | undefined {
    this.#code = 401;
    this.#status = { message: tried };
    return this.#finish("ResponseStarted");
  }

  /** Before the last of the answer goes out: what it must wait for. */
  ending(): Promise<void> | undefined {
    return this.#request.isLongRunning ? undefined : this.complete();
  }

  /** Once; later calls have what the first has. Never rejects. */
  complete(): Promise<void> | undefined {
    if (this.#end !== undefined) return this.#end === "told" ? undefined : this.#end;
    if (this.#code === 0) {
      this.#status ??= { status: "Success", message: "Connection closed early" };
      this.head(this.#isPanic ? 500 : 200);
    }
    return this.#isTold() ? this.#finish(this.#isPanic ? "Panic" : "ResponseComplete") : undefined;
  }

  #finish(stage: Stage): Promise<void> | undefined {
    const kept = this.#tell(stage);
    // Nothing that comes later may be gathered.
    this.#end = kept ? kept.then(() => {}) : "told";
    return kept && (this.#end as Promise<void>);
  }

  #isTold(): boolean {
    return !this.#choice.onlyFailures || isFailure(this.#code);
  }

  #tell(stage: Stage): Promise<boolean> | undefined {
    return this.#choice.omitStages.has(stage) ? undefined : this.#sink.emit(this.#event(stage));
  }

  #event(stage: Stage): AuditEvent {
    const { auditId, info, user, uri, headers, remoteAddress } = this.#request;
    const decided = this.#decision && {
      "authorization.k8s.io/decision": this.#decision.decision,
      "authorization.k8s.io/reason": this.#decision.reason,
    };
    return {
      level: this.#choice.level,
      auditId,
      stage,
      requestUri: uri,
      verb: info.verb,
      user,
      impersonatedUser: this.#impersonated,
      sourceIps: sourceIpsOf(headers, remoteAddress),
      userAgent: userAgentOf(headers),
      objectRef: this.#objectRef(),
      responseStatus: this.#code === 0 ? undefined : { metadata: {}, ...this.#status, code: this.#code },
      requestObject: this.#requestObject,
      responseObject: this.#responseObject,
      receivedMs: this.#receivedMs,
      // What it took is right even where the wall clock is set meanwhile.
      stageMs: this.#receivedMs + (this.#sink.clock.monotonicMs() - this.#startedMs),
      annotations: decided || this.#annotations ? { ...decided, ...this.#annotations } : undefined,
    };
  }

  #objectRef(): ObjectReference | undefined {
    const { info } = this.#request;
    if (!info.isResource) return undefined;
    const namespace = info.namespace || this.#named?.namespace;
    const name = info.name || this.#named?.name;
    const { uid, resourceVersion } = this.#named ?? {};
    return {
      resource: info.resource,
      ...(namespace ? { namespace } : {}),
      ...(name ? { name } : {}),
      ...(uid ? { uid } : {}),
      ...(info.group === "" ? {} : { apiGroup: info.group }),
      apiVersion: info.version,
      ...(resourceVersion ? { resourceVersion } : {}),
      ...(info.subresource === "" ? {} : { subresource: info.subresource }),
    };
  }

  /** What is known already stays. Bodies are the clients': anything may be in them. */
  #name(found: Readonly<Record<string, unknown>>): void {
    this.#named ??= {};
    for (const field of ["namespace", "name", "uid", "resourceVersion"] as const) {
      const value = found[field];
      if (typeof value === "string" && value !== "") this.#named[field] ??= value;
    }
  }

  #textOf(object: object): string {
    return JSON.stringify(this.#choice.omitManagedFields ? withoutManagedFields(object as UnknownObject) : object);
  }
}

/** Of an object, or of all objects of a list; the original stays as it is. */
function withoutManagedFields(object: UnknownObject): UnknownObject {
  const { items } = object as { readonly items?: unknown };
  const whole = Array.isArray(items) ? { ...object, items: items.map((each) => withoutManagedFields(each)) } : object;
  if (whole.metadata?.managedFields === undefined) return whole;
  const { managedFields: _managedFields, ...metadata } = whole.metadata;
  return { ...whole, metadata };
}

function yamlOf(text: string): unknown {
  try {
    return parseYaml(text);
  } catch {
    return undefined;
  }
}

/** As proxies in front tell it, and last who really is at the other end. */
function sourceIpsOf(headers: RequestHeaders, remoteAddress: string): string[] {
  const texts = (name: string) =>
    String(headers[name] ?? "")
      .split(",", maxForwarded)
      .map((each) => each.trim())
      .filter(isIp);
  const out = headers["x-forwarded-for"] === undefined ? [] : texts("x-forwarded-for");
  if (headers["x-real-ip"] !== undefined) {
    const [real] = texts("x-real-ip");
    if (real !== undefined && !out.includes(real)) out.push(real);
  }
  const remote = remoteAddress.replace(/^::ffff:(?=\d+\.)/i, "");
  if (remote !== "" && out.at(-1) !== remote) out.push(remote);
  return out;
}

function userAgentOf(headers: RequestHeaders): string {
  const agent = String(headers["user-agent"] ?? "");
  return agent.length <= maxUserAgentChars ? agent : `${agent.slice(0, maxUserAgentChars)}...TRUNCATED`;
}
