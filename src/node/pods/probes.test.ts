import { describe, expect, test } from "vitest";
import type { Container, Pod, Probe } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import type { Cri } from "../cri.ts";
import type { ObservedContainer } from "./observation.ts";
import { Probes } from "./probes.ts";

/** Probes one container whose exec answers what `exitCode` says at that moment. */
function setup(probes: Partial<Container>, status?: Pod["status"]) {
  const clock = new FakeClock();
  const seen = { exitCode: 0, tries: 0, changes: 0, unhealthy: [] as string[] };
  const cri = {
    async execSync() {
      seen.tries++;
      return { stdout: new Uint8Array(), stderr: Buffer.from("no"), exitCode: seen.exitCode };
    },
  } as unknown as Cri;
  const container = { name: "main", ...probes } as Container;
  const pod = { metadata: { uid: "u" }, spec: { containers: [container] }, ...(status ? { status } : {}) } as Pod;
  const running = { id: "c1", name: "main" } as ObservedContainer;
  const subject = new Probes({
    cri,
    clock,
    random: seededRandom(1),
    version: "v1.32.3",
    onChange: () => seen.changes++,
    onUnhealthy: (_uid, _name, message) => seen.unhealthy.push(message),
  });
  subject.sync(pod, [running], "127.0.0.1");
  return { clock, seen, subject, pod, running, view: () => subject.view(running, pod) };
}
const exec = (extra: Partial<Probe> = {}): Probe =>
  ({ exec: { command: ["x"] }, periodSeconds: 10, ...extra }) as Probe;

describe("probes", () => {
  test("without probes a running container is started and ready", () => {
    expect(setup({}).view()).toMatchObject({ started: true, ready: true });
  });
  test("readiness comes with the first success and goes with the third failure", async () => {
    const { clock, seen, view } = setup({ readinessProbe: exec() });
    expect(view().ready).toBe(false);
    await clock.advance(600);
    expect(view().ready).toBe(true);
    seen.exitCode = 1;
    await clock.advance(20_000);
    expect(view().ready).toBe(true);
    await clock.advance(10_000);
    expect(view().ready).toBe(false);
    expect(seen.unhealthy).toEqual(Array(3).fill("Readiness probe failed: no"));
    expect(seen.changes).toBe(2);
  });
  test("liveness fails for good after its threshold, and is asked no more", async () => {
    const { clock, seen, view } = setup({ livenessProbe: exec({ failureThreshold: 2, initialDelaySeconds: 5 }) });
    seen.exitCode = 1;
    await clock.advance(4_900);
    expect(seen.tries).toBe(0);
    await clock.advance(10_200);
    expect(view().failed).toBe("liveness");
    await clock.advance(60_000);
    expect(seen.tries).toBe(2);
  });
  test("the startup probe holds the others back", async () => {
    const { clock, seen, view } = setup({
      startupProbe: exec({ periodSeconds: 2, failureThreshold: 30 }),
      readinessProbe: exec(),
    });
    seen.exitCode = 1;
    await clock.advance(5_000);
    expect(view()).toMatchObject({ started: false, ready: false });
    expect(seen.unhealthy.every((text) => text.startsWith("Startup"))).toBe(true);
    seen.exitCode = 0;
    await clock.advance(4_000);
    expect(view()).toMatchObject({ started: true, ready: true });
  });
  test("a container that was taken over keeps its word until a probe says otherwise", async () => {
    const known = {
      name: "main",
      containerID: "containerd://c1",
      ready: true,
      started: true,
      restartCount: 0,
      image: "",
      imageID: "",
    };
    const { clock, seen, subject, pod, running, view } = setup(
      { readinessProbe: exec({ failureThreshold: 1 }) },
      { containerStatuses: [known] },
    );
    expect(view().ready).toBe(true);
    // The first status after a restart is told before the first probe is set up.
    subject.forget("u");
    expect(view()).toMatchObject({ started: true, ready: true });
    expect(subject.view({ ...running, id: "c2" }, pod).ready).toBe(false);
    subject.sync(pod, [running], "127.0.0.1");
    seen.exitCode = 1;
    await clock.advance(10_000);
    expect(view().ready).toBe(false);
  });
  test("a container that is gone is probed no more and leaves no timer", async () => {
    const { clock, subject, pod } = setup({ readinessProbe: exec(), livenessProbe: exec() });
    subject.sync(pod, [], "127.0.0.1");
    await clock.advance(0);
    expect(clock.pending).toBe(0);
  });
});
