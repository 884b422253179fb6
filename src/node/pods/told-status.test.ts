// Who has the last word on a pod's status: this node, the API, somebody else, and what is told again to whom.
import { expect, test } from "vitest";
import { Client } from "#client/client.ts";
import type { Pod, PodStatus } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { ToldStatus, type ToldStatusOptions } from "./told-status.ts";

const running: PodStatus = { phase: "Running", conditions: [{ type: "Ready", status: "True" }] };
const podOf = (status?: PodStatus, more = {}): Pod => ({
  ...{ apiVersion: "v1", kind: "Pod" },
  metadata: { name: "p", namespace: "ns", uid: "u", resourceVersion: "1", ...more },
  spec: { containers: [] },
  ...(status ? { status } : {}),
});

/** With the API's copy of the pod, which the test may change. */
async function open(more: Partial<ToldStatusOptions> = {}, first = podOf()) {
  const transport = new FakeTransport();
  const clock = new FakeClock();
  const client = new Client(transport);
  await transport.request({ method: "POST", path: "/api/v1/namespaces/ns/pods", body: first });
  const remembered: (string | undefined)[] = [];
  const remember = (pod: Pod) => void remembered.push(pod.status?.phase);
  const state = { pod: first };
  const said = new ToldStatus({ uid: "u", pod: () => state.pod, ...more }, { client, clock, remember });
  const writes = () => transport.log.filter((line) => line.startsWith("PATCH")).length;
  return { ...{ transport, clock, said, state, remembered, writes } };
}

test("what the API has is not told again, and a change is", async () => {
  const { said, state, writes, remembered } = await open();
  await said.tell(running);
  expect(writes()).toBe(1);
  await said.tell(running);
  expect(writes()).toBe(1);
  expect(said.current).toEqual(running);
  await said.tell({ ...running, phase: "Succeeded" });
  expect(writes()).toBe(2);
  expect(said.isLast).toBe(true);
  expect(remembered).toEqual(["Running", "Running", "Succeeded"]);
  // What others wrote over it later is put right.
  state.pod = podOf(
    { phase: "Succeeded", conditions: [{ type: "Ready", status: "False" }] },
    { resourceVersion: "99" },
  );
  await said.tell({ ...running, phase: "Succeeded" });
  expect(writes()).toBe(3);
});

test("while the API is away the node goes on, and tells it with growing pauses or when it is back", async () => {
  const { said, transport, writes } = await open();
  transport.fail = () => new Error("no route");
  await said.tell(running);
  expect(said.current).toEqual(running);
  expect([said.pauseMs(60_000), said.pauseMs(60_000), said.pauseMs(500)]).toEqual([1000, 2000, 500]);
  expect(said.isDue()).toBe(true);
  expect(said.pauseMs(60_000)).toBe(1000);
  transport.fail = () => undefined;
  await said.tell(running);
  expect(said.isDue()).toBe(false);
  expect(said.pauseMs(60_000)).toBe(60_000);
  expect(writes()).toBe(2);
});

test("somebody else's final word stands, but for what still runs", async () => {
  const evicted: PodStatus = { phase: "Failed", reason: "Evicted", message: "by somebody" };
  const { said, state } = await open();
  await said.tell(running);
  state.pod = podOf(evicted, { resourceVersion: "99" });
  expect(said.current).toEqual({ ...running, ...evicted });
  const fresh = await open({}, podOf(evicted));
  expect(fresh.said.isLast).toBe(true);
  const stillRuns = { ...evicted, containerStatuses: [{ name: "c", state: { running: {} } }] } as unknown as PodStatus;
  expect((await open({}, podOf(stillRuns))).said.isLast).toBe(false);
});

test("conditions of others stay theirs", async () => {
  const gate = { type: "example.com/gate", status: "True" };
  const { said, state } = await open();
  await said.tell(running);
  state.pod = podOf({ phase: "Pending", conditions: [gate, { type: "Ready", status: "Unknown" }] });
  expect(said.merged.conditions).toEqual([...running.conditions!, gate]);
});

test("the watch's echo is known, and nothing else is taken for it", async () => {
  const { said } = await open();
  const before = podOf();
  expect(said.isEcho(before, podOf(running))).toBe(false);
  await said.tell(running);
  expect(said.isEcho(before, podOf(running, { resourceVersion: "2" }))).toBe(true);
  expect(said.isEcho(before, podOf(running, { labels: { a: "b" } }))).toBe(false);
  expect(said.isEcho(before, podOf({ ...running, phase: "Pending" }))).toBe(false);
  const others = { ...running, conditions: [...running.conditions!, { type: "example.com/gate", status: "True" }] };
  expect(said.isEcho(before, podOf(others))).toBe(false);
});

test("a pod from a file is told to its mirror once there is one, and to the next one anew", async () => {
  let mirror: string | undefined;
  const { said, writes, remembered, transport } = await open({ mirrorUid: () => mirror });
  await said.tell(running);
  expect([writes(), said.current, remembered]).toEqual([0, running, []]);
  mirror = "u";
  await said.tell(running);
  await said.tell(running);
  expect(writes()).toBe(1);
  await transport.request({ method: "DELETE", path: "/api/v1/namespaces/ns/pods/p" });
  await transport.request({
    ...{ method: "POST", path: "/api/v1/namespaces/ns/pods" },
    body: podOf(undefined, { uid: "u2" }),
  });
  mirror = "u2";
  await said.tell(running);
  expect(writes()).toBe(2);
});
