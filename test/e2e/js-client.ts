// What an operator written in JavaScript does, with the official client; prints what it saw as one JSON line.
// Runs inside the test host's network: js-client.ts KUBECONFIG
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { CoreV1Api, Exec, KubeConfig, makeInformer, type V1ConfigMap, type V1Status } from "@kubernetes/client-node";

const config = new KubeConfig();
config.loadFromFile(process.argv[2]!);
const core = config.makeApiClient(CoreV1Api);
const namespace = "default";
const name = "from-js";

const seen: string[] = [];
const list = () => core.listNamespacedConfigMap({ namespace });
const informer = makeInformer<V1ConfigMap>(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
for (const type of ["add", "update", "delete"] as const) {
  informer.on(type, (object) => {
    if (object.metadata?.name === name) seen.push(type);
  });
}
await informer.start();
await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { a: "1" } } });
const created = await core.readNamespacedConfigMap({ namespace, name });
await core.replaceNamespacedConfigMap({ namespace, name, body: { ...created, data: { a: "2" } } });
await core.deleteNamespacedConfigMap({ namespace, name });
for (let i = 0; i < 100 && seen.length < 3; i++) await sleep(50);
await informer.stop();

const pods = await core.listNamespacedPod({ namespace, labelSelector: "app=web" });
const output = new PassThrough();
let text = "";
output.on("data", (chunk: Buffer) => {
  text += chunk.toString();
});
const pod = pods.items[0]!.metadata!.name!;
const status = await new Promise<V1Status>((resolve, reject) => {
  const command = ["echo", "hello"];
  new Exec(config).exec(namespace, pod, "httpd", command, output, null, null, false, resolve).catch(reject);
});
console.log(JSON.stringify({ seen, text, status: status.status }));
process.exit(0);
