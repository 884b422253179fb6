// The server's side of `npm run bench -- api`: a process of its own that its parent asks how long its event loop was held.
//   api-server.ts mote FLAG …          the server as `mote server` runs it
//   api-server.ts echo CERT KEY PORT   what no server on node:http2 can be quicker than: it reads the body and sends it back
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { silentLogger } from "#base/log.ts";
import { parseFlags } from "#cli/flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { serverConfig } from "#entry/config.ts";
import { runServer } from "#entry/server.ts";

/** Of the probe itself, which wakes this often; what it measures has that much in it. */
const resolutionMs = 2;
const [what = "", ...args] = process.argv.slice(2);
const delay = monitorEventLoopDelay({ resolution: resolutionMs });
delay.enable();
const stop = new AbortController();

process.on("disconnect", () => process.exit(0));
process.on("message", (message) => {
  if (message === "reset") {
    delay.reset();
    process.send?.({ reset: true });
  } else if (message === "delay") {
    process.send?.({ p99Ms: Math.max(0, delay.percentile(99) / 1e6 - resolutionMs), maxMs: delay.max / 1e6 });
  } else if (message === "hold") {
    // The positive control: a server that holds its loop must be seen to.
    setInterval(() => {
      const endMs = performance.now() + 30;
      while (performance.now() < endMs);
    }, 100);
    process.send?.({ held: true });
  } else if (message === "stop") stop.abort();
});

if (what === "echo") {
  const [cert = "", key = "", port = ""] = args;
  const server = createSecureServer({ cert: readFileSync(cert), key: readFileSync(key) });
  server.on("stream", (stream) => {
    const parts: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => parts.push(chunk));
    stream.on("end", () => {
      stream.respond({ ":status": 201, "content-type": "application/json" });
      stream.end(Buffer.concat(parts));
    });
  });
  server.listen(Number(port), "127.0.0.1", () => process.send?.({ ready: true }));
} else {
  const { values, warnings } = parseFlags(serverFlags, { args, env: {} });
  const config = serverConfig(values, warnings, { isRoot: false, home: "/nonexistent" });
  process.exitCode = await runServer(config, {
    log: silentLogger,
    signal: stop.signal,
    onApiReady: () => process.send?.({ ready: true }),
  });
  process.disconnect();
}
