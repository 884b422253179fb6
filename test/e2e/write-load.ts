// Clients of a cluster that write and watch while its servers come and go; ends when the file END is there, and prints what
// became of what was acknowledged as one JSON line. Runs inside a test host's network:
//   write-load.ts KUBECONFIG SERVER END
import { existsSync, readFileSync } from "node:fs";
import { Agent, request } from "node:https";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parse } from "yaml";

const [kubeconfig, server, end] = process.argv.slice(2);
const config = parse(readFileSync(kubeconfig!, "utf8"));
const base64 = (text: string) => Buffer.from(text, "base64");
const { user } = config.users[0];
const tls = {
  ca: base64(config.clusters[0].cluster["certificate-authority-data"]),
  cert: base64(user["client-certificate-data"]),
  key: base64(user["client-key-data"]),
};
const agent = new Agent({ keepAlive: true, ...tls });
const collection = "/api/v1/namespaces/default/configmaps";
const lanes = 4;
const pauseMs = 50;
const silenceMs = 10_000;

/** `onText`: of an answer that goes on; resolves when it ends. */
function ask(method: string, path: string, body?: object, onText?: (text: string) => void) {
  return new Promise<{ code: number; text: string }>((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const sent = request(new URL(path, server), { method, headers, agent, ...tls }, (answer) => {
      let text = "";
      const code = answer.statusCode ?? 0;
      answer.setEncoding("utf8");
      answer.on("data", (chunk: string) => {
        if (onText && code === 200) onText(chunk);
        else text += chunk;
      });
      answer.on("end", () => resolve({ code, text }));
      answer.on("error", reject);
    });
    if (!onText) sent.setTimeout(silenceMs, () => sent.destroy(new Error("no answer")));
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const isOver = () => existsSync(end!);
const acknowledged = new Set<string>();
let longestMs = 0;

async function write(name: string): Promise<void> {
  const startedMs = performance.now();
  for (;;) {
    // 409: an attempt whose answer was lost.
    const code = await ask("POST", collection, { metadata: { name, labels: { load: "yes" } } }).then(
      (answer) => answer.code,
      () => 0,
    );
    if (code === 201 || code === 409) break;
    if (isOver()) return;
    await sleep(pauseMs);
  }
  acknowledged.add(name);
  longestMs = Math.max(longestMs, performance.now() - startedMs);
}

async function lane(id: number): Promise<void> {
  for (let i = 0; !isOver(); i++) {
    await write(`load-${id}-${i}`);
    await sleep(pauseMs);
  }
}

interface Listed {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: readonly { readonly metadata: { readonly name: string } }[];
}
const selected = "labelSelector=load%3Dyes";
const list = async (): Promise<Listed> => {
  for (;;) {
    const answer = await ask("GET", `${collection}?${selected}`).catch(() => undefined);
    if (answer?.code === 200) return JSON.parse(answer.text) as Listed;
    await sleep(pauseMs);
  }
};

const seen: string[] = [];
let isWatching = true;
let watches = 0;
const faults: string[] = [];

/** One watch after the other, each from where the one before ended. */
async function watch(from: string): Promise<void> {
  let revision = from;
  while (isWatching) {
    let rest = "";
    const path = `${collection}?watch=1&allowWatchBookmarks=true&${selected}&resourceVersion=${revision}`;
    await ask("GET", path, undefined, (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const { type, object } = JSON.parse(line);
        if (type === "ERROR") {
          faults.push(object.message);
          continue;
        }
        revision = object.metadata.resourceVersion;
        if (type === "ADDED") seen.push(object.metadata.name);
      }
    }).catch(() => undefined);
    watches++;
    await sleep(pauseMs);
  }
}

// A test that has failed does not ask for the end; its folder goes with its hosts.
setInterval(() => {
  if (!existsSync(dirname(end!))) process.exit(1);
}, 1000);
const before = await list();
void watch(before.metadata.resourceVersion);
await Promise.all(Array.from({ length: lanes }, (_, id) => lane(id)));
const there = new Set((await list()).items.map(({ metadata }) => metadata.name));
const isSeen = () => [...there].every((name) => seen.includes(name));
for (let i = 0; i < 600 && !isSeen(); i++) await sleep(100);
isWatching = false;
console.log(
  JSON.stringify({
    acknowledged: acknowledged.size,
    lost: [...acknowledged].filter((name) => !there.has(name)),
    unseen: [...there].filter((name) => !seen.includes(name)),
    twice: seen.length - new Set(seen).size,
    ...{ faults, watches, longestMs: Math.round(longestMs) },
  }),
);
process.exit(0);
