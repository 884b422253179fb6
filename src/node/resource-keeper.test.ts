// Whoever was told yes counts from that moment, for whoever asks next: the node is never given away twice.
import { describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { parseConfiguration } from "./configuration.ts";
import type { Refusal } from "./pods/admission.ts";
import type { PodWorker } from "./pods/worker.ts";
import { ResourceKeeper, type ResourceKeeperDeps } from "./resource-keeper.ts";

const podOf = (uid: string, more: object = {}, container: object = {}): Pod =>
  ({ metadata: { uid, name: uid }, spec: { containers: [{ name: "c", ...container }], ...more } }) as unknown as Pod;
const asking = (uid: string, cpu: string, more: object = {}) => podOf(uid, more, { resources: { requests: { cpu } } });
const onPort = (uid: string) => podOf(uid, {}, { ports: [{ containerPort: 80, hostPort: 80 }] });

interface Setup {
  readonly pods: readonly Pod[];
  /** Uids of those that hold what they ask for, and what they do when they are to go. */
  readonly active?: ReadonlyMap<string, () => Promise<void>>;
  /** Uids of those that the runtime has, although nobody has looked at them yet. */
  readonly running?: readonly string[];
}

function keeperOf({ pods, active = new Map(), running = [] }: Setup) {
  const clock = new FakeClock();
  let devices = 1;
  const workers = new Map(
    pods.map((pod) => {
      const uid = pod.metadata.uid ?? "";
      const worker = { uid, pod, allocated: pod, isLive: true, isActive: active.has(uid) };
      const evict = async () => {
        worker.isLive = false;
        worker.isActive = false;
        await active.get(uid)?.();
      };
      return [uid, Object.assign(worker, { evict }) as unknown as PodWorker] as const;
    }),
  );
  const seen = (uid: string) => ({ sandboxes: running.includes(uid) ? [{ id: uid }] : [], containers: [] });
  const keeper = new ResourceKeeper({
    ...{ clock, workers, log: silentLogger, metrics: new Metrics(), configuration: parseConfiguration([]) },
    ...{ podsFolder: "/none", imageFolder: "/none", podLogRoot: "/none", pauseImage: "", hasAppArmor: false },
    runtime: { get: seen, all: () => [] },
    hardware: {
      capacity: {},
      allocatable: { cpu: 1000, pods: 10 },
      admit: (pod: Pod): Refusal | undefined => {
        if (!pod.spec.containers[0]?.resources?.limits?.["example.com/x"]) return undefined;
        return devices-- > 0 ? undefined : { reason: "UnexpectedAdmissionError", message: "none left" };
      },
    },
  } as unknown as ResourceKeeperDeps);
  return { keeper, clock };
}

const reasons = (answers: readonly (Refusal | undefined)[]) => answers.map((answer) => answer?.reason);

describe("asked in the same moment, the second sees the first", () => {
  const device = { resources: { limits: { "example.com/x": "1" } } };
  const cases: [string, Pod, Pod, string | undefined][] = [
    ["processors", asking("a", "600m"), asking("b", "600m"), "OutOfcpu"],
    ["host ports", onPort("a"), onPort("b"), "NodePorts"],
    ["devices", podOf("a", {}, device), podOf("b", {}, device), "UnexpectedAdmissionError"],
    ["room for both", asking("a", "500m"), asking("b", "500m"), undefined],
  ];
  test.each(cases)("%s", async (_, a, b, reason) => {
    const { keeper } = keeperOf({ pods: [a, b] });
    expect(reasons(await Promise.all([keeper.admit(a), keeper.admit(b)]))).toEqual([undefined, reason]);
  });
});

test("a refused pod takes nothing from the next", async () => {
  const [a, b] = [asking("a", "1100m"), asking("b", "1")];
  const { keeper } = keeperOf({ pods: [a, b] });
  expect(reasons(await Promise.all([keeper.admit(a), keeper.admit(b)]))).toEqual(["OutOfcpu", undefined]);
});

test("what has run since before this agent counts before anybody has looked at it", async () => {
  const [old, next] = [asking("old", "600m"), asking("next", "600m")];
  const { keeper } = keeperOf({ pods: [old, next], running: ["old"] });
  expect((await keeper.admit(next))?.reason).toBe("OutOfcpu");
});

test("nobody takes the room that is being made for a critical pod", async () => {
  let gone = () => {};
  const down = new Promise<void>((resolve) => {
    gone = resolve;
  });
  const critical = asking("critical", "1", { priority: 2_000_000_000 });
  const [victim, other] = [asking("victim", "1"), asking("other", "1")];
  const { keeper } = keeperOf({ pods: [victim, critical, other], active: new Map([["victim", () => down]]) });
  const answers = Promise.all([keeper.admit(critical), keeper.admit(other)]);
  gone();
  expect(reasons(await answers)).toEqual([undefined, "OutOfcpu"]);
});

test("one that will not go keeps nobody waiting for ever", async () => {
  const critical = asking("critical", "1", { priority: 2_000_000_000 });
  const [victim, port] = [asking("victim", "1"), onPort("port")];
  const stuck = new Map([["victim", () => new Promise<void>(() => {})]]);
  const { keeper, clock } = keeperOf({ pods: [victim, critical, port], active: stuck });
  const answers = Promise.all([keeper.admit(critical), keeper.admit(port)]);
  await clock.advance(10_000);
  expect(reasons(await answers)).toEqual(["OutOfcpu", undefined]);
  expect(clock.pending).toBe(0);
});
