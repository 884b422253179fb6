// How the API server gets to addresses that it cannot or may not dial itself, and the door for the connections that make it
// possible: nodes upgrade a request to a tunnel, proven by their client certificates. What runs in the tunnels is not the
// API server's business; entry joins the two. Upstream counterparts: the egress selector, k3s's /v1-k3s/connect.
import { ApiError, unauthorized } from "#model/status.ts";
import type { Duplex, ServerUpgrade } from "#platform/https-server.ts";
import type { Authenticator } from "./authn/authenticator.ts";
import { toApiError } from "./registry/errors.ts";

export interface Egress {
  /** An open connection to a node's name or an address; undefined: it is to be dialed plainly. */
  connect(host: string, port: number): Duplex | undefined;
  /** Takes the connection of a node; answers it in any case. */
  acceptNode(upgrade: ServerUpgrade, node: string): void;
  /** The same of another server; false when it is none, and nothing was answered. */
  acceptPeer(upgrade: ServerUpgrade): boolean;
}

/** k3s's. */
export const tunnelPath = "/v1-k3s/connect";
const nodePrefix = "system:node:";

/** Who is no node learns why and nothing else. */
export async function acceptTunnel(upgrade: ServerUpgrade, egress: Egress, certificates: Authenticator): Promise<void> {
  try {
    if (egress.acceptPeer(upgrade)) return;
    const { request } = upgrade;
    const user = await certificates.authenticate({
      clientCertificate: request.clientCertificate,
      clientIntermediates: () => request.clientIntermediates?.() ?? [],
    });
    if (!user) throw unauthorized();
    const node = user.groups.includes("system:nodes") && user.name.startsWith(nodePrefix);
    if (!node) throw new ApiError(403, "Forbidden", `User ${JSON.stringify(user.name)} is no node`);
    egress.acceptNode(upgrade, user.name.slice(nodePrefix.length));
  } catch (thrown) {
    refuse(upgrade.socket, toApiError(thrown));
  }
}

function refuse(socket: Duplex, error: ApiError): void {
  const body = JSON.stringify(error.status);
  socket.end(
    `HTTP/1.1 ${error.code} ${error.reason}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
