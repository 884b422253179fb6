// Extenders over real HTTP, in the middle of real decisions.
import { createServer, type Server } from "node:http";
import { afterEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { parseSchedulerConfiguration } from "./configuration.ts";
import { scheduleExtended } from "./extended.ts";
import { Extender } from "./extender.ts";
import { podInfoOf } from "./pod-info.ts";
import type { Decision } from "./schedule.ts";
import { snapshotOf } from "./snapshot.ts";

type Body = Record<string, unknown>;
type Answers = Readonly<Record<string, (body: Body) => unknown>>;

let close: () => void = () => {};
afterEach(() => close());

async function start(answers: Answers, extra: string) {
  const asked: { verb: string; body: Body }[] = [];
  const server: Server = createServer((request, response) => {
    let text = "";
    request.on("data", (part) => {
      text += part;
    });
    request.on("end", () => {
      const verb = request.url!.replace("/ext/", "");
      const body = JSON.parse(text) as Body;
      asked.push({ verb, body });
      const answer = answers[verb]?.(body);
      if (answer === undefined) response.writeHead(500).end();
      else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const configuration = parseSchedulerConfiguration(
    `{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, extenders: [{urlPrefix: "http://127.0.0.1:${port}/ext/", ${extra}}]}`,
  );
  const extender = new Extender(configuration.extenders[0]!);
  close = () => {
    extender.close();
    server.close();
  };
  return { asked, extender, profile: configuration.profiles[0]! };
}

const node = (name: string): Node => ({
  metadata: { name },
  spec: {},
  status: { allocatable: { cpu: "2", memory: "4Gi", pods: "110" } },
});
const pod = (name: string, priority: number, cpu: string, on?: string): Pod => ({
  metadata: { name, namespace: "default", uid: `${name}-uid` },
  spec: {
    priority,
    containers: [{ name: "c", image: "i", resources: { requests: { cpu } } }],
    ...(on ? { nodeName: on } : {}),
  },
});
const nodes = [node("a"), node("b"), node("c")];
const signal = new AbortController().signal;

async function decide(
  { extender, profile }: Awaited<ReturnType<typeof start>>,
  wanted = pod("p", 10, "1"),
  pods: Pod[] = [],
): Promise<Decision> {
  const snapshot = snapshotOf(nodes, pods);
  const deps = { snapshot: () => snapshot, extenders: [extender], log: silentLogger };
  return scheduleExtended(podInfoOf(wanted), { profile, pick: () => 0 }, deps, signal);
}

describe("filter", () => {
  test("by names, in Go's spelling or another", async () => {
    const t = await start({ f: () => ({ nodenames: ["b"] }) }, "filterVerb: f, nodeCacheCapable: true");
    expect(await decide(t)).toMatchObject({ kind: "bind", node: "b" });
    expect(t.asked[0]!.body).toMatchObject({
      NodeNames: ["a", "b", "c"],
      Nodes: null,
      Pod: { metadata: { name: "p" } },
    });
  });
  test("by nodes", async () => {
    const t = await start(
      { f: (body) => ({ Nodes: { items: [(body["Nodes"] as { items: Node[] }).items[2]] } }) },
      "filterVerb: f",
    );
    expect(await decide(t)).toMatchObject({ kind: "bind", node: "c" });
  });
  test("why not", async () => {
    const answer = {
      NodeNames: [],
      FailedNodes: { a: "no light", b: "no light" },
      FailedAndUnresolvableNodes: { c: "no roof" },
    };
    const t = await start({ f: () => answer }, "filterVerb: f, nodeCacheCapable: true");
    const decision = await decide(t);
    expect(decision).toMatchObject({ kind: "unschedulable" });
    expect(decision.kind === "unschedulable" && [decision.message, [...decision.plugins]]).toEqual([
      "0/3 nodes are available: 1 no roof, 2 no light. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.",
      ["Extender"],
    ]);
  });
  test("an error, and one that may be ignored", async () => {
    const answers = { f: () => ({ Error: "on fire" }) };
    await expect(decide(await start(answers, "filterVerb: f"))).rejects.toThrow("on fire");
    close();
    expect(await decide(await start(answers, "filterVerb: f, ignorable: true"))).toMatchObject({ node: "a" });
    close();
    await expect(decide(await start({}, "filterVerb: f"))).rejects.toThrow(
      /^failed f with extender at URL .*\/ext\/f, code 500$/,
    );
  });
  test("a node that was not asked about", async () => {
    const t = await start({ f: () => ({ NodeNames: ["z"] }) }, "filterVerb: f, nodeCacheCapable: true");
    await expect(decide(t)).rejects.toThrow('claims a filtered node "z"');
  });
});

test("prioritize: its scores count ten times its weight", async () => {
  const t = await start(
    {
      p: () => [
        { Host: "c", Score: 10 },
        { Host: "a", Score: 1 },
      ],
    },
    "prioritizeVerb: p, weight: 1",
  );
  expect(await decide(t)).toMatchObject({ node: "c" });
  close();
  // Who does not answer is not needed for a preference.
  expect(await decide(await start({}, "prioritizeVerb: p, weight: 1"))).toMatchObject({ node: "a" });
});

test("preempt: the extender takes candidates away", async () => {
  const full = ["a", "b", "c"].map((name, i) => pod(`low-${name}`, i, "2", name));
  const wanted = pod("vip", 100, "2");
  const only = (body: Body) => ({ NodeNameToMetaVictims: { c: (body["NodeNameToMetaVictims"] as Body)["c"] } });
  const t = await start({ v: only }, "preemptVerb: v, nodeCacheCapable: true");
  const decision = await decide(t, wanted, full);
  expect(decision.kind === "unschedulable" && decision.preemption?.victims.map(({ key }) => key)).toEqual([
    "default/low-c",
  ]);
  expect(t.asked[0]!.body["NodeNameToMetaVictims"]).toHaveProperty("a", {
    Pods: [{ UID: "low-a-uid" }],
    NumPDBViolations: 0,
  });
  close();
  // By itself it would be the least important one.
  const alone = await decide(await start({}, "filterVerb: '', weight: 1"), wanted, full);
  expect(alone.kind === "unschedulable" && alone.preemption?.node).toBe("a");
});

test("bind, and whom it is about", async () => {
  const t = await start({ b: () => ({}) }, "bindVerb: b, managedResources: [{name: example.com/gpu}]");
  expect(t.extender.isInterestedIn(pod("p", 0, "1"))).toBe(false);
  const gpu = pod("g", 0, "1");
  gpu.spec.initContainers = [{ name: "i", resources: { limits: { "example.com/gpu": "1" } } }];
  expect(t.extender.isInterestedIn(gpu)).toBe(true);
  await t.extender.bind(gpu, "a", signal);
  expect(t.asked[0]!.body).toEqual({ PodName: "g", PodNamespace: "default", PodUID: "g-uid", Node: "a" });
});
