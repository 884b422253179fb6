// Reaches a node's API over TLS: address and port from the Node object, the API server's client certificate, the server
// authority for the other side. The connection is the node's tunnel where there is one, else a plain one.
// Upstream counterpart: pkg/kubelet/client.
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { ApiError, serviceUnavailable, timeout } from "#model/status.ts";
import type { Duplex } from "#platform/https-server.ts";
import { isUpgraded, openUpgrade } from "#platform/upgrade-client.ts";
import type { NodeDialer, NodeRequest, NodeResponse, NodeStream } from "./node-dialer.ts";

export interface DirectNodeDialerOptions {
  /** PEM: who may have signed the nodes' serving certificates. */
  readonly serverCaPem: string;
  /** PEM; asked for each connection, because it is renewed. */
  readonly client: () => { readonly certificate: string; readonly key: string };
  /** In this order the addresses of a node are tried for a match; default: InternalIP, ExternalIP, Hostname. */
  readonly addressTypes?: readonly string[];
}

export interface DirectNodeDialerDeps {
  /** The Node object; rejects with ApiError 404 when there is none. */
  getNode(name: string): Promise<Node>;
  /** An open connection to a node's API; undefined: there is none. Absent: none ever. */
  connect?: ((node: string, port: number) => Duplex | undefined) | undefined;
}

const defaultPort = 10250;
/** A node that does not even answer the head of a request within this time is taken for gone. */
const answerTimeoutMs = 30_000;

export function createDirectNodeDialer(options: DirectNodeDialerOptions, deps: DirectNodeDialerDeps): NodeDialer {
  const types = options.addressTypes ?? ["InternalIP", "ExternalIP", "Hostname"];

  const dial = async (
    nodeName: string,
    request: NodeRequest,
    signal: AbortSignal,
  ): Promise<NodeStream | NodeResponse> => {
    const node = await deps.getNode(nodeName);
    const addresses = node.status?.addresses ?? [];
    const host = types.map((type) => addresses.find((a) => a.type === type)?.address).find((address) => address);
    if (!host) throw serviceUnavailable(`node ${nodeName} has no address of type ${types.join(", ")}`);
    const port = node.status?.daemonEndpoints?.kubeletEndpoint?.Port || defaultPort;
    const { certificate: cert, key } = options.client();
    const socket = deps.connect?.(nodeName, port);
    try {
      const answer = await openUpgrade(
        {
          host,
          port,
          ...(socket ? { socket } : {}),
          tls: { ca: options.serverCaPem, cert, key },
        },
        { ...request, timeoutMs: answerTimeoutMs },
        signal,
      );
      return isUpgraded(answer) ? { ...answer, status: 101 } : answer;
    } catch (error) {
      if (error instanceof ApiError || signal.aborted) throw error;
      if (hasCode(error, "UPGRADE_TIMEOUT")) throw timeout(`node ${nodeName} did not answer`);
      if (error instanceof AppError) throw serviceUnavailable(`error dialing node ${nodeName}: ${messageOf(error)}`);
      throw error;
    }
  };

  return {
    async request(nodeName, request, signal) {
      const answer = await dial(nodeName, request, signal);
      if ("socket" in answer) {
        answer.socket.destroy();
        throw serviceUnavailable(`node ${nodeName} switched protocols without being asked`);
      }
      return answer;
    },
    upgrade: dial,
  };
}
