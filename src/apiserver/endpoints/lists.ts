// Lists: one revision, read in pages, with selections and continue tokens. A list that nobody limited is answered with
// its first page and the way to the others (result.ts); one that many ask for is made once (shared-lists.ts).
// Nothing here writes. Upstream counterpart: GetList of etcd3/store.go and its cacher.
import type { Clock } from "#base/clock.ts";
import type { Backend } from "#datastore/backend.ts";
import { badRequest } from "#model/status.ts";
import { nextTurn } from "#platform/turns.ts";
import type { Item } from "../registry/codec.ts";
import { tooLargeRevision } from "../registry/errors.ts";
import { collectionPrefix } from "../registry/keys.ts";
import type { Resource } from "../registry/registry.ts";
import { decodeContinue, encodeContinue, expiredContinue } from "./continue-token.ts";
import { checkListOptions, parseLimit, parseRevision } from "./list-options.ts";
import { acceptsGzip, isPretty } from "./negotiation.ts";
import type { RequestInfo } from "./request-info.ts";
import type { HandlerRequest, ListResult, MoreItems, Result, View } from "./result.ts";
import { parseSelection, type Selection } from "./selection.ts";
import type { ServedResource } from "./served.ts";
import { SharedLists } from "./shared-lists.ts";

export interface ListsDeps {
  readonly clock: Clock;
  readonly backend: Backend;
}

export interface ListPage {
  readonly items: readonly Item[];
  readonly revision: number;
  readonly next: string | undefined;
  readonly remaining: number;
  readonly more?: MoreItems;
}

/** Objects looked at in one go when a limited list has a selector. */
const selectorPage = 500;
/** Objects of a list without a limit that are read before anything is answered, and then at a time. */
const firstPage = 100;
const maxPage = 1000;
const pageBytes = 256 * 1024;

export class Lists {
  readonly #deps: ListsDeps;
  readonly #shared: SharedLists;
  constructor(deps: ListsDeps) {
    this.#deps = deps;
    this.#shared = new SharedLists(deps);
  }

  async list(served: ServedResource, view: View, info: RequestInfo, request: HandlerRequest): Promise<Result> {
    const { query } = request;
    checkListOptions(query, false);
    const selection = parseSelection(served, query);
    const isSelecting = selection.matches !== undefined || selection.name !== undefined;
    const token = query.get("continue") ?? "";
    const isOfAnyState = query.get("resourceVersion") === "0" || token !== "";
    if (isSelecting || !isOfAnyState || !acceptsGzip(request.header("accept-encoding"))) {
      return this.#readList(served, view, info, query, selection);
    }
    const what = `${view.info.group}/${view.info.version}/${view.info.plural} ${info.namespace}?${query}`;
    const pretty = isPretty(query, request.header("user-agent"));
    const key = `${what} ${pretty} ${request.header("accept") ?? ""}`;
    return this.#shared.get(key, token !== "", () => this.#readList(served, view, info, query, selection));
  }

  async #readList(
    served: ServedResource,
    view: View,
    info: RequestInfo,
    query: URLSearchParams,
    selection: Selection,
  ): Promise<ListResult> {
    const limit = parseLimit(query.get("limit"));
    const token = query.get("continue") ?? "";
    const page = await this.page(served, info.namespace, selection, limit, token, query);
    return {
      type: "list",
      view,
      items: page.items,
      more: page.more,
      metadata: {
        resourceVersion: String(page.revision),
        ...(page.next === undefined ? {} : { continue: page.next }),
        ...(page.next === undefined || selection.matches || selection.name !== undefined
          ? {}
          : { remainingItemCount: page.remaining }),
      },
    };
  }

  /** At most `limit` (0: all) of what is selected, from `token` on; with the token to go on with. */
  async page(
    served: ServedResource,
    namespace: string,
    selection: Selection,
    limit: number,
    token: string,
    query: URLSearchParams,
  ): Promise<ListPage> {
    const { storage } = served.resource;
    const { backend } = this.#deps;
    let revision = 0;
    let after: string | undefined;
    const prefix = collectionPrefix(storage.info, namespace);
    const asked = parseRevision(query.get("resourceVersion"));
    if (token !== "") {
      if (asked > 0) throw badRequest("specifying resource version is not allowed when using continue");
      const decoded = decodeContinue(token);
      revision = decoded.revision;
      after = prefix + decoded.after;
    } else {
      const match = query.get("resourceVersionMatch") ?? "";
      const current = backend.revision();
      if (asked > current) throw tooLargeRevision(asked, current);
      if (asked > 0 && (match === "Exact" || (match === "" && limit > 0))) revision = asked;
    }
    // One object by name needs no scan.
    if (
      selection.name !== undefined &&
      (namespace !== "" || !storage.info.namespaced) &&
      revision === 0 &&
      after === undefined
    ) {
      const item = await storage.get(namespace, selection.name);
      const items = item && (!selection.matches || selection.matches(storage.decode(item))) ? [item] : [];
      return { items, revision: backend.revision(), next: undefined, remaining: 0 };
    }
    const isNamed = (item: Item) => selection.name === undefined || item.key.endsWith(`/${selection.name}`);
    const isSelecting = selection.matches !== undefined || selection.name !== undefined;
    const mayFollow = limit === 0 && token === "" && !isSelecting && storage.isPlain;
    const size = isSelecting ? Math.max(limit, selectorPage) : limit === 0 && mayFollow ? firstPage : limit;
    const items: Item[] = [];
    for (;;) {
      let page: Awaited<ReturnType<typeof storage.list>>;
      try {
        page = await storage.list(namespace, { limit: size, revision, ...(after === undefined ? {} : { after }) });
      } catch (error) {
        throw token === "" ? error : expiredContinue(error, after!.slice(prefix.length));
      }
      revision = page.revision;
      if (mayFollow && page.remaining > 0) {
        const pages = () => pagesBehind(storage, namespace, page.items, revision);
        return { items: page.items, revision, next: undefined, remaining: 0, more: { count: page.remaining, pages } };
      }
      for (let i = 0; i < page.items.length; i++) {
        const item = page.items[i]!;
        after = item.key;
        if (isNamed(item) && (!selection.matches || selection.matches(storage.decode(item)))) items.push(item);
        if (limit > 0 && items.length === limit) {
          const remaining = page.items.length - i - 1 + page.remaining;
          const next = remaining > 0 ? encodeContinue({ revision, after: after.slice(prefix.length) }) : undefined;
          return { items, revision, next, remaining };
        }
      }
      if (page.remaining <= 0 || page.items.length === 0) return { items, revision, next: undefined, remaining: 0 };
      await nextTurn();
    }
  }
}

/**
 * A list that nobody limited, page by page: history is kept for minutes, so its revision stays while it is sent. Pages are
 * of some bytes, going by the one before.
 */
async function* pagesBehind(
  storage: Resource["storage"],
  namespace: string,
  first: readonly Item[],
  revision: number,
): AsyncGenerator<readonly Item[]> {
  let last = first;
  for (let remaining = 1; remaining > 0 && last.length > 0; ) {
    await nextTurn();
    const bytes = last.reduce((sum, { value }) => sum + value.length, 0);
    const limit = Math.max(1, Math.min(maxPage, Math.floor((pageBytes * last.length) / Math.max(1, bytes))));
    const page = await storage.list(namespace, { limit, revision, after: last.at(-1)!.key });
    yield page.items;
    last = page.items;
    remaining = page.remaining;
  }
}
