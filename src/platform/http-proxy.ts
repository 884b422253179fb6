// Agents that reach servers through an HTTP proxy: TLS inside a CONNECT tunnel, plain HTTP as requests with a whole URL.
// Invariant: the proxy sees the ciphertext of TLS only; the certificate is checked against the server's name.
import * as http from "node:http";
import * as https from "node:https";
import * as tls from "node:tls";
import { AppError, messageOf } from "#base/errors.ts";

export interface HttpProxy {
  readonly host: string;
  readonly port: number;
  /** Of the URL's user and password. */
  readonly headers: Readonly<Record<string, string>>;
}

/** `http://[USER:PASSWORD@]HOST[:PORT]`. Throws HTTP_PROXY. */
export function parseProxy(text: string): HttpProxy {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "http:" || !url.hostname) {
    throw new AppError("HTTP_PROXY", `proxy "${text}" is not allowed; use http://HOST:PORT`);
  }
  const user = decodeURIComponent(url.username);
  const credentials = Buffer.from(`${user}:${decodeURIComponent(url.password)}`).toString("base64");
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: Number(url.port || 80),
    headers: user === "" ? {} : { "proxy-authorization": `Basic ${credentials}` },
  };
}

type Connected = (error: Error | null, socket?: tls.TLSSocket) => void;

/** Opens each connection inside a CONNECT tunnel. */
class TunnelAgent extends https.Agent {
  readonly #proxy: HttpProxy;
  constructor(proxy: HttpProxy, options: https.AgentOptions) {
    super(options);
    this.#proxy = proxy;
  }
  // biome-ignore lint/suspicious/noExplicitAny: Node's types do not know that an agent may connect later
  override createConnection(options: any, connected: any): any {
    const done: Connected = connected;
    const target = `${options.host.includes(":") ? `[${options.host}]` : options.host}:${options.port}`;
    const asked = http.request({
      host: this.#proxy.host,
      port: this.#proxy.port,
      method: "CONNECT",
      path: target,
      headers: { ...this.#proxy.headers, host: target },
      timeout: options.timeout ?? 30_000,
      agent: false,
    });
    const refuse = (why: string) => done(new AppError("HTTP_PROXY", `proxy ${this.#proxy.host}: ${why}`));
    asked.on("timeout", () => asked.destroy(new Error("no answer")));
    asked.once("error", (error) => refuse(messageOf(error)));
    // An answer without a tunnel, or one that a proxy sends in place of it.
    asked.once("response", (answer) => {
      answer.destroy();
      refuse(`no tunnel to ${target}: status ${answer.statusCode}`);
    });
    asked.once("connect", (answer, socket) => {
      if (answer.statusCode !== 200) {
        socket.destroy();
        refuse(`no tunnel to ${target}: status ${answer.statusCode}`);
        return;
      }
      done(null, tls.connect({ ...options, socket, servername: options.servername ?? options.host }));
    });
    asked.end();
  }
}

export const tunnelAgent = (proxy: HttpProxy, options: https.AgentOptions): https.Agent =>
  new TunnelAgent(proxy, options);
