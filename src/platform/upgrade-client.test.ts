// TLS over what is no socket of the system: a tunnel's stream, which closes in the moment in which it ends. Who answers is
// asked for by a check of one's own.
import * as https from "node:https";
import * as net from "node:net";
import { Duplex } from "node:stream";
import { expect, test } from "vitest";
import { localhostTls } from "#test/harness/localhost-tls.ts";
import { isUpgraded, openUpgrade } from "./upgrade-client.ts";

class ClosesAtItsEnd extends Duplex {
  readonly #socket: net.Socket;
  constructor(socket: net.Socket) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    socket.on("data", (chunk) => {
      if (!this.push(chunk)) socket.pause();
    });
    socket.on("end", () => this.push(null));
    socket.on("error", (error) => this.destroy(error));
    this.once("end", () => this.destroy());
  }
  override _read(): void {
    this.#socket.resume();
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#socket.write(chunk, () => done());
  }
  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}

const bytes = Buffer.alloc(400_000, "0123456789");
const answers = async (
  answer: (response: import("node:http").ServerResponse) => void,
): Promise<{ readonly port: number; readonly close: () => void }> => {
  const tls = { cert: localhostTls.certificatePem, key: localhostTls.keyPem };
  const server = https.createServer(tls, (_request, response) => answer(response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as net.AddressInfo).port,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
};

test.each(["keys", "dates"] as const)("a check of who it is that throws lets nobody pass: %s", async (trust) => {
  const server = await answers((response) => response.end("taken"));
  const identity = () => {
    throw new TypeError("broken");
  };
  const socket = net.connect(server.port, "127.0.0.1").on("error", () => {});
  const tls = { ca: localhostTls.certificatePem, trust, identity };
  try {
    const answer = openUpgrade(
      { host: "localhost", port: server.port, socket, tls },
      { method: "GET", target: "/", headers: { connection: "close" }, timeoutMs: 30_000 },
      AbortSignal.timeout(60_000),
    );
    await expect(answer).rejects.toMatchObject({ code: "UPGRADE_FAILED", message: expect.stringContaining("broken") });
  } finally {
    socket.destroy();
    server.close();
  }
});

async function read(port: number): Promise<Buffer> {
  const answer = await openUpgrade(
    {
      ...{ host: "localhost", port, tls: { ca: localhostTls.certificatePem } },
      socket: new ClosesAtItsEnd(net.connect(port, "127.0.0.1")),
    },
    { method: "GET", target: "/", headers: { connection: "close" }, timeoutMs: 30_000 },
    AbortSignal.timeout(60_000),
  );
  if (isUpgraded(answer)) throw new Error("not asked for");
  const parts: Uint8Array[] = [];
  for await (const part of answer.body) {
    parts.push(part);
    // A reader that lags behind: the end is there long before it.
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return Buffer.concat(parts);
}

test("an answer is read to its end, however late", async () => {
  const server = await answers((response) => response.end(bytes));
  try {
    expect((await read(server.port)).equals(bytes)).toBe(true);
  } finally {
    server.close();
  }
});

test("one that is cut is not taken for whole", async () => {
  const server = await answers((response) => {
    response.writeHead(200, { "content-length": bytes.length });
    response.write(bytes.subarray(0, 1000), () => response.socket?.destroy());
  });
  try {
    await expect(read(server.port)).rejects.toThrow();
  } finally {
    server.close();
  }
});
