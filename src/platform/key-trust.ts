// TLS to a server that is known by the keys of its authorities, whatever this machine's clock says: node's own check would
// turn away every certificate that has ended, and a wrong clock sees all of them so. Invariant: a connection that does not
// prove to be the server is destroyed in the moment its handshake ends, before anything that was written goes out; that is
// the place where node's own check does it.
import { X509Certificate } from "node:crypto";
import * as https from "node:https";
import * as tls from "node:tls";
import { messageOf } from "#base/errors.ts";
import { isServerNamed, leadsTo } from "#wire/certificate-chain.ts";

/** What a server may send along. */
const maxSent = 32;

interface KeyTrust {
  readonly anchors: readonly X509Certificate[];
}

/** `ca`: PEM of the authorities. */
function keyTrust(ca: string | Uint8Array): KeyTrust {
  const blocks = Buffer.from(ca)
    .toString("latin1")
    .match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g);
  return { anchors: (blocks ?? []).map((pem) => new X509Certificate(pem)) };
}

/** What is wrong with the certificate of whom it must be; undefined: nothing. */
type Identity = (leaf: X509Certificate) => string | undefined;

const named =
  (name: string): Identity =>
  (leaf) =>
    isServerNamed(leaf, name) ? undefined : `the server's certificate does not name ${name}`;

const coded = (code: string, message: string): Error => Object.assign(new Error(message), { code });
/** A check that throws is not passed: from within an event it would end the process, and leave the connection as it is. */
function strangerBy(identity: Identity, leaf: X509Certificate): Error | undefined {
  let problem: string | undefined;
  try {
    problem = identity(leaf);
  } catch (error) {
    problem = `the certificate cannot be judged: ${messageOf(error)}`;
  }
  return problem === undefined ? undefined : coded("ERR_TLS_CERT_ALTNAME_INVALID", problem);
}

/** For node's own check. */
export const identityCheck =
  (identity: Identity): NonNullable<tls.ConnectionOptions["checkServerIdentity"]> =>
  (_host, certificate) =>
    strangerBy(identity, new X509Certificate(certificate.raw));

function connectByKey(options: tls.ConnectionOptions, trust: KeyTrust, identity: Identity): tls.TLSSocket {
  const socket = tls.connect({ ...options, rejectUnauthorized: false });
  socket.prependOnceListener("secureConnect", () => {
    const problem = problemOf(socket, trust, identity);
    if (problem) socket.destroy(problem);
  });
  return socket;
}

export interface TlsTrust {
  readonly trust?: "keys" | "dates" | undefined;
  /** PEM. */
  readonly ca?: string | Uint8Array | undefined;
  readonly serverName?: string | undefined;
  readonly identity?: Identity | undefined;
}

/** `tls.connect`, with the check that is asked for. */
export const connectTls = (
  options: tls.ConnectionOptions,
  { trust, ca, serverName, identity }: TlsTrust,
): tls.TLSSocket =>
  trust === "keys"
    ? connectByKey(
        options,
        keyTrust(ca ?? ""),
        identity ?? named(serverName || options.servername || options.host || ""),
      )
    : tls.connect(options);

/** Under the codes of node's own check. */
function problemOf(socket: tls.TLSSocket, { anchors }: KeyTrust, identity: Identity): Error | undefined {
  const leaf = socket.getPeerX509Certificate();
  if (!leaf) return coded("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "the server sent no certificate");
  const sent: X509Certificate[] = [];
  for (let at = leaf.issuerCertificate; at && sent.length < maxSent; at = at.issuerCertificate) sent.push(at);
  if (!leadsTo(leaf, sent, anchors)) {
    return coded("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "the server's certificate is of an authority that is not known");
  }
  return strangerBy(identity, leaf);
}

/** Opens each connection so. No session is resumed: one has no chain to look at. */
class KeyTrustAgent extends https.Agent {
  readonly #trust: KeyTrust;
  constructor(trust: KeyTrust, options: https.AgentOptions) {
    super({ ...options, maxCachedSessions: 0 });
    this.#trust = trust;
  }
  // biome-ignore lint/suspicious/noExplicitAny: Node's types leave open what an agent is given
  override createConnection(options: any): any {
    return connectByKey(options, this.#trust, named(options.servername || options.host));
  }
}

export const keyTrustAgent = (ca: string | Uint8Array, options: https.AgentOptions): https.Agent =>
  new KeyTrustAgent(keyTrust(ca), options);
