// The API for parts of the same process: the same chain behind authentication, without HTTP and without encoding.
// Objects are decoded once and shared by everybody who watches or reads them: they must not be changed.
import { assert } from "#base/assert.ts";
import { AppError } from "#base/errors.ts";
import type { ApiRequest, ClientWatchEvent, Transport } from "#client/transport.ts";
import type { ApiObject, UnknownObject } from "#model/object.ts";
import { groupVersion } from "#model/resource-info.ts";
import { ApiError, internalError, type Status } from "#model/status.ts";
import { recordAnswer } from "./audit/answer.ts";
import type { Auditor } from "./audit/auditor.ts";
import type { AuditRecord } from "./audit/record.ts";
import { loopback, type UserInfo } from "./authn/user.ts";
import type { HandlerRequest, ListResult, Result, View } from "./endpoints/result.ts";
import type { Handler } from "./handler.ts";
import type { Item } from "./registry/codec.ts";
import { fromStorage } from "./registry/convert.ts";
import { toApiError } from "./registry/errors.ts";
import { type FeedDeps, type FeedEvent, runFeed } from "./watch/feed.ts";

export interface LocalTransportDeps {
  readonly handler: Handler;
  readonly feed: FeedDeps;
  /** Undefined: parts of the process are not told of. */
  readonly audit?: Auditor | undefined;
}

/** Events a reader inside the process may owe before its watch is ended; informers then resume from their last. */
const maxQueuedEvents = 20_000;
const never = new AbortController().signal;

export function createLocalTransport(deps: LocalTransportDeps, user: UserInfo): Transport {
  const run: Run = async (request, signal) => {
    const asked = handlerRequest(request, user, signal);
    const audit = deps.audit?.beginInside({ ...request, query: asked.query, user, userAgent: agentOf(user) });
    try {
      await audit?.received();
      const result = await deps.handler.handle(audit ? { ...asked, audit, body: audited(asked, audit) } : asked);
      if (audit) {
        recordAnswer(audit, result);
        audit.head("status" in result ? result.status : 200);
        if (result.type !== "watch") await audit.complete();
      }
      return { result, audit };
    } catch (thrown) {
      const error = toApiError(thrown);
      audit?.status(error.status);
      audit?.head(error.code);
      await audit?.complete();
      throw error;
    }
  };
  return {
    async request(request, signal = never) {
      signal.throwIfAborted();
      const { result } = await run(request, signal);
      return result.type === "list" ? decodedList(result) : decoded(result);
    },
    watch: (request, signal, onOpen) => watch(deps, run, request, { signal, onOpen }),
  };
}

/** `audit` is to be completed when a watch ends; of anything else it is already. */
type Run = (
  request: ApiRequest,
  signal: AbortSignal,
) => Promise<{ readonly result: Result; readonly audit: AuditRecord | undefined }>;

const audited = (request: HandlerRequest, audit: AuditRecord) => async (): Promise<Uint8Array> => {
  const bytes = await request.body();
  if (request.method === "PATCH") audit.requestPatch(bytes, request.header("content-type"));
  return bytes;
};

function handlerRequest(request: ApiRequest, user: UserInfo, signal: AbortSignal): HandlerRequest {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(request.query ?? {})) if (value !== undefined) query.set(key, value);
  const headers: Readonly<Record<string, string | undefined>> = {
    "content-type": request.contentType,
    accept: request.accept,
    "user-agent": agentOf(user),
  };
  return {
    method: request.method,
    path: request.path,
    query,
    header: (name) => headers[name],
    user,
    signal,
    async body() {
      if (request.body === undefined) return new Uint8Array();
      const body = request.method === "PUT" ? withoutManagers(request.body) : request.body;
      return new TextEncoder().encode(JSON.stringify(body));
    },
    warn() {},
  };
}

/** What a part of the process calls itself, as the same part of upstream does: it shows in managedFields. */
function agentOf(user: UserInfo): string {
  if (user.name === loopback.name) return "kube-controller-manager";
  if (user.name.startsWith("system:node:")) return "kubelet";
  return user.name.slice(user.name.lastIndexOf(":") + 1);
}

/** An update that leaves managedFields out means those that are stored; most of the bytes of small objects are theirs. */
function withoutManagers(body: unknown): unknown {
  if (typeof body !== "object" || body === null) return body;
  const { metadata } = body as Partial<ApiObject>;
  if (metadata?.managedFields === undefined) return body;
  const { managedFields: _managedFields, ...rest } = metadata;
  return { ...body, metadata: rest };
}

/** A page at a time, with turns in between. */
async function decodedList(result: ListResult): Promise<UnknownObject> {
  const { view, metadata, more } = result;
  const items = result.items.map((item) => show(view, item));
  if (more) for await (const page of more.pages()) for (const item of page) items.push(show(view, item));
  return {
    kind: `${view.info.kind}List`,
    apiVersion: groupVersion(view.info),
    metadata: metadata as UnknownObject["metadata"],
    items,
  };
}

function decoded(result: Exclude<Result, ListResult>): UnknownObject {
  switch (result.type) {
    case "item":
      return show(result.view, result.item);
    case "objects": {
      const { info, objects, isList } = result;
      if (!isList) return objects[0]!;
      const list = { kind: `${info.kind}List`, apiVersion: groupVersion(info), metadata: {}, items: objects };
      return list as unknown as UnknownObject;
    }
    case "object": {
      const { status, code } = result.object as unknown as Status;
      if (result.object.kind === "Status" && status === "Failure")
        throw ApiError.from({ ...(result.object as unknown as Status), code: code ?? 500 });
      return result.object;
    }
    case "raw": {
      const text = typeof result.body === "string" ? result.body : new TextDecoder().decode(result.body);
      if (result.status >= 400)
        throw new ApiError(result.status, result.status === 404 ? "NotFound" : "", text.trim(), {});
      if (!result.contentType.startsWith("application/json"))
        throw internalError(`the answer is ${result.contentType} and no object`);
      return JSON.parse(text) as UnknownObject;
    }
    case "compressed":
      throw internalError("the answer is compressed, which was not asked for");
    case "watch":
    case "connect":
      throw internalError("a stream is not an object");
  }
}

const show = (view: View, item: Item): UnknownObject => fromStorage(view.info, view.storage.decode(item));

async function* watch(
  deps: LocalTransportDeps,
  run: Run,
  request: ApiRequest,
  { signal, onOpen }: { readonly signal: AbortSignal; readonly onOpen: (() => void) | undefined },
): AsyncGenerator<ClientWatchEvent> {
  if (signal.aborted) return;
  const { result, audit } = await run({ ...request, query: { ...request.query, watch: "true" } }, signal);
  if (result.type !== "watch") {
    if (result.type !== "list") decoded(result);
    throw internalError("not a watch");
  }
  onOpen?.();
  const { view } = result;
  const stop = new AbortController();
  const onAbort = () => stop.abort(new AppError("APISERVER_WATCH_STOP", "the watch was closed"));
  signal.addEventListener("abort", onAbort, { once: true });
  let queue: ClientWatchEvent[] = [];
  let over = false;
  let wake = () => {};
  let drained = () => {};
  const push = (event: ClientWatchEvent) => {
    queue.push(event);
    if (queue.length > maxQueuedEvents) {
      queue = [];
      over = true;
      onAbort();
    }
    wake();
  };
  const shown = (event: FeedEvent): ClientWatchEvent => ({ type: event.type, object: show(view, event.item) });
  const feed = runFeed(
    result.plan,
    deps.feed,
    {
      async initial(events) {
        for (const event of events) push(shown(event));
        // The next slice is decoded when this one has been taken.
        await new Promise<void>((resolve) => {
          drained = resolve;
          if (queue.length === 0 || stop.signal.aborted) resolve();
        });
      },
      events(events) {
        for (const event of events) push(shown(event));
      },
      bookmark(revision, initialEnd) {
        const metadata = {
          resourceVersion: String(revision),
          ...(initialEnd ? { annotations: { "k8s.io/initial-events-end": "true" } } : {}),
        };
        const object: ApiObject = { kind: view.info.kind, apiVersion: groupVersion(view.info), metadata };
        push({ type: "BOOKMARK", object });
      },
      error: (status) => push({ type: "ERROR", object: status }),
      end() {},
    },
    stop.signal,
  ).then(() => {
    over = true;
    wake();
  });
  stop.signal.addEventListener("abort", () => {
    drained();
    wake();
  });
  try {
    for (;;) {
      const batch = queue;
      queue = [];
      for (const event of batch) {
        if (signal.aborted) return;
        yield event;
      }
      drained();
      if (queue.length > 0) continue;
      if (over || signal.aborted) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (queue.length > 0 || over || signal.aborted) resolve();
      });
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    onAbort();
    await feed;
    await audit?.complete();
    assert(stop.signal.aborted, "a watch ended without being stopped");
  }
}
