// How a client reaches the API: over HTTPS (http-transport.ts) or inside the process (the API server's own
// implementation, joined in entry/). Both go through authentication, authorisation and admission.
import type { ApiObject, UnknownObject } from "#model/object.ts";
import type { Status } from "#model/status.ts";

export interface ApiRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Absolute path without query, e.g. /api/v1/namespaces/default/pods/x/status. Segments are already escaped. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  /** Object to send; `contentType` defaults to application/json. */
  readonly body?: unknown;
  readonly contentType?: string;
  /** Default application/json. */
  readonly accept?: string;
}

export type ClientWatchEvent<T extends ApiObject = ApiObject> =
  | { readonly type: "ADDED" | "MODIFIED" | "DELETED"; readonly object: T }
  | { readonly type: "BOOKMARK"; readonly object: T }
  | { readonly type: "ERROR"; readonly object: Status };

export interface Transport {
  /** The decoded body. Rejects with ApiError for any status of 400 and above. Objects may be shared: never change them. */
  request(request: ApiRequest, signal?: AbortSignal): Promise<UnknownObject>;
  /**
   * A watch; ends when the server ends it, rejects with ApiError when it is refused. Breaking out of the loop closes it.
   * `onOpen` is called once it is not refused, be it that nothing happens yet.
   */
  watch(request: ApiRequest, signal: AbortSignal, onOpen?: () => void): AsyncIterable<ClientWatchEvent>;
}
