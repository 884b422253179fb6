// A resource in one version as the endpoints serve it, whether its rows are built in or come from a definition.
// The least that lists, selections, verbs and tables of custom resources share. Upstream counterpart: RequestScope.
import type { ResourceInfo } from "#model/resource-info.ts";
import type { Resource } from "../registry/registry.ts";
import type { LiveResource } from "../watch/feed.ts";
import type { PlainSubresource } from "./subresources.ts";

/** A resource in one version. */
export interface ServedResource {
  readonly info: ResourceInfo;
  readonly resource: Resource;
  /** Of custom resources. */
  readonly custom?: CustomParts;
}

/** What a definition makes differ from the built-in kinds. */
export interface CustomParts {
  /** Subresources that are not as those of all kinds: scale by paths. */
  readonly subresources: Readonly<Record<string, PlainSubresource>>;
  /** Fields that selectors may name. */
  readonly selectable: readonly string[];
  readonly live: LiveResource;
}
