// The node's requests with a memory: what its pods are made of (config maps, secrets, claims, volumes, tokens, services of
// their namespaces, its own Node) is kept as it is read, and given again while there is no server. While the server is known
// to be away writes fail at once and lists wait for it. Which requests have a memory stands in the table below.
import type { Clock } from "#base/clock.ts";
import { isAbort } from "#base/errors.ts";
import type { ApiRequest, Transport } from "#client/transport.ts";
import type { UnknownObject } from "#model/object.ts";
import { isNotFound, notFound } from "#model/status.ts";
import { type ServerReach, saysAway, serverAway } from "./reach.ts";
import type { RememberedStore } from "./store.ts";

export interface RememberingDeps {
  readonly store: RememberedStore;
  readonly reach: ServerReach;
  readonly clock: Clock;
  readonly nodeName: string;
  /** Whether a pod that is written down, or something other than a pod, is made of what lies under this key. */
  readonly isWanted: (key: string) => boolean;
}

interface Memory {
  readonly key: string;
  /** Of a key that is there already: the file is left alone for so long. */
  readonly restMs?: number;
}

const objects: readonly RegExp[] = [
  /^\/api\/v1\/namespaces\/[^/]+\/(?:configmaps|secrets|persistentvolumeclaims)\/[^/]+$/,
  /^\/api\/v1\/namespaces\/[^/]+\/services(?:\/kubernetes)?$/,
  /^\/api\/v1\/persistentvolumes\/[^/]+$/,
  /^\/apis\/storage\.k8s\.io\/v1\/csidrivers\/[^/]+$/,
  /^\/apis\/node\.k8s\.io\/v1\/runtimeclasses\/[^/]+$/,
];
/** A node asks for its own only. */
const attachmentPath = /^\/apis\/storage\.k8s\.io\/v1\/volumeattachments\/[^/]+$/;
/** The attachment of a pod that is made again goes and comes: only one that stays away is put down as gone. */
const detachedMs = 60_000;
const tokenPath = /^\/api\/v1\/namespaces\/[^/]+\/serviceaccounts\/[^/]+\/token$/;
/** Tokens are renewed every hour; without a server an older one is as good, and a file an hour per pod is not. */
const tokenRestMs = 24 * 3600_000;

/** Silence after which a request counts as lost; where there is something to give instead it is not waited for so long. */
const silenceMs = { known: 3_000, unknown: 20_000 } as const;

/** Of the node with this name. */
export const nodePath = (nodeName: string): string => `/api/v1/nodes/${encodeURIComponent(nodeName)}`;
export const tokenPrefix = (podUid: string): string => `token/${podUid}/`;

/** What the answer is kept under; undefined for requests that have no memory. */
export function memoryOf(request: ApiRequest, nodeName: string): Memory | undefined {
  const { method, path } = request;
  if (method === "GET") {
    const isPlain = Object.values(request.query ?? {}).every((value) => value === undefined);
    const isKnown = path === nodePath(nodeName) || attachmentPath.test(path) || objects.some((one) => one.test(path));
    return isPlain && isKnown ? { key: path } : undefined;
  }
  if (method !== "POST" || !tokenPath.test(path)) return undefined;
  const { spec } = request.body as {
    spec?: { audiences?: string[]; expirationSeconds?: number; boundObjectRef?: { uid?: string } };
  };
  const uid = spec?.boundObjectRef?.uid;
  if (uid === undefined) return undefined;
  const audience = (spec?.audiences ?? []).join(",");
  return { key: `${tokenPrefix(uid)}${spec?.expirationSeconds ?? 0}/${audience}`, restMs: tokenRestMs };
}

export function createRememberingTransport(inner: Transport, deps: RememberingDeps): Transport {
  const { store, reach, clock, nodeName, isWanted } = deps;
  const notedAtMs = new Map<string, number>();

  const remembered = async (key: string): Promise<UnknownObject | undefined> => {
    const kept = await store.get(key);
    if (kept === null) throw notFoundAt(key);
    return kept as UnknownObject | undefined;
  };

  const keep = ({ key, restMs }: Memory, value: unknown): void => {
    const atMs = clock.monotonicMs();
    const last = notedAtMs.get(key);
    if (restMs !== undefined) {
      if (last !== undefined && atMs - last < restMs && store.has(key)) return;
      notedAtMs.set(key, atMs);
      // As many as there are tokens; what is forgotten here is only written once more.
      if (notedAtMs.size > 1_000) notedAtMs.delete(notedAtMs.keys().next().value!);
    }
    if (attachmentPath.test(key)) {
      keepAttachment(key, value);
      return;
    }
    const reduced = reduce(value);
    const urgency = store.isKept(key) ? "spare" : isWanted(key) ? "vital" : "held";
    store.note(key, () => reduced, { about: key, kind: "objects", urgency });
  };

  /** That a volume is attached here is relied on at a boot: it must not be known any longer than it is so. */
  const keepAttachment = (key: string, value: unknown): void => {
    const reduced = reduceAttachment(value as UnknownObject | null);
    const isAttached = reduced?.status.attached === true && !reduced.metadata.deletionTimestamp;
    if (!isAttached && !store.has(key)) return;
    const withinMs = isAttached ? {} : { withinMs: detachedMs };
    store.note(key, () => reduced, { about: key, kind: "objects", urgency: "vital", ...withinMs });
  };

  /** The request, given up after a silence. */
  const ask = async (
    request: ApiRequest,
    hasKept: boolean,
    signal: AbortSignal | undefined,
  ): Promise<UnknownObject> => {
    const cut = new AbortController();
    const onAbort = () => cut.abort(signal?.reason);
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    const cancel = clock.after(hasKept ? silenceMs.known : silenceMs.unknown, () => cut.abort(serverAway()));
    try {
      return await inner.request(request, cut.signal);
    } finally {
      cancel();
      signal?.removeEventListener("abort", onAbort);
    }
  };

  return {
    async request(request, signal) {
      const memory = memoryOf(request, nodeName);
      if (reach.isAway) {
        const kept = memory && (await remembered(memory.key));
        if (kept !== undefined) return kept;
        // Whoever lists can do nothing but wait.
        const isList = request.method === "GET" && request.query?.["limit"] !== undefined;
        if (!isList || !signal) throw serverAway();
        await reach.whenBack(signal);
      }
      try {
        const answer = await ask(request, memory !== undefined && store.has(memory.key), signal);
        if (memory) keep(memory, answer);
        return answer;
      } catch (error) {
        if (signal && isAbort(error, signal)) throw error;
        // That it is not there is worth as much: an optional one must not be waited for.
        if (memory && request.method === "GET" && isNotFound(error)) keep(memory, null);
        if (!saysAway(error)) throw error;
        reach.failed(error);
        const kept = memory && (await remembered(memory.key));
        if (kept === undefined) throw error;
        return kept;
      }
    },

    async *watch(request, signal, onOpen) {
      if (reach.isAway) await reach.whenBack(signal);
      try {
        yield* inner.watch(request, signal, onOpen);
      } catch (error) {
        if (!signal.aborted) reach.failed(error);
        throw error;
      }
    },
  };
}

/** What a driver is given of it; an attachment that is made anew for the same volume is the same. */
function reduceAttachment(value: UnknownObject | null) {
  if (value === null) return null;
  const { name, deletionTimestamp } = value.metadata;
  const { attached, attachmentMetadata } = (value["status"] ?? {}) as {
    attached?: boolean;
    attachmentMetadata?: Readonly<Record<string, string>>;
  };
  return {
    ...{ apiVersion: "storage.k8s.io/v1", kind: "VolumeAttachment", spec: value["spec"] },
    metadata: { name, ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }) },
    status: { attached, ...(attachmentMetadata ? { attachmentMetadata } : {}) },
  };
}

/** Without what changes though nothing has: revisions, who wrote which field, heartbeats. */
export function reduce(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const object = value as UnknownObject & { readonly items?: readonly UnknownObject[]; readonly kind?: string };
  const { resourceVersion: _, managedFields: __, generation: ___, ...metadata } = object.metadata ?? {};
  if (object.items) return { ...object, metadata, items: object.items.map(reduce) };
  if (object.kind !== "Node") return { ...object, metadata };
  const { addresses } = (object["status"] ?? {}) as { addresses?: unknown };
  return { ...object, metadata, status: { addresses } };
}

function notFoundAt(path: string): Error {
  const parts = path.split("/");
  const group = parts[1] === "apis" ? (parts[2] ?? "") : "";
  return notFound({ group, resource: parts.at(-2) ?? "" }, decodeURIComponent(parts.at(-1) ?? ""));
}
