// Subresources that are streams and not objects (pods/log, exec, attach, portforward, proxy; services/proxy; nodes/proxy):
// the seam between the request chain, which has authenticated and authorised by then, and whoever moves the bytes
// (node-proxy.ts, backend-proxy.ts). Upstream counterpart: rest.Connecter.
import type { RequestHeaders, ServerResponse, ServerUpgrade } from "#platform/https-server.ts";
import type { UserInfo } from "../authn/user.ts";

export interface ConnectRequest {
  readonly method: string;
  /** pods, nodes or services. */
  readonly resource: string;
  /** log, exec, attach, portforward or proxy. */
  readonly subresource: string;
  /** Empty for nodes. */
  readonly namespace: string;
  readonly name: string;
  /** What follows the subresource in the path, still escaped, from its slash on: of proxy only. */
  readonly rest: string;
  readonly query: URLSearchParams;
  /** The query as it came, from its question mark on. */
  readonly search: string;
  readonly headers: RequestHeaders;
  readonly user: UserInfo;
  readonly body: AsyncIterable<Uint8Array>;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
}

export interface Connector {
  /**
   * Answers a plain request. Rejects with ApiError while nothing has been sent: the chain then writes the Status.
   * After the head it must end or destroy the response itself.
   */
  handle(request: ConnectRequest, response: ServerResponse): Promise<void>;
  /**
   * Answers an upgrade. Rejects with ApiError while `upgrade.socket` is untouched: the chain then writes the Status and
   * closes. Once it has written to the socket it owns it and closes both sides, whatever fails.
   */
  upgrade(request: ConnectRequest, upgrade: ServerUpgrade): Promise<void>;
}

/** What nodes answer goes to the one, what pods answer themselves to the other. */
export function byDestination(nodes: Connector, backends: Connector): Connector {
  const of = ({ resource, subresource }: ConnectRequest): Connector =>
    subresource === "proxy" && resource !== "nodes" ? backends : nodes;
  return {
    handle: (request, response) => of(request).handle(request, response),
    upgrade: (request, upgrade) => of(request).upgrade(request, upgrade),
  };
}

/** WebSocket subprotocols without the token that browsers send among them; undefined where nothing is left. */
export function withoutBearer(protocols: string | string[] | undefined): string | undefined {
  const list = (Array.isArray(protocols) ? protocols : [protocols ?? ""])
    .flatMap((value) => value.split(","))
    .map((value) => value.trim())
    .filter((value) => value !== "" && !value.startsWith("base64url.bearer.authorization.k8s.io."));
  return list.length === 0 ? undefined : list.join(", ");
}
