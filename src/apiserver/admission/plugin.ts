// Admission: after authorisation and decoding, before the registry writes. Mutating plugins first, then validating.
// In-tree ones are listed in plugins.ts; webhooks and policies will be two more entries of the same list.
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import type { StrategyContext } from "../strategy.ts";

export interface AdmissionRequest {
  readonly operation: "CREATE" | "UPDATE" | "DELETE" | "CONNECT";
  readonly resource: ResourceInfo;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** Ours to change in `mutate`; absent on delete. */
  readonly object: ApiObject | undefined;
  readonly oldObject: ApiObject | undefined;
}

export interface AdmissionPlugin {
  /** Upstream's name, as in --disable-admission-plugins. */
  readonly name: string;
  handles(request: AdmissionRequest): boolean;
  /** Rejects with ApiError (403 or what upstream answers). */
  mutate?(request: AdmissionRequest, context: StrategyContext): Promise<void>;
  validate?(request: AdmissionRequest, context: StrategyContext): Promise<void>;
}
