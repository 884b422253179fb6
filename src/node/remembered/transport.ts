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
    const isKept = isPlain && (path === nodePath(nodeName) || objects.some((known) => known.test(path)));
    return isKept ? { key: path } : undefined;
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
  const { store, reach, clock, nodeName } = deps;
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
    const reduced = reduce(value);
    store.note(key, () => reduced, { about: key, kind: "objects", isVital: !store.has(key) });
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

    async *watch(request, signal) {
      if (reach.isAway) await reach.whenBack(signal);
      try {
        yield* inner.watch(request, signal);
      } catch (error) {
        if (!signal.aborted) reach.failed(error);
        throw error;
      }
    },
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
