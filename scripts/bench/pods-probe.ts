// The client's side of `npm run bench -- pods`, run inside the host's network: creates pods through the API, watches them become
// Running and go, and prints the times. pods-probe.ts KUBECONFIG SINGLE TOGETHER
import { readFileSync } from "node:fs";
import { Client } from "#client/client.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { readKubeconfig } from "#client/kubeconfig.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { pods } from "#model/resources.ts";
import { createHttpClient } from "#platform/http-client.ts";

const [kubeconfig = "", single = "50", together = "110"] = process.argv.slice(2);
const limitMs = 120_000;

const text = readFileSync(kubeconfig, "utf8");
const config = await readKubeconfig(text, { readFile: async (path) => readFileSync(path, "utf8") });
const http = createHttpClient({
  baseUrl: config.server,
  ...(config.ca === undefined ? {} : { ca: config.ca }),
  ...(config.cert === undefined ? {} : { cert: config.cert }),
  ...(config.key === undefined ? {} : { key: config.key }),
});
const client = new Client(createHttpTransport({ userAgent: "mote-bench" }, { http }));

/** What the watch has told of each pod: when it was first Running, when it went. */
const running = new Map<string, number>();
const gone = new Map<string, number>();
let wake: () => void = () => {};
const stop = new AbortController();
const list = await client.list(pods, { namespace: "default" });
const watching = (async () => {
  const options = { namespace: "default", resourceVersion: list.metadata.resourceVersion ?? "0" };
  for await (const event of client.watch(pods, options, stop.signal)) {
    if (event.type === "BOOKMARK" || event.type === "ERROR") continue;
    const pod = event.object as Pod;
    const name = pod.metadata.name ?? "";
    if (event.type === "DELETED") gone.set(name, performance.now());
    else if (pod.status?.phase === "Running" && !running.has(name)) running.set(name, performance.now());
    wake();
  }
})();
watching.catch((error: unknown) => {
  if (!stop.signal.aborted) throw error;
});

async function until(what: string, check: () => boolean): Promise<number> {
  const endMs = performance.now() + limitMs;
  while (!check()) {
    if (performance.now() > endMs) throw new Error(`${what}: not within ${limitMs} ms`);
    await new Promise<void>((resolve) => {
      wake = resolve;
      setTimeout(resolve, 1000);
    });
  }
  return performance.now();
}

const podOf = (name: string): Pod =>
  ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "default" },
    spec: { automountServiceAccountToken: false, containers: [{ name: "main", image: "mote.local/pause:1" }] },
  }) as unknown as Pod;
const remove = (name: string) => client.delete(pods, { name, namespace: "default" });

const starts: number[] = [];
for (let i = 0; i < Number(single); i++) {
  const name = `one-${i}`;
  const beganMs = performance.now();
  await client.create(pods, podOf(name));
  await until(name, () => running.has(name));
  starts.push(running.get(name)! - beganMs);
  await remove(name);
  await until(`${name} gone`, () => gone.has(name));
}
const names = Array.from({ length: Number(together) }, (_, i) => `many-${i}`);
const beganMs = performance.now();
await Promise.all(names.map((name) => client.create(pods, podOf(name))));
const allMs = (await until("all pods Running", () => names.every((name) => running.has(name)))) - beganMs;
const deletedMs = performance.now();
await Promise.all(names.map(remove));
const goneMs = (await until("all pods gone", () => names.every((name) => gone.has(name)))) - deletedMs;
stop.abort(new Error("done"));
console.log(JSON.stringify({ starts, allMs, goneMs }));
process.exit(0);
