// The nodes of the bench `tunnels`, all in one process: idle tunnels, and one of them that answers streams with what comes.
//   tunnels-node.ts JSON      the parent says "one" and "all" by fork's channel, and is told when they stand
import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { silentLogger } from "#base/log.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { dialBareWebSocket } from "#platform/raw-websocket.ts";
import { connectPath, createTunnelClient } from "#supervisor/tunnel/client.ts";
import { loadCodec } from "#supervisor/tunnel/codec.ts";

const { port, folder, count, isBare } = JSON.parse(process.argv[2] ?? "{}") as {
  port: number;
  folder: string;
  count: number;
  isBare: boolean;
};
const file = (name: string) => readFileSync(join(folder, name), "utf8");
const tls = { ca: file("ca"), cert: file("cert"), key: file("key") };
const codec = loadCodec((size) => systemRandom.bytes(size));
const stop = new AbortController();
setMaxListeners(0, stop.signal);

async function begin(index: number): Promise<void> {
  const target = { host: "127.0.0.1", port };
  const headers = { "x-bench-node": `node-${index}` };
  if (isBare) {
    const dial = { ...target, path: connectPath, tls, headers, connectTimeoutMs: 10_000, timeoutMs: 30_000 };
    (await dialBareWebSocket(dial, stop.signal)).socket.resume();
    return;
  }
  const client = createTunnelClient(
    { ...target, tls: () => tls, headers },
    {
      ...{ clock: systemClock, random: systemRandom, log: silentLogger, codec },
      mayDial: () => true,
      open: async () => new PassThrough(),
    },
  );
  void client.run(stop.signal, () => {});
  while (!client.isConnected) await systemClock.sleep(20);
}

process.on("disconnect", () => process.exit(0));
process.on("message", (word) => {
  void (async () => {
    if (word === "one") await begin(0);
    // Twenty at a time.
    if (word === "all") {
      for (let i = 1; i <= count; i += 20)
        await Promise.all(Array.from({ length: Math.min(20, count - i + 1) }, (_, n) => begin(i + n)));
    }
    process.send?.(word);
  })();
});
process.send?.("ready");
