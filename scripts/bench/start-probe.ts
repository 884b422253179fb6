// Starts a server in a session of its own and prints when it answered /readyz and when its node was Ready, counted from
// exec: start-probe.ts DATA-DIR RUN-DIR KUBECONFIG
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, get } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { parse } from "yaml";

const [dataDir, runDir, kubeconfig] = process.argv.slice(2) as [string, string, string];
const limitMs = 60_000;

mkdirSync(dataDir, { recursive: true });
mkdirSync(runDir, { recursive: true });
rmSync(kubeconfig, { force: true });
const log = openSync(`${dataDir}/mote.log`, "a");
const flags = ["--data-dir", dataDir, "--run-dir", runDir, "--write-kubeconfig", kubeconfig];
const startedMs = performance.now();
// lastHeartbeatTime has whole seconds.
const startWallMs = Math.floor(Date.now() / 1000) * 1000;
const child = spawn("build/dist/mote", ["server", ...flags], { detached: true, stdio: ["ignore", log, log] });
closeSync(log);
child.unref();
writeFileSync(`${runDir}/mote.pid`, `${child.pid}\n`);

async function until(what: string, check: () => Promise<boolean>): Promise<number> {
  while (!(await check())) {
    if (performance.now() - startedMs > limitMs) throw new Error(`${what}: not within ${limitMs} ms`);
    await sleep(5);
  }
  return performance.now() - startedMs;
}

function ask(path: string, agent?: Agent): Promise<{ code: number; text: string }> {
  return new Promise((resolve) => {
    const sent = get(`https://127.0.0.1:6443${path}`, agent ? { agent } : { rejectUnauthorized: false }, (answer) => {
      let text = "";
      answer.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      answer.on("end", () => resolve({ code: answer.statusCode ?? 0, text }));
    });
    sent.on("error", () => resolve({ code: 0, text: "" }));
  });
}

const readyzMs = await until("/readyz", async () => (await ask("/readyz")).code === 200);
await until("kubeconfig", async () => existsSync(kubeconfig));
const config = parse(readFileSync(kubeconfig, "utf8"));
const user = config.users[0].user;
const agent = new Agent({
  keepAlive: true,
  ca: Buffer.from(config.clusters[0].cluster["certificate-authority-data"], "base64"),
  cert: Buffer.from(user["client-certificate-data"], "base64"),
  key: Buffer.from(user["client-key-data"], "base64"),
});
const readyMs = await until("node Ready", async () => {
  const { code, text } = await ask("/api/v1/nodes", agent);
  if (code !== 200) return false;
  const nodes = JSON.parse(text).items as {
    status?: { conditions?: { type: string; status: string; lastHeartbeatTime: string }[] };
  }[];
  // After a restart the node object still says Ready from before: only a heartbeat of this run counts.
  return nodes.some((n) =>
    n.status?.conditions?.some(
      (c) => c.type === "Ready" && c.status === "True" && Date.parse(c.lastHeartbeatTime) >= startWallMs,
    ),
  );
});
console.log(JSON.stringify({ readyzMs, readyMs }));
process.exit(0);
