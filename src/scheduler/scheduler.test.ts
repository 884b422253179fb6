// The whole loop over a transport in memory, with the binding subresource as the API server does it.
import { afterEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import type { EventInput } from "#client/events.ts";
import { InformerFactory } from "#client/informer.ts";
import type { ApiRequest } from "#client/transport.ts";
import type { Node, Pod, PodSpec } from "#model/gen/core-v1.ts";
import type { UnknownObject } from "#model/object.ts";
import { nodes, pods } from "#model/resources.ts";
import { internalError } from "#model/status.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { parseSchedulerConfiguration, type SchedulerConfiguration } from "./configuration.ts";
import { createScheduler } from "./scheduler.ts";

/** FakeTransport knows no binding: it becomes the change of the pod that it stands for. */
class BindingTransport extends FakeTransport {
  readonly bindings: string[] = [];
  /** Bindings wait for it. */
  hold: Promise<void> = Promise.resolve();
  override async request(request: ApiRequest): Promise<UnknownObject> {
    if (request.method !== "POST" || !request.path.endsWith("/binding")) return super.request(request);
    const failure = this.fail(request);
    if (failure) throw failure;
    const body = request.body as { target: { name: string } };
    const path = request.path.replace(/\/binding$/, "");
    await this.hold;
    this.bindings.push(`${path.split("/").at(-1)} -> ${body.target.name}`);
    return super.request({ method: "PATCH", path, body: { spec: { nodeName: body.target.name } } });
  }
}

const node = (name: string, cpu = "2"): Node => ({
  metadata: { name },
  spec: {},
  status: { allocatable: { cpu, memory: "4Gi", pods: "110" } },
});
const pod = (name: string, cpu: string, spec: Partial<PodSpec> = {}): Pod => ({
  metadata: { name, namespace: "default" },
  spec: { containers: [{ name: "c", resources: { requests: { cpu } } }], ...spec },
});

let finish: () => Promise<void> = async () => {};
afterEach(() => finish());

async function start(configuration?: SchedulerConfiguration) {
  const transport = new BindingTransport();
  const client = new Client(transport);
  const clock = new FakeClock();
  const random = seededRandom(1);
  const informers = new InformerFactory({ verify: true }, { client, clock, random, log: silentLogger });
  const recorded: string[] = [];
  const record = (e: EventInput) => void recorded.push(`${e.type} ${e.reason} ${e.message}`);
  const events = { as: () => ({ record }) };
  const metrics = new Metrics();
  const stop = new AbortController();
  const scheduler = createScheduler({
    ...{ client, informers, events, clock, random, metrics, log: silentLogger },
    ...(configuration ? { configuration } : {}),
  });
  const running = [scheduler.run(stop.signal, () => {}), informers.run(stop.signal, () => {})];
  finish = async () => {
    stop.abort();
    await Promise.all(running);
    expect(clock.pending).toBe(0);
  };
  const create = async (...objects: Pod[]) => {
    for (const object of objects) await client.create(pods, object);
    await settle();
  };
  return { transport, client, clock, recorded, metrics, create };
}

describe("scheduler", () => {
  test("binds a pod and says so", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    await t.create(pod("a", "1"));
    expect(t.transport.bindings).toEqual(["a -> n1"]);
    expect(t.recorded).toEqual(["Normal Scheduled Successfully assigned default/a to n1"]);
  });

  test("does not hand out room twice before the informer has seen the first binding", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    await t.create(pod("a", "1500m"), pod("b", "1500m"));
    expect(t.transport.bindings).toEqual(["a -> n1"]);
    const message =
      "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    expect(t.recorded).toContain(`Warning FailedScheduling ${message}`);
    const waiting = await t.client.get(pods, "b", "default");
    expect(waiting.status?.conditions).toEqual([
      expect.objectContaining({ type: "PodScheduled", status: "False", reason: "Unschedulable", message }),
    ]);
  });

  test("counts a pod as soon as it is decided, while the binding is still being written", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    let release: () => void = () => {};
    t.transport.hold = new Promise((resolve) => {
      release = resolve;
    });
    await t.create(pod("a", "1500m"), pod("b", "1500m"));
    expect(t.transport.bindings).toEqual([]);
    release();
    await t.clock.advance(20_000);
    expect(t.transport.bindings).toEqual(["a -> n1"]);
  });

  test("tries again when room appears", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    await t.create(pod("a", "1500m"), pod("b", "1500m"));
    await t.client.delete(pods, { name: "a", namespace: "default" });
    await t.clock.advance(2000);
    expect(t.transport.bindings).toEqual(["a -> n1", "b -> n1"]);
  });

  test("room that a shrinking pod holds is used once it has let go of it", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    await t.create(pod("a", "1500m"), pod("b", "1500m"));
    const a = { name: "a", namespace: "default" };
    const has = (cpu: string, resize: string | null) => ({
      status: { resize, containerStatuses: [{ name: "c", resources: { requests: { cpu } } }] },
    });
    const containers = [{ name: "c", resources: { requests: { cpu: "500m" } } }];
    await t.client.patch(pods, a, { spec: { containers }, ...has("1500m", "InProgress") });
    await t.clock.advance(20_000);
    expect(t.transport.bindings).toEqual(["a -> n1"]);
    await t.client.patch(pods, a, has("500m", null));
    await t.clock.advance(20_000);
    expect(t.transport.bindings).toEqual(["a -> n1", "b -> n1"]);
  });

  test("a node that comes later is used", async () => {
    const t = await start();
    await t.create(pod("a", "1"));
    // Nothing has changed: no further attempt.
    await t.clock.advance(60_000);
    expect(t.recorded).toEqual(["Warning FailedScheduling no nodes available to schedule pods"]);
    await t.client.create(nodes, node("n1"));
    await t.clock.advance(2000);
    expect(t.transport.bindings).toEqual(["a -> n1"]);
  });

  test("a failed binding frees the room and is tried again", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    t.transport.fail = (r) => (r.path.endsWith("/binding") ? internalError("no") : undefined);
    await t.create(pod("a", "2"));
    expect(t.transport.bindings).toEqual([]);
    t.transport.fail = () => undefined;
    await t.clock.advance(2000);
    expect(t.transport.bindings).toEqual(["a -> n1"]);
  });

  test("leaves alone what is gated, another scheduler's, or placed by hand", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    await t.create(
      pod("gated", "1", { schedulingGates: [{ name: "wait" }] }),
      pod("other", "1", { schedulerName: "mine" }),
      pod("placed", "1", { nodeName: "n1" }),
    );
    expect(t.transport.bindings).toEqual([]);
    await t.client.patch(pods, { name: "gated", namespace: "default" }, { spec: { schedulingGates: null } });
    await settle();
    expect(t.transport.bindings).toEqual(["gated -> n1"]);
  });

  test("a pod nobody can read does not hold up the others", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    await t.create(pod("bad", "nonsense"), pod("good", "1"));
    expect(t.transport.bindings).toEqual(["good -> n1"]);
    expect(t.recorded.some((line) => line.startsWith("Warning FailedScheduling"))).toBe(true);
  });

  test("profiles side by side, each with its own plugins; others' pods are left alone", async () => {
    const t = await start(
      parseSchedulerConfiguration(`
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: blind
  plugins: {filter: {disabled: [{name: TaintToleration}]}}
`),
    );
    const tainted = node("n1");
    tainted.spec = { taints: [{ key: "k", effect: "NoSchedule" }] };
    await t.client.create(nodes, tainted);
    await t.create(pod("a", "1"), pod("b", "1", { schedulerName: "blind" }), pod("c", "1", { schedulerName: "mine" }));
    expect(t.transport.bindings).toEqual(["b -> n1"]);
    const waiting = await t.client.get(pods, "c", "default");
    expect(waiting.status?.conditions).toBeUndefined();
  });

  test("counts under upstream's names", async () => {
    const t = await start();
    await t.client.create(nodes, node("n1"));
    await t.create(pod("a", "1500m"), pod("b", "1500m"), pod("g", "1", { schedulingGates: [{ name: "wait" }] }));
    const text = t.metrics.render();
    for (const line of [
      'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1',
      'scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} 1',
      'scheduler_pending_pods{queue="unschedulable"} 1',
      'scheduler_pending_pods{queue="gated"} 1',
      'scheduler_pending_pods{queue="active"} 0',
      'scheduler_unschedulable_pods{plugin="NodeResourcesFit"} 1',
      'scheduler_cache_size{type="nodes"} 1',
      'scheduler_queue_incoming_pods_total{event="UnschedulablePodAdd",queue="active"} 2',
      'scheduler_queue_incoming_pods_total{event="ScheduleAttemptFailure",queue="unschedulable"} 1',
      'scheduler_pod_scheduling_sli_duration_seconds_count{attempts="1"} 1',
      'scheduler_framework_extension_point_duration_seconds_count{extension_point="Filter",profile="default-scheduler",status="Success"} 1',
      'scheduler_framework_extension_point_duration_seconds_count{extension_point="PostFilter",profile="default-scheduler",status="Unschedulable"} 1',
    ]) {
      expect(text).toContain(`${line}\n`);
    }
  });

  test("an error takes an earlier promise back", async () => {
    const t = await start();
    t.transport.fail = (r) => (r.path.endsWith("/binding") ? internalError("no") : undefined);
    await t.client.create(nodes, node("n1"));
    const promised = pod("a", "1");
    promised.status = { nominatedNodeName: "n1" };
    await t.create(promised);
    const { status } = await t.client.get(pods, "a", "default");
    expect(status?.nominatedNodeName).toBeUndefined();
    expect(status?.conditions?.[0]).toMatchObject({ reason: "SchedulerError", message: expect.stringContaining("no") });
  });
});
