import { describe, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { type NodeConfiguration, parseConfiguration } from "../configuration.ts";
import { parseMachineUsage } from "../stats/kernel.ts";
import type { ContainerUsage, PodUsage } from "../stats/usage.ts";
import { decidePressure, noPressure } from "./decision.ts";
import { EvictionManager } from "./manager.ts";
import { evictionMessage, rank, storageLimitMessage } from "./ranking.ts";
import {
  amountOf,
  crossed,
  type Observation,
  type Observations,
  observationsOf,
  parseThresholds,
  type Signal,
} from "./signals.ts";

const mib = 2 ** 20;
const seen = (available: number, signal: Signal = "memory.available", capacity = 1000 * mib): Observations =>
  new Map([[signal, { capacity, available }]]);
const container = (extra: Partial<ContainerUsage> = {}): ContainerUsage =>
  ({ name: "c", workingSetBytes: 0, diskBytes: 0, ...extra }) as ContainerUsage;
const usage = (name: string, extra: Partial<PodUsage> = {}): PodUsage =>
  ({
    uid: name,
    name,
    workingSetBytes: 0,
    ephemeralBytes: 0,
    processes: 0,
    containers: [],
    volumes: [],
    ...extra,
  }) as unknown as PodUsage;
const podOf = (name: string, spec: object = {}, metadata: object = {}): Pod =>
  ({
    metadata: { name, uid: name, namespace: "ns", ...metadata },
    spec: { containers: [{ name: "c" }], ...spec },
  }) as unknown as Pod;
const asking = (memory: string) => ({ containers: [{ name: "c", resources: { requests: { memory } } }] });

describe("thresholds", () => {
  const [bytes] = parseThresholds("memory.available<100Mi", "hard");
  const [share] = parseThresholds("nodefs.available<10%", "hard");
  test("amounts and shares", () => {
    expect(crossed([bytes!], seen(99 * mib), false)).toEqual([bytes]);
    expect(crossed([bytes!], seen(100 * mib), false)).toEqual([]);
    expect(crossed([share!], seen(99 * mib, "nodefs.available"), false)).toEqual([share]);
    expect(crossed([share!], seen(101 * mib, "nodefs.available"), false)).toEqual([]);
  });
  test("what cannot be read is not short", () => {
    const disk = { totalBytes: 1000, freeBytes: 10, inodes: 0, inodesFree: 0 };
    const of = (meminfo: string) =>
      observationsOf({
        ...{ memory: parseMachineUsage(meminfo, "", ""), node: disk, image: disk },
        pids: { max: 100, used: 1 },
      });
    const { evictionHard } = parseConfiguration([]);
    const short = (meminfo: string) => crossed(evictionHard, of(meminfo), false).map((t) => t.signal);
    expect(short("MemTotal: 9000 kB\nMemFree: 9 kB\n")).toEqual([
      "memory.available",
      "nodefs.available",
      "imagefs.available",
    ]);
    expect(short("")).toEqual(["nodefs.available", "imagefs.available"]);
  });
  test("a small machine that uses a third of its memory has some left", () => {
    const { evictionHard } = parseConfiguration([]);
    const disk = { totalBytes: 1000, freeBytes: 900, inodes: 0, inodesFree: 0 };
    // A guest of 256 MiB: most of the file cache counts as used lately.
    const short = (availableMib: number) => {
      const meminfo = `MemTotal: ${220 * 1024} kB\nMemFree: 5000 kB\nMemAvailable: ${availableMib * 1024} kB\nInactive(file): 9 kB\n`;
      const memory = parseMachineUsage(meminfo, "", "");
      return crossed(
        evictionHard,
        observationsOf({ memory, node: disk, image: disk, pids: { max: 9, used: 1 } }),
        false,
      );
    };
    expect(short(95)).toEqual([]);
    expect(short(21)).toMatchObject([{ signal: "memory.available" }]);
    expect(amountOf(evictionHard[0]!, 8 * 1024 * mib)).toBe(100 * mib);
  });
  test("one that was crossed stays so until the reclaim is free as well", () => {
    const threshold = { ...bytes!, reclaim: { bytes: 50 * mib } };
    const first = decidePressure([threshold], seen(90 * mib), noPressure, 0, 0);
    expect(first.act).toEqual([threshold]);
    const half = decidePressure([threshold], seen(120 * mib), first.state, 1, 0);
    expect(half.act).toEqual([threshold]);
    expect(decidePressure([threshold], seen(150 * mib), half.state, 2, 0).act).toEqual([]);
    // Without having been crossed before, 120 MiB is fine.
    expect(decidePressure([threshold], seen(120 * mib), noPressure, 1, 0).act).toEqual([]);
  });
  test("a soft one is acted on after its grace, and starts anew when it was over in between", () => {
    const soft = { ...parseThresholds("memory.available<100Mi", "soft")[0]!, graceMs: 60_000 };
    const one = decidePressure([soft], seen(1), noPressure, 0, 0);
    expect(one.act).toEqual([]);
    expect(one.conditions.has("MemoryPressure")).toBe(true);
    expect(decidePressure([soft], seen(1), one.state, 60_000, 0).act).toEqual([soft]);
    const over = decidePressure([soft], seen(500 * mib), one.state, 30_000, 0);
    expect(decidePressure([soft], seen(1), over.state, 60_000, 0).act).toEqual([]);
  });
  test("the condition stays for the transition period", () => {
    const period = 300_000;
    const on = decidePressure([bytes!], seen(1), noPressure, 0, period);
    const still = decidePressure([bytes!], seen(500 * mib), on.state, 299_000, period);
    expect([...still.conditions]).toEqual(["MemoryPressure"]);
    expect([...decidePressure([bytes!], seen(500 * mib), still.state, 300_000, period).conditions]).toEqual([]);
  });
});

describe("who goes first", () => {
  const candidates = [
    { pod: podOf("within", asking("100Mi")), usage: usage("within", { workingSetBytes: 90 * mib }) },
    { pod: podOf("low", { priority: -1 }), usage: usage("low", { workingSetBytes: 10 * mib }) },
    { pod: podOf("big"), usage: usage("big", { workingSetBytes: 300 * mib }) },
    { pod: podOf("beyond", asking("100Mi")), usage: usage("beyond", { workingSetBytes: 150 * mib }) },
    { pod: podOf("critical", { priority: 2_000_001_000 }), usage: usage("critical", { workingSetBytes: 900 * mib }) },
    { pod: podOf("static", {}, { annotations: { "kubernetes.io/config.source": "file" } }), usage: usage("static") },
  ];
  test("beyond requests, then priority, then how much beyond; critical and static ones never", () => {
    expect(rank(candidates, "memory.available").map((c) => c.pod.metadata.name)).toEqual([
      "low",
      "big",
      "beyond",
      "within",
    ]);
  });
  test("processes have no requests", () => {
    const rows = [
      { pod: podOf("few"), usage: usage("few", { processes: 3 }) },
      { pod: podOf("many"), usage: usage("many", { processes: 900 }) },
    ];
    expect(rank(rows, "pid.available").map((c) => c.pod.metadata.name)).toEqual(["many", "few"]);
  });
  test("says what was short and who used it", () => {
    const [threshold] = parseThresholds("memory.available<100Mi", "hard");
    const candidate = {
      pod: podOf("big"),
      usage: usage("big", { containers: [container({ workingSetBytes: 300 * mib })] }),
    };
    expect(evictionMessage(threshold!, { capacity: 1, available: 52 * mib }, candidate)).toBe(
      "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container c was using 300Mi, request is 0, has larger consumption of memory. ",
    );
  });
});

describe("limits of a pod's own", () => {
  const emptyDir = podOf("p", { volumes: [{ name: "v", emptyDir: { sizeLimit: "10Mi" } }] });
  const limited = podOf("p", { containers: [{ name: "c", resources: { limits: { "ephemeral-storage": "10Mi" } } }] });
  const two = podOf("p", {
    containers: [
      { name: "c", resources: { limits: { "ephemeral-storage": "10Mi" } } },
      { name: "d", resources: { limits: { "ephemeral-storage": "10Mi" } } },
    ],
  });
  const volume = (bytes: number) => usage("p", { volumes: [{ name: "v", bytes }] as never });
  const cases: [string, Pod, PodUsage, RegExp | undefined][] = [
    ["an emptyDir within", emptyDir, volume(10 * mib), undefined],
    ["an emptyDir beyond", emptyDir, volume(11 * mib), /^Usage of EmptyDir volume "v" exceeds the limit "10Mi"\. $/],
    [
      "a container beyond",
      two,
      usage("p", { containers: [container({ diskBytes: 11 * mib })], ephemeralBytes: 11 * mib }),
      /^Container c exceeded its local ephemeral storage limit "10Mi"\. $/,
    ],
    [
      "a pod beyond its sum",
      limited,
      usage("p", { ephemeralBytes: 11 * mib }),
      /exceeds the total limit of containers 10Mi/,
    ],
    ["no limit, no end", podOf("p"), usage("p", { ephemeralBytes: 1e12 }), undefined],
  ];
  test.each(cases)("%s", (_, pod, used, expected) => {
    const message = storageLimitMessage(pod, used);
    if (expected) expect(message).toMatch(expected);
    else expect(message).toBeUndefined();
  });
});

describe("the manager", () => {
  function setup(configuration: NodeConfiguration, pods: readonly { readonly pod: Pod; readonly usage: PodUsage }[]) {
    const clock = new FakeClock();
    const state = {
      now: seen(500 * mib) as Map<Signal, Observation>,
      evicted: [] as [string, number][],
      reclaims: 0,
      conditions: 0,
      afterReclaim: undefined as Map<Signal, Observation> | undefined,
      left: [...pods],
    };
    const manager = new EvictionManager({
      ...{ clock, configuration, metrics: new Metrics(), log: createLogger(() => {}, "error") },
      nodeFolder: "/",
      imageFolder: "/",
      pods: () => state.left.map((p) => p.pod),
      usageOf: async (wanted) => state.left.filter((p) => wanted(p.pod)).map((p) => p.usage),
      async evict(pod, _message, graceSeconds) {
        state.evicted.push([pod.metadata.name ?? "", graceSeconds]);
        state.left = state.left.filter((p) => p.pod !== pod);
      },
      async reclaimDisk() {
        state.reclaims++;
        if (state.afterReclaim) state.now = state.afterReclaim;
      },
      warn: () => {},
      onConditions: () => state.conditions++,
      observe: async () => state.now,
    });
    return { manager, state, clock, look: () => manager.look(new AbortController().signal) };
  }
  const pods = [
    { pod: podOf("small"), usage: usage("small", { workingSetBytes: mib }) },
    { pod: podOf("big"), usage: usage("big", { workingSetBytes: 300 * mib }) },
  ];

  test("does nothing while there is enough, and looks seldom", async () => {
    const { look, state } = setup(parseConfiguration([]), pods);
    expect(await look()).toBe(10_000);
    expect(state.evicted).toEqual([]);
  });
  test("looks often near a threshold", async () => {
    const { look, state } = setup(parseConfiguration([]), pods);
    state.now = new Map(seen(150 * mib));
    expect(await look()).toBe(1_000);
  });
  test("ends one pod per look, with little grace, until there is enough", async () => {
    const { look, state, manager } = setup(parseConfiguration([]), pods);
    state.now = new Map(seen(50 * mib));
    await look();
    expect(state.evicted).toEqual([["big", 1]]);
    expect([...manager.conditions]).toEqual(["MemoryPressure"]);
    await look();
    expect(state.evicted.map(([name]) => name)).toEqual(["big", "small"]);
  });
  test("disk is won back without ending a pod where that is enough", async () => {
    const { look, state } = setup(parseConfiguration([]), pods);
    state.now = new Map(seen(1 * mib, "nodefs.available"));
    state.afterReclaim = new Map(seen(500 * mib, "nodefs.available"));
    await look();
    expect(state).toMatchObject({ reclaims: 1, evicted: [] });
  });
  test("a soft eviction leaves the pod its grace up to the maximum", async () => {
    const configuration = parseConfiguration([
      "eviction-soft=memory.available<1Gi",
      "eviction-soft-grace-period=memory.available=30s",
      "eviction-max-pod-grace-period=20",
    ]);
    const { look, state, clock } = setup(configuration, pods);
    await look();
    expect(state.evicted).toEqual([]);
    await clock.advance(31_000);
    await look();
    expect(state.evicted).toEqual([["big", 20]]);
  });
  test("under memory pressure only pods with requests, tolerations or importance come", async () => {
    const { look, state, manager } = setup(parseConfiguration([]), []);
    state.now = new Map(seen(50 * mib));
    await look();
    expect(manager.refusal(podOf("p"))?.reason).toBe("Evicted");
    expect(manager.refusal(podOf("p", asking("1Mi")))).toBeUndefined();
    expect(manager.refusal(podOf("p", { tolerations: [{ operator: "Exists" }] }))).toBeUndefined();
    expect(manager.refusal(podOf("p", { priority: 2_000_000_000 }))).toBeUndefined();
  });
  test("local storage limits are kept", async () => {
    const pod = podOf("full", { volumes: [{ name: "v", emptyDir: { sizeLimit: "1Mi" } }] });
    const { look, state } = setup(parseConfiguration([]), [
      { pod, usage: usage("full", { volumes: [{ name: "v", bytes: 2 * mib }] as never }) },
    ]);
    await look();
    expect(state.evicted).toEqual([["full", 1]]);
  });
});
