// How the API server reaches a node's own API (port 10250) for logs, exec, attach, port-forward, nodes/proxy and figures,
// through the agents' tunnels or directly (upstream: the egress selector). Implementations follow no redirects and send the
// API server's client certificate.
import type { Duplex } from "#platform/https-server.ts";

export interface NodeRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS";
  /** Path and query, e.g. /containerLogs/default/web/main?follow=true */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface NodeResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Breaking out of the loop closes the connection. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** The node answered 101: the bytes of the new protocol flow over `socket`, `head` came first. */
export interface NodeStream {
  readonly status: 101;
  readonly headers: NodeResponse["headers"];
  readonly socket: Duplex;
  readonly head: Uint8Array;
}

export interface NodeDialer {
  /** Resolves with the head of the answer. Rejects with ApiError 503 or 504 when the node cannot be reached. */
  request(nodeName: string, request: NodeRequest, signal: AbortSignal): Promise<NodeResponse>;
  /** Asks for an upgrade (the caller sets Connection and Upgrade headers); any answer but 101 is a NodeResponse. */
  upgrade(nodeName: string, request: NodeRequest, signal: AbortSignal): Promise<NodeStream | NodeResponse>;
}
