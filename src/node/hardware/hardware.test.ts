import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { systemClock } from "#platform/clock.ts";
import { createGrpcClient } from "#platform/grpc-client.ts";
import { type GrpcHandlers, openGrpcServer } from "#platform/grpc-server.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { until } from "#test/harness/until.ts";
import { encodeFrame } from "#wire/grpc.ts";
import { parseConfiguration } from "../configuration.ts";
import type { Cri } from "../cri.ts";
import { decideAffinity } from "./affinity.ts";
import { Hardware } from "./manager.ts";
import { codec, registerPath } from "./plugin-protocol.ts";
import { type Reservations, type ReserveInput, reserve, sharedProcessors } from "./reservations.ts";
import { formatList, parseList, type Topology, takeProcessors } from "./topology.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-hardware-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const gib = 2 ** 30;

/** Two sockets, each a NUMA node of two cores with two threads: 0-3 and 4-7; core of n is floor(n / 2). */
const topology: Topology = {
  processors: Array.from({ length: 8 }, (_, id) => ({
    id,
    core: String(Math.floor(id / 2) % 2),
    socket: Math.floor(id / 4),
    numa: Math.floor(id / 4),
  })),
  nodes: [
    { id: 0, memoryBytes: 4 * gib },
    { id: 1, memoryBytes: 4 * gib },
  ],
};

test.each([
  ["0-2,5", [0, 1, 2, 5]],
  ["", []],
  ["3", [3]],
])("the list %j", (text, ids) => {
  expect([...parseList(text)]).toEqual(ids);
  expect(formatList(ids)).toBe(text);
});
test("nonsense is no list", () => expect(() => parseList("2-1")).toThrow());

describe("processors close together", () => {
  const take = (free: string, count: number, near?: number[]) => {
    const taken = takeProcessors(topology, parseList(free), count, near && new Set(near));
    return taken && formatList(taken);
  };
  test.each([
    ["a whole core", "0-7", 2, undefined, "0-1"],
    ["not a core that is half taken, while a whole one is there", "1-7", 2, undefined, "2-3"],
    ["the rest of a broken core for one", "1-7", 1, undefined, "1"],
    ["a whole node", "1-7", 4, undefined, "4-7"],
    ["the fullest node that is still large enough", "2-7", 2, undefined, "2-3"],
    ["more than a node", "0-7", 6, undefined, "0-5"],
    ["the node asked for", "0-7", 2, [1], "4-5"],
    ["more than that node has", "0-7", 6, [1], "0-1,4-7"],
    ["more than there are", "0-3", 5, undefined, undefined],
  ])("%s", (_, free, count, near, expected) => expect(take(free, count, near)).toBe(expected));
});

describe("where it all lies", () => {
  const on =
    (...nodes: number[]) =>
    (set: ReadonlySet<number>) =>
      nodes.every((n) => set.has(n));
  const provider = (fits: (set: ReadonlySet<number>) => boolean, couldFit = fits) => ({ fits, couldFit });
  const only0 = provider(on(0));
  const only1 = provider(on(1));
  const both = provider(on(0, 1));
  const crowded = provider(on(0, 1), (set) => set.size >= 1);
  test.each([
    ["none asks nothing", "none", [both], true, undefined],
    ["the narrowest that does", "best-effort", [only1], true, [1]],
    ["for all of them", "best-effort", [only0, only1], true, [0, 1]],
    ["best effort takes two where one would do on an empty machine", "best-effort", [crowded], true, [0, 1]],
    ["restricted does not", "restricted", [crowded], false, undefined],
    ["restricted takes two where two are needed anyway", "restricted", [both], true, [0, 1]],
    ["a single node", "single-numa-node", [only0], true, [0]],
    ["not two", "single-numa-node", [both], false, undefined],
    ["nobody cares", "single-numa-node", [], true, undefined],
  ] as const)("%s", (_, policy, providers, isAllowed, nodes) => {
    const verdict = decideAffinity(policy, [...providers], [0, 1]);
    expect(verdict.isAllowed).toBe(isAllowed);
    expect(verdict.nodes && [...verdict.nodes]).toEqual(nodes);
  });
});

const box = (name: string, cpu: string, more: Record<string, string> = {}): Container =>
  ({
    name,
    resources: { limits: { cpu, memory: "1Gi", ...more }, requests: { cpu, memory: "1Gi", ...more } },
  }) as unknown as Container;
const podOf = (uid: string, containers: Container[]): Pod =>
  ({ metadata: { uid, name: uid }, spec: { containers } }) as unknown as Pod;

describe("reservations", () => {
  const input = (
    pod: Pod,
    held: Reservations = {},
    args: string[] = [],
    extra: Partial<ReserveInput> = {},
  ): ReserveInput => ({
    pod,
    held,
    topology,
    reservedProcessors: new Set([0]),
    configuration: parseConfiguration(["cpu-manager-policy=static", ...args]),
    devices: new Map(),
    ...extra,
  });
  const given = (result: ReturnType<typeof reserve>) => {
    if (!result.ok) throw new Error(result.message);
    return Object.fromEntries(Object.entries(result.shares).map(([name, s]) => [name, formatList(s.processors)]));
  };
  test("whole processors of a guaranteed pod are its own; reserved and others' are not for taking", () => {
    expect(given(reserve(input(podOf("a", [box("c", "2")]))))).toEqual({ c: "2-3" });
    const held = { b: { c: { processors: [2, 3], memoryNodes: [], memoryBytes: 0, devices: {} } } };
    expect(given(reserve(input(podOf("a", [box("c", "2"), box("d", "1")]), held)))).toEqual({ c: "4-5", d: "1" });
    expect(sharedProcessors(topology, held)).toEqual([0, 1, 4, 5, 6, 7]);
  });
  test.each([
    ["a part of a processor", podOf("a", [box("c", "1500m")])],
    [
      "a pod that is not guaranteed",
      podOf("a", [{ name: "c", resources: { requests: { cpu: "2" } } } as unknown as Container]),
    ],
  ])("%s shares", (_, pod) => expect(given(reserve(input(pod)))).toEqual({}));
  test("more than there is is refused", () => {
    expect(reserve(input(podOf("a", [box("c", "8")])))).toMatchObject({
      ok: false,
      reason: "UnexpectedAdmissionError",
    });
  });
  test("the topology policy refuses what would lie apart", () => {
    const pod = podOf("a", [box("c", "5")]);
    expect(reserve(input(pod, {}, ["topology-manager-policy=single-numa-node"]))).toMatchObject({
      ok: false,
      reason: "TopologyAffinityError",
    });
    expect(reserve(input(pod, {}, ["topology-manager-policy=restricted"])).ok).toBe(true);
  });
  test("memory is pinned to the fewest nodes that have it", () => {
    const args = ["memory-manager-policy=Static"];
    const held = { b: { c: { processors: [], memoryNodes: [0], memoryBytes: 4 * gib, devices: {} } } };
    const one = reserve(input(podOf("a", [box("c", "1")]), held, args));
    expect(one).toMatchObject({ ok: true, shares: { c: { memoryNodes: [1], memoryBytes: gib } } });
  });
  test("devices near the chosen node, and no device twice", () => {
    const healthy = new Map<string, readonly number[]>([
      ["d0", [0]],
      ["d1", [1]],
      ["d2", [1]],
    ]);
    const devices = new Map([["example.com/gpu", { healthy, unhealthy: new Set<string>() }]]);
    const pod = podOf("a", [box("c", "2", { "example.com/gpu": "2" })]);
    const result = reserve(input(pod, {}, ["topology-manager-policy=best-effort"], { devices }));
    expect(result).toMatchObject({
      ok: true,
      shares: { c: { devices: { "example.com/gpu": ["d1", "d2"] }, processors: [4, 5] } },
    });
    const held = result.ok ? { a: result.shares } : {};
    expect(
      reserve(input(podOf("b", [box("c", "1", { "example.com/gpu": "2" })]), held, [], { devices })),
    ).toMatchObject({
      ok: false,
      message: expect.stringContaining("Requested: 2, Available: 1"),
    });
  });
});

test("a device plugin registers, its devices count, a container gets one, and what is held outlives a restart", async () => {
  const log = createLogger(() => {}, "error");
  const asked: string[] = [];
  let unplug = () => {};
  const handlers: GrpcHandlers = new Map([
    [
      "/v1beta1.DevicePlugin/ListAndWatch",
      {
        kind: "stream",
        async handle(stream) {
          const message = codec.encode("ListAndWatchResponse", {
            devices: [
              { ID: "one", health: "Healthy" },
              { ID: "two", health: "Unhealthy" },
            ],
          });
          stream.write(encodeFrame(message));
          await new Promise<void>((resolve) => {
            unplug = resolve;
            stream.signal.addEventListener("abort", () => resolve());
          });
        },
      },
    ],
    [
      "/v1beta1.DevicePlugin/Allocate",
      {
        kind: "unary",
        async handle(message) {
          const request = codec.decode<{ containerRequests: { devicesIDs: string[] }[] }>("AllocateRequest", message);
          asked.push(...request.containerRequests[0]!.devicesIDs);
          return encodeFrame(
            codec.encode("AllocateResponse", {
              containerResponses: [
                {
                  envs: { DEVICE: "one" },
                  devices: [{ containerPath: "/dev/x", hostPath: "/dev/null", permissions: "rw" }],
                },
              ],
            }),
          );
        },
      },
    ],
  ]);
  const plugin = await openGrpcServer(
    { listen: { socketPath: `${folder}/x.sock` }, maxMessageBytes: 65536, log },
    handlers,
  );
  const open = () =>
    new Hardware({
      ...{ clock: systemClock, log, cri: {} as Cri, configuration: parseConfiguration([]) },
      ...{ dataFolder: folder, pluginFolder: folder, memoryBytes: gib, observed: () => [], onChange: () => {} },
    });
  const register = async (hardware: Hardware) => {
    const client = createGrpcClient({ target: { socketPath: `${folder}/kubelet.sock` } });
    const request = { version: "v1beta1", endpoint: "x.sock", resourceName: "example.com/x" };
    for (let i = 0; ; i++) {
      try {
        await client.unary(registerPath, codec.encode("RegisterRequest", request), { timeoutMs: 2000 });
        break;
      } catch (error) {
        if (i > 100) throw error;
        await systemClock.sleep(20);
      }
    }
    const wrong = codec.encode("RegisterRequest", { ...request, resourceName: "cpu" });
    await expect(client.unary(registerPath, wrong, { timeoutMs: 2000 })).rejects.toThrow();
    client.close();
    await until(() => hardware.allocatable["example.com/x"] === 1);
  };
  const stop = new AbortController();
  const hardware = open();
  await hardware.open();
  const running = hardware.run(stop.signal);
  await register(hardware);
  expect(hardware.capacity).toEqual({ "example.com/x": 2 });
  const pod = podOf("p", [box("c", "100m", { "example.com/x": "1" })]);
  expect(hardware.admit(pod)).toBeUndefined();
  expect(hardware.admit(podOf("q", pod.spec.containers!))?.reason).toBe("UnexpectedAdmissionError");
  const extras = await hardware.extras(pod, pod.spec.containers![0]!);
  expect(asked).toEqual(["one"]);
  expect(extras.allocations[0]).toMatchObject({ envs: { DEVICE: "one" }, devices: [{ containerPath: "/dev/x" }] });
  unplug();
  await until(() => hardware.allocatable["example.com/x"] === 0);
  expect(hardware.capacity).toEqual({ "example.com/x": 2 });
  stop.abort(new Error("restart"));
  await running;

  const again = new AbortController();
  const next = open();
  await next.open();
  // Before its plugin is back, the resource is short rather than unknown.
  expect(next.capacity).toEqual({ "example.com/x": 0 });
  expect(next.admit(podOf("r", pod.spec.containers!))?.reason).toBe("UnexpectedAdmissionError");
  const nextRunning = next.run(again.signal);
  await register(next);
  expect(next.admit(podOf("q", pod.spec.containers!))?.reason).toBe("UnexpectedAdmissionError");
  next.keep(new Set());
  expect(next.admit(podOf("q", pod.spec.containers!))).toBeUndefined();
  again.abort(new Error("end"));
  await nextRunning;
  await plugin.close(100);
});

describe("the static policy keeps containers on the processors that are theirs", () => {
  /** Two processors, 0 of them reserved, whatever the machine has. */
  const two: Topology = { processors: topology.processors.slice(0, 2), nodes: topology.nodes.slice(0, 1) };
  const running = (uid: string, ...names: string[]) => ({
    ...{ uid, name: uid, namespace: "ns", sandboxes: [] },
    containers: names.map((name) => ({ id: `${uid}-${name}`, name, state: "running" })),
  });
  async function setup(args: readonly string[] = ["cpu-manager-policy=static", "reserved-cpus=0"]) {
    const clock = new FakeClock();
    const calls: [string, string][] = [];
    let observed: object[] = [];
    const cri = {
      async updateResources(id: string, { cpusetCpus }: { cpusetCpus: string }) {
        if (id.endsWith("gone")) throw new Error("it has ended");
        calls.push([id, cpusetCpus]);
      },
    } as unknown as Cri;
    const at = mkdtempSync(join(folder, "static-"));
    const hardware = new Hardware({
      ...{ clock, cri, log: createLogger(() => {}, "error"), configuration: parseConfiguration([...args]) },
      ...{ dataFolder: at, pluginFolder: at, memoryBytes: gib, onChange: () => {} },
      observed: () => observed as never,
      topology: async () => two,
    });
    await hardware.open();
    const stop = new AbortController();
    const done = hardware.run(stop.signal);
    const end = async () => {
      stop.abort(new Error("end"));
      await clock.advance(0);
      await done;
    };
    const see = (...pods: object[]) => {
      observed = pods;
    };
    const take = () => calls.splice(0);
    return { hardware, clock, see, take, end };
  }

  test("one that was being made while they changed is moved soon, and nobody is asked twice", async () => {
    const { hardware, clock, see, take, end } = await setup();
    const late = podOf("late", [{ name: "c" } as Container]);
    expect((await hardware.extras(late, late.spec.containers[0]!)).cpusetCpus).toBe("0-1");
    // Between that question and its start, another pod gets a processor of its own.
    expect(hardware.admit(podOf("own", [box("c", "1")]))).toBeUndefined();
    await clock.advance(0);
    expect(take()).toEqual([]);
    see(running("late", "c"), running("own", "c"));
    await clock.advance(10_000);
    expect(take()).toEqual([
      ["late-c", "0"],
      ["own-c", "1"],
    ]);
    await clock.advance(60_000);
    expect(take()).toEqual([]);
    hardware.release("own");
    see(running("late", "c", "gone"));
    await clock.advance(0);
    expect(take()).toEqual([["late-c", "0-1"]]);
    await end();
  });
  test("where there is no such policy, nothing is asked", async () => {
    const { clock, see, take, end } = await setup([]);
    see(running("a", "c"));
    await clock.advance(60_000);
    expect(take()).toEqual([]);
    await end();
  });
  test("a plain init container runs on what its pod will have, a sharing one beside an owner does not", async () => {
    const { hardware, clock, see, take, end } = await setup();
    const pod = podOf("p", [box("owner", "1"), box("part", "500m")]);
    pod.spec.initContainers = [box("init", "500m")];
    expect(hardware.admit(pod)).toBeUndefined();
    const given = async (c: Container) => (await hardware.extras(pod, c)).cpusetCpus;
    expect(await Promise.all([...pod.spec.containers, ...pod.spec.initContainers].map(given))).toEqual(["1", "0", "1"]);
    see(running("p", "init", "part"));
    await clock.advance(10_000);
    expect(take()).toEqual([
      ["p-init", "1"],
      ["p-part", "0"],
    ]);
    await end();
  });
});
