// Against real TLS servers: who is let in, and that who is not gets to read nothing.

import type { AddressInfo } from "node:net";
import { createServer, type Server } from "node:tls";
import { afterEach, expect, test } from "vitest";
import { createHttpClient, readBody } from "#platform/http-client.ts";
import { createHttp2Client } from "#platform/http2-client.ts";
import { systemRandom as random } from "#platform/random.ts";
import { dialBareWebSocket } from "#platform/raw-websocket.ts";
import { generateKey, type Issuer, issueCertificate } from "./certificate.ts";

const over = { notBeforeMs: Date.UTC(2001, 0, 1), notAfterMs: Date.UTC(2002, 0, 1) };
const keys = { old: generateKey(), next: generateKey(), leaf: generateKey() };
const authority = (commonName: string, key: string, issuer?: Issuer) =>
  issueCertificate({ commonName, usage: "authority", ...over }, key, issuer, random);
const old = authority("old", keys.old);
const nextByOld = authority("next", keys.next, { certificate: old, key: keys.old });
const leafFor = (ips: string[]) =>
  issueCertificate(
    { commonName: "x", usage: "server", ips, ...over },
    keys.leaf,
    { certificate: nextByOld, key: keys.next },
    random,
  );

const open: Server[] = [];
afterEach(() => {
  for (const server of open.splice(0)) server.close();
});

/** Keeps what it reads. */
async function serve(chain: string): Promise<{ readonly port: number; readonly read: string[] }> {
  const read: string[] = [];
  const server = createServer({ cert: chain, key: keys.leaf }, (socket) => {
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      read.push(chunk.toString());
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
  });
  open.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, read };
}

async function ask(port: number, ca: string, byKey = true, make = createHttpClient): Promise<string> {
  const client = make({ baseUrl: `https://127.0.0.1:${port}`, ca, trust: byKey ? "keys" : "dates" });
  try {
    const headers = { authorization: "Bearer secret" };
    const response = await client.send({ method: "GET", path: "/", headers, idleTimeoutMs: 30_000 });
    return (await readBody(response, 100)).toString();
  } finally {
    client.close();
  }
}

test("certificates that have ended count, over authorities that vouch for each other", async () => {
  const { port } = await serve(leafFor(["127.0.0.1"]) + nextByOld);
  expect(await ask(port, old)).toBe("ok");
  expect(await ask(port, old, true, createHttp2Client)).toBe("ok");
  // Node's own check sees that they have ended.
  await expect(ask(port, old, false)).rejects.toMatchObject({ cause: { code: "CERT_HAS_EXPIRED" } });
});

const stranger = authority("old", generateKey());
test.each<[string, string, string, string]>([
  ["a key that is not known", leafFor(["127.0.0.1"]) + nextByOld, stranger, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
  ["a link that was not sent", leafFor(["127.0.0.1"]), old, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
  ["another name", leafFor(["192.0.2.1"]) + nextByOld, old, "ERR_TLS_CERT_ALTNAME_INVALID"],
])("%s gets to read nothing", async (_name, chain, ca, code) => {
  const { port, read } = await serve(chain);
  await expect(ask(port, ca)).rejects.toMatchObject({ code: "HTTP_FAILED", cause: { code } });
  await new Promise((resolve) => setTimeout(resolve, 50));
  await expect(ask(port, ca, true, createHttp2Client)).rejects.toMatchObject({ code: "HTTP_FAILED" });
  const dial = dialBareWebSocket(
    {
      ...{ host: "127.0.0.1", port, path: "/", headers: { authorization: "Bearer secret" } },
      ...{ tls: { ca, trust: "keys" }, connectTimeoutMs: 30_000, timeoutMs: 30_000 },
    },
    new AbortController().signal,
  );
  await expect(dial).rejects.toMatchObject({ code: "WEBSOCKET_DIAL" });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(read).toEqual([]);
});
