import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { forbidden } from "#model/status.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { isMirrorPod, mirrorOf } from "./mirror-pods.ts";
import { planShutdown } from "./shutdown.ts";
import { staticPodOf } from "./static-pod-file.ts";
import { StaticPods } from "./static-pods.ts";

const text = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: main, image: "box:1"}]
`;

describe("a pod from a file", () => {
  const pod = staticPodOf(text, "/m/web.yaml", "node-a", 0);
  test("has the node's name behind its own, defaults, and stays whatever the taints", () => {
    expect(pod.metadata).toMatchObject({ name: "web-node-a", namespace: "default" });
    expect(pod.metadata.annotations?.["kubernetes.io/config.source"]).toBe("file");
    expect(pod.spec).toMatchObject({
      nodeName: "node-a",
      restartPolicy: "Always",
      tolerations: [{ operator: "Exists", effect: "NoExecute" }],
    });
  });
  test("is known by its text, place and node", () => {
    expect(staticPodOf(text, "/m/web.yaml", "node-a", 99).metadata.uid).toBe(pod.metadata.uid);
    expect(staticPodOf(`${text}\n`, "/m/web.yaml", "node-a", 0).metadata.uid).not.toBe(pod.metadata.uid);
    expect(staticPodOf(text, "/m/web.yaml", "node-b", 0).metadata.uid).not.toBe(pod.metadata.uid);
  });
  test("may be JSON", () => {
    const json = JSON.stringify({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "j" },
      spec: { containers: [{ name: "m", image: "i" }] },
    });
    expect(staticPodOf(json, "/m/j.json", "n", 0).metadata.name).toBe("j-n");
  });
  test.each([
    ["no YAML", "kind: [", /./],
    ["another kind", text.replace("kind: Pod", "kind: Service"), /./],
    ["an unknown field", `${text}  frob: 1\n`, /unknown field/],
    ["no name", text.replace("name: web", "labels: {}"), /metadata\.name is missing/],
    ["a secret", `${text}  volumes: [{name: v, secret: {secretName: s}}]\n`, /may not use config map, secret/],
    ["a service account", `${text}  serviceAccountName: x\n`, /may not use a service account/],
    ["no image", text.replace(', image: "box:1"', ""), /image/],
  ])("is refused with %s", (_, broken, message) => {
    expect(() => staticPodOf(broken, "/m/web.yaml", "n", 0)).toThrow(message);
  });
  test("its mirror belongs to the node and names what it shows", () => {
    const mirror = mirrorOf(pod, "node-uid");
    expect(isMirrorPod(mirror)).toBe(true);
    expect(isMirrorPod(pod)).toBe(false);
    expect(mirror.metadata).toMatchObject({
      annotations: { "kubernetes.io/config.mirror": pod.metadata.uid },
      ownerReferences: [{ kind: "Node", name: "node-a", uid: "node-uid", controller: true }],
    });
    expect(mirror.metadata.uid).toBeUndefined();
  });
});

test("a mirror that the API refuses is told once, and the others are made; so is a file that is too large", async () => {
  const folder = mkdtempSync("/tmp/mote-static-");
  writeFileSync(`${folder}/a.yaml`, text.replace("name: web", "name: refused"));
  writeFileSync(`${folder}/b.yaml`, text);
  writeFileSync(`${folder}/c.yaml`, `${text}#${" ".repeat(2 ** 20)}`);
  const transport = new FakeTransport();
  let refusals = 0;
  transport.fail = ({ method, body }) => {
    if (method !== "POST" || (body as Pod).metadata.name !== "refused-n") return undefined;
    refusals++;
    return forbidden({ group: "", resource: "pods" }, "refused-n", "exceeded quota");
  };
  const client = new Client(transport);
  await client.create(nodes, { metadata: { name: "n" }, spec: {}, status: {} } as Node);
  const clock = new FakeClock();
  const said: string[] = [];
  const started: (string | undefined)[] = [];
  const statics = new StaticPods({
    ...{ client, clock, nodeName: "n", folder, end: () => {} },
    start: (pod) => started.push(pod.metadata.name),
    log: createLogger((_, message, fields) => said.push(`${message} ${JSON.stringify(fields)}`), "warn"),
  });
  const stop = new AbortController();
  const done = statics.run(stop.signal);
  for (let round = 0; refusals < 3 && round < 500; round++) {
    await clock.advance(1_000);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  stop.abort(new Error("over"));
  await done;
  rmSync(folder, { recursive: true });
  expect(started).toEqual(["refused-n", "web-n"]);
  expect(refusals).toBe(3);
  expect(transport.log.filter((line) => line === "POST /api/v1/namespaces/default/pods")).toHaveLength(1 + refusals);
  expect(said).toEqual([
    expect.stringMatching(/c\.yaml.*more than/),
    expect.stringMatching(/refused-n.*exceeded quota/),
  ]);
});

test("a machine that goes down ends ordinary pods first, critical ones after", () => {
  const worker = (name: string, priority: number) => ({
    pod: { metadata: { name }, spec: { priority } } as unknown as Pod,
  });
  const all = [worker("system", 2_000_001_000), worker("web", 0)];
  const phases = planShutdown(all, { shutdownGracePeriodMs: 30_000, shutdownGracePeriodCriticalPodsMs: 10_000 });
  expect(phases.map((p) => [p.members.map((w) => w.pod.metadata.name), p.graceMs])).toEqual([
    [["web"], 20_000],
    [["system"], 10_000],
  ]);
});
