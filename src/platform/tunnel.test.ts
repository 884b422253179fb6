import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { tunnel } from "./tunnel.ts";

const cleanup: (() => void)[] = [];
afterEach(() => {
  for (const step of cleanup.splice(0)) step();
});

/** Two connected TCP sockets: what one writes the other reads. */
async function wire(): Promise<{ outer: Socket; inner: Socket }> {
  const server: Server = createServer({ allowHalfOpen: true });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const accepted = new Promise<Socket>((resolve) => {
    server.once("connection", resolve);
  });
  const outer = connect({ port: (server.address() as { port: number }).port, host: "127.0.0.1", allowHalfOpen: true });
  const inner = await accepted;
  for (const socket of [outer, inner]) socket.on("error", () => {});
  cleanup.push(() => {
    outer.destroy();
    inner.destroy();
    server.close();
  });
  return { outer, inner };
}
const closed = (socket: Socket) =>
  new Promise<void>((resolve) => {
    if (socket.destroyed) resolve();
    else socket.once("close", () => resolve());
  });
/** Not `for await`: that destroys the socket at its end, the other direction included. */
const readAll = (socket: Socket) =>
  new Promise<string>((resolve) => {
    let text = "";
    socket.on("data", (chunk) => {
      text += String(chunk);
    });
    socket.on("end", () => resolve(text));
  });

test("bytes, heads and half-closes go both ways; it ends when both directions have", async () => {
  const a = await wire();
  const b = await wire();
  const done = tunnel(
    { socket: a.inner, head: Buffer.from("head-a ") },
    { socket: b.inner, head: Buffer.from("head-b ") },
  );
  a.outer.end("from a");
  expect(await readAll(b.outer)).toBe("head-a from a");
  // a has said all it had to say; b still may.
  b.outer.end("from b");
  expect(await readAll(a.outer)).toBe("head-b from b");
  expect(await done).toEqual({ forwardBytes: 13, backwardBytes: 13 });
});

test.each(["first", "second"])("when the %s side breaks, the other is closed", async (which) => {
  const a = await wire();
  const b = await wire();
  const done = tunnel({ socket: a.inner, head: Buffer.alloc(0) }, { socket: b.inner, head: Buffer.alloc(0) });
  const [broken, other] = which === "first" ? [a, b] : [b, a];
  broken.outer.resetAndDestroy();
  await Promise.all([done, closed(other.inner)]);
  expect(other.inner.destroyed).toBe(true);
});

test("an abort cuts both", async () => {
  const a = await wire();
  const b = await wire();
  const abort = new AbortController();
  const done = tunnel(
    { socket: a.inner, head: Buffer.alloc(0) },
    { socket: b.inner, head: Buffer.alloc(0) },
    abort.signal,
  );
  abort.abort();
  await done;
  expect([a.inner.destroyed, b.inner.destroyed]).toEqual([true, true]);
});

test("a side that is closed already ends it at once", async () => {
  const a = await wire();
  const b = await wire();
  a.inner.destroy();
  await tunnel({ socket: a.inner, head: Buffer.alloc(0) }, { socket: b.inner, head: Buffer.alloc(0) });
  expect(b.inner.destroyed).toBe(true);
});

test("a reader that does not read stops the writer", async () => {
  const a = await wire();
  const b = await wire();
  const done = tunnel({ socket: a.inner, head: Buffer.alloc(0) }, { socket: b.inner, head: Buffer.alloc(0) });
  b.outer.pause();
  const total = 64 * 1024 * 1024;
  for (let sent = 0; sent < total; sent += 1024 * 1024) a.outer.write(Buffer.alloc(1024 * 1024));
  let last = -1;
  while (a.outer.bytesWritten - a.outer.writableLength !== last) {
    last = a.outer.bytesWritten - a.outer.writableLength;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  // What does not fit into the buffers of the kernel is still with the writer.
  expect(a.outer.writableLength).toBeGreaterThan(total / 4);
  expect(b.inner.writableLength).toBeLessThan(1024 * 1024);
  b.outer.destroy();
  await done;
});
