// HTTPS over connections that somebody else opens: TLS, and the check of the certificate, on top of whatever comes.
import * as https from "node:https";
import type * as net from "node:net";
import type * as tls from "node:tls";
import { messageOf } from "#base/errors.ts";

/** An open TCP connection, for who may not know of node:net. */
export type TcpSocket = net.Socket;
/** Opens one; who waits for it hears the reason when it does not come. */
export type HttpDial = (signal?: AbortSignal) => Promise<TcpSocket>;

type Connected = (error: Error | null, socket?: tls.TLSSocket) => void;
type Secure = (options: tls.ConnectionOptions) => tls.TLSSocket;

class DialAgent extends https.Agent {
  readonly #dial: HttpDial;
  readonly #secure: Secure;
  constructor(dial: HttpDial, options: https.AgentOptions, secure: Secure) {
    super(options);
    this.#dial = dial;
    this.#secure = secure;
  }
  // biome-ignore lint/suspicious/noExplicitAny: Node's types do not know that an agent may connect later
  override createConnection(options: any, connected: any): any {
    const done: Connected = connected;
    this.#dial().then(
      (socket) => done(null, this.#secure({ ...options, socket, servername: options.servername ?? options.host })),
      (error: unknown) => done(new Error(messageOf(error), { cause: error })),
    );
  }
}

/** `secure`: how TLS is begun. */
export const dialAgent = (dial: HttpDial, options: https.AgentOptions, secure: Secure): https.Agent =>
  new DialAgent(dial, options, secure);
