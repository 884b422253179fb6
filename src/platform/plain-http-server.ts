// A plain HTTP port for short answers that anybody may have, such as those of health checks: no TLS, no bodies, nothing kept.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface ShortAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface PlainHttpServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Balancers ask every few seconds and hang up; whoever does not is no reason to run out of descriptors. */
const maxConnections = 200;
const patienceMs = 5000;
const maxHeaderSize = 8 * 1024;

/** At all addresses. `answer` is asked with the path and must not throw. Rejects with the system's error, such as EADDRINUSE. */
export function openPlainHttpServer(port: number, answer: (path: string) => ShortAnswer): Promise<PlainHttpServer> {
  const limits = {
    maxHeaderSize,
    requestTimeout: patienceMs,
    headersTimeout: patienceMs,
    keepAliveTimeout: patienceMs,
  };
  const server = createServer(limits, (request, response) => {
    const { status, headers, body } = answer((request.url ?? "/").split("?")[0]!);
    response.writeHead(status, { ...headers, connection: "close" });
    response.end(request.method === "HEAD" ? undefined : body);
    request.resume();
  });
  server.maxConnections = maxConnections;
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, () => {
      resolve({
        port: (server.address() as AddressInfo).port,
        async close() {
          const closed = new Promise<void>((done) => server.close(() => done()));
          server.closeAllConnections();
          await closed;
        },
      });
    });
  });
}
