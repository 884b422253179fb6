// What the request chain works with, whoever asks: a request that is authenticated and not tied to HTTP, and the answer
// before it has a representation. The HTTP face encodes answers (encode.ts, write.ts); the transport inside the process
// hands out decoded objects (local-transport.ts).

import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import type { ResponseHeaders } from "#platform/https-server.ts";
import type { AuditRecord } from "../audit/record.ts";
import type { UserInfo } from "../authn/user.ts";
import type { Item } from "../registry/codec.ts";
import type { ResourceStorage } from "../registry/storage.ts";
import type { FeedPlan } from "../watch/feed.ts";
import type { Connector } from "./connect.ts";
import type { RequestInfo } from "./request-info.ts";

export interface HandlerRequest {
  readonly method: string;
  /** Escaped, without query. */
  readonly path: string;
  readonly query: URLSearchParams;
  header(name: string): string | undefined;
  readonly user: UserInfo;
  readonly signal: AbortSignal;
  /** All of it, bounded; rejects with 413. */
  body(): Promise<Uint8Array>;
  /** For the Warning header. */
  warn(message: string): void;
  /** What the audit log is told of it; undefined: nothing. */
  readonly audit?: AuditRecord | undefined;
}

/** A resource in the version it was asked for. */
export interface View {
  readonly info: ResourceInfo;
  readonly storage: ResourceStorage;
}

export type IncludeObject = "None" | "Metadata" | "Object";

export type Result =
  | { readonly type: "item"; readonly status: number; readonly view: View; readonly item: Item }
  /** Not an item of the store: a Status, a Scale, a review. `transforms` false: it has no table and no metadata form. */
  | { readonly type: "object"; readonly status: number; readonly object: UnknownObject; readonly transforms?: false }
  | ListResult
  | CompressedAnswer
  /** Made when asked and never stored; unless it is a list, exactly one. */
  | {
      readonly type: "objects";
      readonly info: ResourceInfo;
      readonly objects: readonly UnknownObject[];
      readonly isList: boolean;
    }
  | { readonly type: "watch"; readonly view: View; readonly plan: FeedPlan }
  | {
      readonly type: "raw";
      readonly status: number;
      readonly contentType: string;
      readonly body: Uint8Array | string;
      readonly headers?: ResponseHeaders;
    }
  | { readonly type: "connect"; readonly connector: Connector; readonly info: RequestInfo };

export interface ListResult {
  readonly type: "list";
  readonly view: View;
  /** The first of them, or all. */
  readonly items: readonly Item[];
  readonly metadata: ListMetadata;
  readonly more?: MoreItems | undefined;
  /** Where others want the same answer: what `encode` makes, or what it made for somebody who was sooner. */
  readonly share?: (encode: () => Promise<CompressedAnswer>) => Promise<CompressedAnswer>;
}

/** A list as it goes out to several, compressed and in parts. */
export interface CompressedAnswer {
  readonly type: "compressed";
  readonly contentType: string;
  readonly parts: readonly Uint8Array[];
}

/** What comes behind the first page of a list, of the same revision; read as whoever answers has room for it. */
export interface MoreItems {
  readonly count: number;
  pages(): AsyncIterable<readonly Item[]>;
}

/** The whole list, for forms that cannot be made bit by bit. */
export async function allItems({ items, more }: ListResult): Promise<readonly Item[]> {
  if (!more) return items;
  const all = [...items];
  for await (const page of more.pages()) for (const item of page) all.push(item);
  return all;
}

export interface ListMetadata {
  readonly resourceVersion: string;
  readonly continue?: string | undefined;
  readonly remainingItemCount?: number | undefined;
}

export const text = (status: number, body: string, headers?: ResponseHeaders): Result => ({
  type: "raw",
  status,
  contentType: "text/plain; charset=utf-8",
  body,
  ...(headers ? { headers } : {}),
});

/** For paths nobody serves; as upstream's path mux says it. */
export const noSuchPath = (): Result => text(404, "404 page not found\n");
