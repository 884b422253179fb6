// An API group that is answered by code and not by the store: discovery, authorisation and encoding are the chain's, objects
// are made when asked. Whoever registers an aggregated API under the same group and version comes before it.
import type { ResourceInfo } from "#model/resource-info.ts";
import type { RequestInfo } from "./endpoints/request-info.ts";
import type { Result } from "./endpoints/result.ts";

export interface VirtualGroup {
  readonly rows: readonly ResourceInfo[];
  /** `info` fits the scope of `row`, one of `rows`, and is allowed. */
  handle(row: ResourceInfo, info: RequestInfo, query: URLSearchParams): Promise<Result>;
}
