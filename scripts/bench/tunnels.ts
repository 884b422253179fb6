// What idle tunnels cost a server, and whether streams that come and go leave anything: the server's end here, nodes in another
// process. Memory is what the kernel counts after a collection, before and after.
//   --tunnels N     idle ones (default 500)
//   --seconds N     how long they are idle before the second look (default 150: what is kept of pings has then been confirmed once)
//   --cycles N      streams that are opened, used and closed, 50 at a time (default 10000)
//   --bare          plain WebSocket connections in place of tunnels: what of it all is TLS and Node
//   --leak          positive control: every tenth stream is not closed, which the figures must show
import { fork } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { systemClock } from "#platform/clock.ts";
import { openHttpsServer } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { acceptBareWebSocket } from "#platform/raw-websocket.ts";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { ensurePki } from "#supervisor/pki.ts";
import { loadCodec } from "#supervisor/tunnel/codec.ts";
import { createTunnelServer } from "#supervisor/tunnel/server.ts";

type Figures = Record<string, number>;
const kib = 1024;
const atOnce = 50;

export async function tunnels(args: readonly string[]): Promise<Readonly<Figures>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      tunnels: { type: "string", default: "500" },
      seconds: { type: "string", default: "150" },
      cycles: { type: "string", default: "10000" },
      bare: { type: "boolean", default: false },
      leak: { type: "boolean", default: false },
    },
  });
  const [count, seconds, cycles] = [Number(values.tunnels), Number(values.seconds), Number(values.cycles)];
  if (!(count > 0 && seconds >= 0 && cycles >= 0)) throw new UserError("--tunnels, --seconds, --cycles: numbers");
  await runStages(buildStages);
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const folder = mkdtempSync(join(tmpdir(), "mote-bench-tunnels-"));
  const pki = await ensurePki({ folder, nodeName: "node-0", nodeIps: ["127.0.0.1"] }, base);
  for (const [name, text] of Object.entries({
    ca: pki.serverCa.certificate,
    cert: pki.clientKubelet.certificate,
    key: pki.clientKubelet.key,
  }))
    writeFileSync(join(folder, name), text);
  const metrics = new Metrics();
  const server = createTunnelServer(
    {},
    { ...base, metrics, codec: () => loadCodec((size) => systemRandom.bytes(size)) },
  );
  const bare = new Set<Duplex>();
  const door = await openHttpsServer(
    {
      host: "127.0.0.1",
      port: 0,
      tls: {
        certificatePem: pki.servingApiserver.certificate,
        keyPem: pki.servingApiserver.key,
        clientCaPem: pki.clientCa.certificate,
      },
      log: silentLogger,
    },
    {
      async request(_request, response) {
        response.head(404, {});
        response.end();
      },
      async upgrade(upgrade) {
        // As the API server: it looks at the certificate.
        if (!upgrade.request.clientCertificate) throw new Error("no certificate");
        const node = String(upgrade.request.headers["x-bench-node"]);
        if (!values.bare) server.accept(upgrade, node);
        else bare.add(acceptBareWebSocket(upgrade, {})!.resume());
      },
    },
  );
  const look = (): Look => {
    for (let i = 0; i < 3; i++) collect();
    const { heapUsed, external } = process.memoryUsage();
    const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space");
    // What the collector keeps for objects to come is as much for one tunnel as for a thousand.
    return { ownKib: rssKib() - (young?.physical_space_size ?? 0) / kib, heapKib: (heapUsed + external) / kib };
  };
  const child = fork(
    "scripts/run.mjs",
    ["scripts/bench/tunnels-node.ts", JSON.stringify({ port: door.port, folder, count, isBare: values.bare })],
    { stdio: ["ignore", 2, 2, "ipc"] },
  );
  const figures: Figures = {};
  try {
    // One of each, so that what all share is there before.
    await said(child, "ready");
    child.send("one");
    await said(child, "one");
    await sleep(1000);
    const before = look();
    child.send("all");
    await said(child, "all");
    await sleep(3000);
    const fresh = look();
    figures["fresh_kib"] = round((fresh.ownKib - before.ownKib) / count);
    figures["fresh_heap_kib"] = round((fresh.heapKib - before.heapKib) / count);
    const cpu = process.cpuUsage();
    await sleep(seconds * 1000);
    const used = process.cpuUsage(cpu);
    const rested = look();
    figures["idle_kib"] = round((rested.ownKib - before.ownKib) / count);
    figures["idle_heap_kib"] = round((rested.heapKib - before.heapKib) / count);
    if (seconds > 0)
      figures["idle_cpu_pct_of_1000"] = round((((used.user + used.system) / 1e4 / seconds) * 1000) / count);
    if (cycles > 0 && !values.bare) {
      const cycle = async (rounds: number) => {
        for (let i = 0; i < rounds; i += atOnce) {
          await Promise.all(
            Array.from({ length: atOnce }, async (_, n) => {
              const stream = server.dial("node-0", "tcp", "echo:1");
              const answer = new Promise((resolve) => stream.once("data", resolve));
              stream.write("x".repeat(100));
              await answer;
              if (!values.leak || n % 10 > 0) stream.destroy();
            }),
          );
        }
      };
      await cycle(2000);
      await sleep(500);
      const start = look();
      await cycle(cycles);
      await sleep(500);
      const end = look();
      figures["cycles"] = cycles;
      figures["cycles_heap_growth_kib"] = round(end.heapKib - start.heapKib);
      figures["cycles_growth_kib"] = round(end.ownKib - start.ownKib);
      figures["streams_left"] = Number(/^mote_supervisor_tunnel_streams (\d+)$/m.exec(metrics.render())?.[1]);
    }
  } finally {
    child.kill("SIGKILL");
    server.close();
    await door.close(0);
    rmSync(folder, { recursive: true, force: true });
  }
  for (const [name, figure] of Object.entries(figures)) console.log(`${name.padEnd(32)}${String(figure).padStart(12)}`);
  return figures;
}

const base = { clock: systemClock, random: systemRandom, log: silentLogger };

interface Look {
  readonly ownKib: number;
  readonly heapKib: number;
}

const round = (figure: number): number => Number(figure.toFixed(2));

function rssKib(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
}

function said(child: ReturnType<typeof fork>, word: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once("exit", () => reject(new UserError("the nodes of the bench have ended")));
    const listen = (message: unknown) => {
      if (message !== word) return;
      child.off("message", listen);
      resolve();
    };
    child.on("message", listen);
  });
}
