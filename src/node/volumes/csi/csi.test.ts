// A node's storage with a real driver behind sockets, over an API in memory: registration, the calls for pods that come
// and go, a restart of the agent in between, inline volumes, growth, and failures.
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, silentLogger } from "#base/log.ts";
import { attachmentName } from "#client/attachment-name.ts";
import { Client } from "#client/client.ts";
import type { ApiRequest } from "#client/transport.ts";
import type { Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Volume } from "#model/gen/core-v1.ts";
import type { CSIDriver, VolumeAttachment } from "#model/gen/storage-v1.ts";
import type { UnknownObject } from "#model/object.ts";
import {
  csiDrivers,
  csiNodes,
  nodes,
  persistentVolumeClaims,
  persistentVolumes,
  secrets,
  volumeAttachments,
} from "#model/resources.ts";
import { forbidden, internalError } from "#model/status.ts";
import { volumeAnnotations } from "#model/volumes.ts";
import { systemClock as clock } from "#platform/clock.ts";
import type { Commands } from "#platform/processes.ts";
import { systemRandom as random } from "#platform/random.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { until } from "#test/harness/until.ts";
import { NodeMemory } from "../../memory.ts";
import { NodeStorage } from "../storage.ts";
import { PodTokens } from "../tokens.ts";
import { startTestDriver, type TestDriver, type TestDriverOptions } from "./driver.fixture.ts";

/** The driver's folders are plain ones: nothing is really mounted. */
const commands: Commands = { run: async () => ({ code: 0, stdout: "", stderr: "" }) };
const driverName = "disk.example.com";
let folder: string;
let attachWaitMs = 0;
let client: Client;
let transport: TokenTransport;
let driver: TestDriver | undefined;
let running: { stop: AbortController; done: Promise<void>; storage: NodeStorage }[];
let recorded: string[];

/** FakeTransport knows no tokens. */
class TokenTransport extends FakeTransport {
  override async request(request: ApiRequest): Promise<UnknownObject> {
    if (!request.path.endsWith("/token")) return super.request(request);
    const { spec } = request.body as { spec: { audiences: string[] } };
    const status = { token: `for ${spec.audiences.join()}`, expirationTimestamp: "2126-01-01T00:00:00Z" };
    return { metadata: {}, status };
  }
}

beforeEach(async () => {
  folder = mkdtempSync("/tmp/mote-csi-");
  mkdirSync(`${folder}/pods`);
  transport = new TokenTransport();
  client = new Client(transport);
  running = [];
  recorded = [];
  await client.create(nodes, { metadata: { name: "n" }, spec: {}, status: {} } as Node);
});
afterEach(async () => {
  for (const one of running) one.stop.abort(new Error("over"));
  await Promise.all(running.map((one) => one.done));
  await driver?.close();
  driver = undefined;
  rmSync(folder, { recursive: true, force: true });
});

/** `api`: other than the one that is always there. */
async function startAgent(api = client, log = silentLogger): Promise<NodeStorage> {
  const storage = new NodeStorage(
    {
      nodeName: "n",
      podsFolder: `${folder}/pods`,
      storageFolder: `${folder}/storage`,
      kubeletFolder: `${folder}/kubelet`,
      sharesMounts: false,
      attachWaitMs,
    },
    {
      ...{ client: api, clock, random, log, commands },
      events: { record: ({ reason, message }) => void recorded.push(`${reason} ${message}`) },
      tokens: new PodTokens({ client: api, clock }),
    },
  );
  await storage.persistent.open();
  const stop = new AbortController();
  running.push({ stop, done: storage.run(stop.signal), storage });
  return storage;
}
async function stopAgent(): Promise<void> {
  const last = running.pop();
  last?.stop.abort(new Error("restart"));
  await last?.done;
}
async function startDriver(options: Partial<TestDriverOptions> = {}, object: Partial<CSIDriver["spec"]> = {}) {
  driver = await startTestDriver({ name: driverName, kubeletFolder: `${folder}/kubelet`, ...options });
  await client.create(csiDrivers, {
    metadata: { name: driverName },
    spec: { attachRequired: false, podInfoOnMount: false, ...object },
  });
  return driver;
}
const registered = () =>
  until(async () => (await client.get(csiNodes, "n").catch(() => undefined))?.spec.drivers.length === 1, "registered");

const pod = (name: string, volume: Volume, fsGroup?: number): Pod => ({
  metadata: { name, namespace: "ns", uid: `${name}-uid` },
  spec: {
    containers: [],
    volumes: [volume],
    serviceAccountName: "default",
    ...(fsGroup === undefined ? {} : { securityContext: { fsGroup } }),
  },
});
const withClaim = (name: string, fsGroup?: number): Pod =>
  pod(name, { name: "data", persistentVolumeClaim: { claimName: "c" } }, fsGroup);

async function boundVolume(spec: Partial<PersistentVolume["spec"]> = {}): Promise<void> {
  const claim: PersistentVolumeClaim = {
    metadata: { name: "c", namespace: "ns", annotations: { [volumeAnnotations.bindCompleted]: "yes" } },
    spec: { volumeName: "pv", accessModes: ["ReadWriteOnce"] },
    status: { phase: "Bound", capacity: { storage: "1Gi" } },
  };
  const { metadata } = await client.create(persistentVolumeClaims, claim);
  await client.create(persistentVolumes, {
    metadata: { name: "pv" },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      claimRef: { name: "c", namespace: "ns", uid: metadata.uid ?? "" },
      csi: { driver: driverName, volumeHandle: "vol-1", fsType: "ext4", volumeAttributes: { pool: "fast" } },
      ...spec,
    },
  });
}
const ensure = (storage: NodeStorage, p: Pod) => storage.persistent.ensure(p, p.spec.volumes![0]!);
const methods = () => driver?.calls.map((call) => call.method);

test("a driver comes, is known to the API, and goes", async () => {
  await startAgent();
  await until(async () => (await client.get(csiNodes, "n").catch(() => undefined)) !== undefined, "empty CSINode");
  const d = await startDriver({ topology: { "topology.disk.example.com/rack": "r1" }, maxVolumes: 7 });
  await registered();
  expect((await client.get(csiNodes, "n")).spec.drivers).toEqual([
    {
      name: driverName,
      nodeID: `id-of-${driverName}`,
      topologyKeys: ["topology.disk.example.com/rack"],
      allocatable: { count: 7 },
    },
  ]);
  const node = await client.get(nodes, "n");
  expect(node.metadata.labels).toEqual({ "topology.disk.example.com/rack": "r1" });
  expect(node.metadata.annotations).toEqual({
    "csi.volume.kubernetes.io/nodeid": JSON.stringify({ [driverName]: `id-of-${driverName}` }),
  });
  await until(async () => d.statuses.length > 0, "answered");
  expect(d.statuses).toEqual([{ pluginRegistered: true, error: "" }]);
  await d.close();
  driver = undefined;
  await until(async () => (await client.get(csiNodes, "n")).spec.drivers.length === 0, "gone");
});

const idsAnnotation = "csi.volume.kubernetes.io/nodeid";
test("a Node that was made again has its drivers again, and so has what somebody took away", async () => {
  const storage = await startAgent();
  await startDriver({ topology: { rack: "r1" } });
  await registered();
  const told = async (what: string) =>
    until(async () => {
      const { metadata } = await client.get(nodes, "n");
      const record = await client.get(csiNodes, "n").catch(() => undefined);
      return (
        metadata.labels?.["rack"] === "r1" &&
        metadata.annotations?.[idsAnnotation] !== undefined &&
        record?.metadata.ownerReferences?.[0]?.uid === metadata.uid &&
        record?.spec.drivers.length === 1
      );
    }, what);
  await told("at first");
  storage.sawNode(await client.get(nodes, "n"));
  await client.patch(nodes, { name: "n" }, { metadata: { annotations: { [idsAnnotation]: null } } });
  storage.sawNode(await client.get(nodes, "n"));
  await told("after the annotation was taken away");
  await client.delete(nodes, { name: "n" });
  await client.create(nodes, { metadata: { name: "n" }, spec: {}, status: {} } as Node);
  storage.sawNode(await client.get(nodes, "n"));
  await told("on another Node, which owns the record of before");
});

test("a driver that the API refuses is told of with growing pauses, and complained of once", async () => {
  const warnings: string[] = [];
  let asked = 0;
  transport.fail = ({ method, path }) => {
    if (method !== "PATCH" || !path.endsWith("/nodes/n")) return undefined;
    asked++;
    return forbidden({ group: "", resource: "nodes" }, "n", "no");
  };
  const storage = await startAgent(
    client,
    createLogger((_, message) => warnings.push(message), "warn"),
  );
  await startDriver();
  await until(() => asked >= 2, "asked again");
  expect(warnings).toEqual(["cannot register a plugin"]);
  transport.fail = () => undefined;
  await registered();
  // Known, and refused only later: the same holds.
  transport.fail = ({ method }) => {
    if (method !== "PATCH") return undefined;
    asked++;
    return forbidden({ group: "", resource: "nodes" }, "n", "once more");
  };
  asked = 0;
  await until(() => {
    storage.sawNode({ metadata: { name: "n", uid: "another" }, spec: {} });
    return asked >= 2;
  }, "noticed");
  expect(warnings.slice(1)).toEqual(["cannot tell of a driver yet"]);
});

test("a driver that is refused while the Node is seen without it is told of when it is registered, and not before", async () => {
  const warnings: string[] = [];
  let asked = 0;
  const storage = await startAgent(
    client,
    createLogger((_, message) => warnings.push(message), "warn"),
  );
  transport.fail = ({ method, path }) => {
    if (method !== "PATCH" || !path.endsWith("/nodes/n")) return undefined;
    asked++;
    storage.sawNode({ metadata: { name: "n", uid: "same" }, spec: {} });
    return forbidden({ group: "", resource: "nodes" }, "n", "no");
  };
  await startDriver();
  await until(() => asked >= 3, "asked again");
  expect(warnings).toEqual(["cannot register a plugin"]);
});

test("a Node that becomes another, and another soon after, is looked at until what belonged to both is collected", async () => {
  const fake = new FakeClock();
  const storage = new NodeStorage(
    {
      ...{ nodeName: "n", kubeletFolder: `${folder}/other`, podsFolder: `${folder}/other-pods` },
      ...{ storageFolder: `${folder}/storage`, sharesMounts: false },
    },
    {
      ...{ client, clock: fake, random, log: silentLogger, commands, events: { record: () => {} } },
      tokens: new PodTokens({ client, clock: fake }),
    },
  );
  const stop = new AbortController();
  const done = storage.run(stop.signal);
  const line = "GET /apis/storage.k8s.io/v1/csinodes/n";
  const looks = async (ms: number) => {
    transport.log.length = 0;
    await fake.advance(ms);
    return transport.log.filter((one) => one === line).length;
  };
  const saw = (uid: string) => storage.sawNode({ metadata: { name: "n", uid }, spec: {} });
  await looks(1000);
  saw("1");
  expect(await looks(1000)).toBe(0);
  saw("2");
  expect(await looks(31_000)).toBe(2);
  saw("3");
  expect([await looks(1000), await looks(31_000), await looks(61_000), await looks(600_000)]).toEqual([1, 1, 1, 0]);
  stop.abort();
  await done;
});

test("staged once, published for each pod, and taken away in the other order, also by a later agent", async () => {
  let storage = await startAgent();
  await startDriver({ capabilities: ["STAGE_UNSTAGE_VOLUME"] });
  await registered();
  await client.create(secrets, {
    metadata: { name: "s", namespace: "sys" },
    data: { key: Buffer.from("word").toString("base64") },
  } as Secret);
  await boundVolume({
    csi: {
      driver: driverName,
      volumeHandle: "vol-1",
      fsType: "ext4",
      volumeAttributes: { pool: "fast" },
      nodeStageSecretRef: { name: "s", namespace: "sys" },
    },
    mountOptions: ["noatime"],
  });
  const path = await ensure(storage, withClaim("p"));
  expect(path).toBe(`${folder}/kubelet/pods/p-uid/volumes/kubernetes.io~csi/pv/mount`);
  await ensure(storage, withClaim("p"));
  await ensure(storage, withClaim("q"));
  expect(methods()).toEqual(["NodeStageVolume", "NodePublishVolume", "NodePublishVolume"]);
  const [stage, publish] = driver!.calls.map((call) => call.request);
  expect(stage).toMatchObject({
    volumeId: "vol-1",
    volumeContext: { pool: "fast" },
    secrets: { key: "word" },
    volumeCapability: { mount: { fsType: "ext4", mountFlags: ["noatime"] }, accessMode: { mode: 1 } },
  });
  expect(publish).toMatchObject({ stagingTargetPath: stage?.["stagingTargetPath"], targetPath: path, readonly: false });

  await stopAgent();
  storage = await startAgent();
  await until(async () => driver!.statuses.length === 2, "registered again");
  driver!.calls.length = 0;
  await storage.persistent.release("p-uid");
  expect(methods()).toEqual(["NodeUnpublishVolume"]);
  driver!.failing.set("NodeUnpublishVolume", "busy");
  await expect(storage.persistent.release("q-uid")).rejects.toThrow("busy");
  expect(storage.persistent.isInUse("pv")).toBe(true);
  driver!.failing.clear();
  await storage.persistent.release("q-uid");
  expect(methods()).toEqual(["NodeUnpublishVolume", "NodeUnpublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]);
  expect(storage.persistent.isInUse("pv")).toBe(false);
  expect(existsSync(`${folder}/kubelet/pods/p-uid/volumes/kubernetes.io~csi/pv`)).toBe(false);
});

test("a volume is not touched before it is attached, and is in use from then on", async () => {
  const storage = await startAgent();
  await startDriver({}, { attachRequired: true });
  await registered();
  await boundVolume();
  await expect(ensure(storage, withClaim("p"))).rejects.toThrow(
    'MountVolume.SetUp failed for volume "pv" : volume is not attached yet',
  );
  const inUse = async () => (await client.get(nodes, "n")).status?.volumesInUse;
  await until(async () => (await inUse())?.[0] === `kubernetes.io/csi/${driverName}^vol-1`, "in use");
  const attachment: VolumeAttachment = {
    metadata: { name: attachmentName("vol-1", driverName, "n") },
    spec: { attacher: driverName, nodeName: "n", source: { persistentVolumeName: "pv" } },
    status: { attached: true, attachmentMetadata: { device: "sdb" } },
  };
  await client.create(volumeAttachments, attachment);
  await ensure(storage, withClaim("p"));
  expect(driver!.calls[0]?.request["publishContext"]).toEqual({ device: "sdb" });
  await storage.persistent.release("p-uid");
  await until(async () => (await inUse())?.length === 0, "no longer in use");
});

test("a pod waits a while for its volume to be attached", async () => {
  attachWaitMs = 5_000;
  const storage = await startAgent();
  attachWaitMs = 0;
  await startDriver({}, { attachRequired: true });
  await registered();
  await boundVolume();
  const path = ensure(storage, withClaim("p"));
  await clock.sleep(200);
  await client.create(volumeAttachments, {
    metadata: { name: attachmentName("vol-1", driverName, "n") },
    spec: { attacher: driverName, nodeName: "n", source: { persistentVolumeName: "pv" } },
    status: { attached: true },
  });
  expect(await path).toContain("/mount");
});

test("an inline volume is told about its pod, and lives as long", async () => {
  const storage = await startAgent();
  await startDriver({ capabilities: ["STAGE_UNSTAGE_VOLUME"] }, { podInfoOnMount: true });
  await registered();
  const p = pod("p", { name: "scratch", csi: { driver: driverName, readOnly: true, volumeAttributes: { size: "1" } } });
  await expect(ensure(storage, p)).rejects.toThrow(`volume mode "Ephemeral" not supported by driver ${driverName}`);
  await client.patch(csiDrivers, { name: driverName }, { spec: { volumeLifecycleModes: ["Ephemeral"] } });
  await ensure(storage, p);
  expect(methods()).toEqual(["NodePublishVolume"]);
  expect(driver!.calls[0]?.request).toMatchObject({
    readonly: true,
    stagingTargetPath: "",
    volumeContext: {
      size: "1",
      "csi.storage.k8s.io/pod.name": "p",
      "csi.storage.k8s.io/pod.namespace": "ns",
      "csi.storage.k8s.io/pod.uid": "p-uid",
      "csi.storage.k8s.io/serviceAccount.name": "default",
      "csi.storage.k8s.io/ephemeral": "true",
    },
  });
  expect(String(driver!.calls[0]?.request["volumeId"])).toMatch(/^csi-[0-9a-f]{64}$/);
  await storage.persistent.release("p-uid");
  expect(methods()).toEqual(["NodePublishVolume", "NodeUnpublishVolume"]);
});

test("a volume that has grown has its file system grown, once, and the claim told", async () => {
  const storage = await startAgent();
  await startDriver({ capabilities: ["EXPAND_VOLUME"] });
  await registered();
  await boundVolume();
  await ensure(storage, withClaim("p"));
  expect(methods()).toEqual(["NodePublishVolume"]);
  await client.patch(persistentVolumes, { name: "pv" }, { spec: { capacity: { storage: "2Gi" } } });
  await ensure(storage, withClaim("p"));
  await ensure(storage, withClaim("p"));
  expect(methods()).toEqual(["NodePublishVolume", "NodeExpandVolume"]);
  expect(driver!.calls[1]?.request["capacityRange"]).toMatchObject({ requiredBytes: 2 * 2 ** 30 });
  expect((await client.get(persistentVolumeClaims, "c", "ns")).status?.capacity).toEqual({ storage: "2Gi" });
  expect(recorded[0]).toContain("FileSystemResizeSuccessful");
});

test.runIf(process.getuid?.() === 0).each([
  ["File", undefined, 4711],
  ["None", "ext4", 0],
  ["ReadWriteOnceWithFSType", "ext4", 4711],
  ["ReadWriteOnceWithFSType", undefined, 0],
])("group policy %s with type %s: group %i", async (fsGroupPolicy, fsType, expected) => {
  const storage = await startAgent();
  await startDriver({}, { fsGroupPolicy });
  await registered();
  await boundVolume({ csi: { driver: driverName, volumeHandle: "vol-1", ...(fsType ? { fsType } : {}) } });
  const path = (await ensure(storage, withClaim("p", 4711))) ?? "";
  expect(statSync(path).gid).toBe(expected);
});

test("tokens, the driver's own group, and publishing again where the driver asks for it", async () => {
  const storage = await startAgent();
  await startDriver(
    { capabilities: ["VOLUME_MOUNT_GROUP"] },
    { requiresRepublish: true, fsGroupPolicy: "File", tokenRequests: [{ audience: "vault" }] },
  );
  await registered();
  await boundVolume();
  const path = (await ensure(storage, withClaim("p", 4711))) ?? "";
  const [call] = driver!.calls;
  expect(call?.request["volumeCapability"]).toMatchObject({ mount: { volumeMountGroup: "4711" } });
  const context = call?.request["volumeContext"] as Record<string, string>;
  expect(JSON.parse(context["csi.storage.k8s.io/serviceAccount.tokens"] ?? "")).toEqual({
    vault: { token: "for vault", expirationTimestamp: "2126-01-01T00:00:00Z" },
  });
  // The driver has given it to the group itself.
  expect(statSync(path).gid).toBe(process.getgid?.());
  await ensure(storage, withClaim("p", 4711));
  expect(methods()).toEqual(["NodePublishVolume", "NodePublishVolume"]);
});

test("while the API is away a volume stays, but one that is not mounted after a reboot is not given out", async () => {
  let storage = await startAgent();
  await startDriver();
  await registered();
  await boundVolume();
  const path = await ensure(storage, withClaim("p"));
  transport.fail = (request) => (request.path.includes("persistentvolume") ? internalError("away") : undefined);
  expect(await ensure(storage, withClaim("p"))).toBe(path);
  await stopAgent();
  storage = await startAgent();
  await expect(ensure(storage, withClaim("p"))).rejects.toThrow("away");
});

/** The memory of one run of an agent, and a client that remembers by it. */
async function startMemory() {
  const stop = new AbortController();
  const probe = () => transport.request({ method: "GET", path: "/api/v1/nodes/n" });
  const options = { folder: `${folder}/remembered`, nodeName: "n" };
  const memory = await NodeMemory.open(options, { clock, random, log: silentLogger, probe });
  const tasks = memory.services.map((service) => service.run(stop.signal, () => {}));
  return {
    memory,
    api: new Client(memory.transport(transport)),
    async end() {
      stop.abort(new Error("power cut"));
      await Promise.all(tasks);
    },
  };
}
const attached = (status: object, more: object = {}) =>
  ({
    metadata: { name: attachmentName("vol-1", driverName, "n"), ...more },
    spec: { attacher: driverName, nodeName: "n", source: { persistentVolumeName: "pv" } },
    status,
  }) as VolumeAttachment;

test.each<[string, VolumeAttachment["status"], object, boolean]>([
  ["was attached", { attached: true, attachmentMetadata: { device: "sdb" } }, {}, true],
  ["was being detached", { attached: true }, { deletionTimestamp: "2026-01-01T00:00:00Z", finalizers: ["x"] }, false],
  ["was not attached", { attached: false }, {}, false],
])(
  "after a boot without a server a volume that %s",
  async (_, status, metadata, isUsable) => {
    // Volumes go on where they were: the machine has not told anybody that it went down.
    await startDriver({}, { attachRequired: true });
    await boundVolume();
    await client.create(volumeAttachments, attached({ attached: true, attachmentMetadata: { device: "sdb" } }));
    const first = await startMemory();
    let storage = await startAgent(first.api);
    await registered();
    first.memory.remember(withClaim("p"));
    await ensure(storage, withClaim("p"));
    await stopAgent();
    const { name } = attached({}).metadata;
    await client.delete(volumeAttachments, { name: name ?? "" });
    await client.create(volumeAttachments, attached(status ?? {}, metadata));
    // The agent looks again when it is started again.
    storage = await startAgent(first.api);
    await until(async () => driver!.statuses.length === 2, "registered again");
    await ensure(storage, withClaim("p")).catch(() => {});
    await stopAgent();
    await first.end();

    transport.fail = () => new Error("connect EHOSTUNREACH");
    driver!.calls.length = 0;
    const second = await startMemory();
    await until(async () => second.memory.reach.isAway, "known to be away");
    storage = await startAgent(second.api);
    await until(async () => driver!.statuses.length === 3, "the driver serves");
    expect(driver!.statuses.at(-1)).toEqual({ pluginRegistered: true, error: "" });
    const path = ensure(storage, withClaim("p"));
    if (isUsable) {
      expect(await path).toContain("/mount");
      expect(driver!.calls[0]?.request["publishContext"]).toEqual({ device: "sdb" });
      // What was not known of the driver is told as soon as there is somebody to tell.
      transport.fail = () => undefined;
      await client.delete(csiNodes, { name: "n" });
      await registered();
    } else await expect(path).rejects.toThrow(/not attached yet|being deleted/);
    await stopAgent();
    await second.end();
  },
  60_000,
);

test("an attachment that is not to be known any longer is not", async () => {
  const { api, memory, end } = await startMemory();
  const { name = "" } = attached({}).metadata;
  await client.create(volumeAttachments, attached({ attached: true }));
  await api.get(volumeAttachments, name);
  transport.fail = () => new Error("connect EHOSTUNREACH");
  expect((await api.get(volumeAttachments, name)).status?.attached).toBe(true);
  transport.fail = () => undefined;
  await until(async () => !memory.reach.isAway, "back");
  await client.delete(volumeAttachments, { name });
  await expect(api.get(volumeAttachments, name)).rejects.toThrow("not found");
  transport.fail = () => new Error("connect EHOSTUNREACH");
  await expect(api.get(volumeAttachments, name)).rejects.toThrow("not found");
  await end();
});

test("a block volume is handed on as a file of its own", async () => {
  const storage = await startAgent();
  await startDriver();
  await registered();
  await boundVolume({ volumeMode: "Block" });
  const path = await ensure(storage, withClaim("p"));
  expect(path).toBe(`${folder}/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pv/p-uid`);
  expect(driver!.calls[0]?.request["volumeCapability"]).toMatchObject({ block: {} });
  await storage.persistent.release("p-uid");
  expect(existsSync(path ?? "")).toBe(false);
});

test("what is wrong is said in the words people know", async () => {
  const storage = await startAgent();
  const p = withClaim("p");
  await expect(ensure(storage, p)).rejects.toThrow('persistentvolumeclaims "c" not found');
  await boundVolume();
  await expect(ensure(storage, p)).rejects.toThrow(
    `driver name ${driverName} not found in the list of registered CSI drivers`,
  );
  await startDriver();
  await registered();
  driver!.failing.set("NodePublishVolume", "no such disk");
  await expect(ensure(storage, p)).rejects.toThrow(
    'MountVolume.SetUp failed for volume "pv" : rpc error: code = Internal desc = no such disk',
  );
  await client.patch(persistentVolumeClaims, { name: "c", namespace: "ns" }, { metadata: { annotations: null } });
  await expect(ensure(storage, withClaim("q"))).rejects.toThrow("error processing PVC ns/c: PVC is not bound");
});

test.each([
  ["ReadWriteOnce", false, 1],
  ["ReadWriteOncePod", false, 1],
  ["ReadOnlyMany", false, 3],
  ["ReadWriteMany", false, 5],
  ["ReadWriteOnce", true, 7],
  ["ReadWriteOncePod", true, 6],
  ["ReadOnlyMany", true, 3],
  ["ReadWriteMany", true, 5],
])(
  "a volume that is %s is asked for in words that the driver knows (counts writers: %s)",
  async (mode, counts, number) => {
    const storage = await startAgent();
    const d = await startDriver(counts ? { capabilities: ["SINGLE_NODE_MULTI_WRITER"] } : {});
    await registered();
    await boundVolume({ accessModes: [mode] });
    await ensure(storage, withClaim("p"));
    const publish = d.calls.find(({ method }) => method === "NodePublishVolume");
    expect(publish?.request["volumeCapability"]).toMatchObject({ accessMode: { mode: number } });
  },
);
