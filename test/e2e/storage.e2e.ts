// Storage from the claim to the container: API server over a datastore in memory, all controllers, the scheduler, and the
// node agent with real containerd. A stateful set keeps its data across its pod and the agent, and leaves nothing behind;
// ephemeral, block, read-only and CSI volumes as containers see them. Needs root, containerd, runc and CNI plugins.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createAdmissionPlugins } from "#apiserver/admission/plugins.ts";
import type { Client } from "#client/client.ts";
import { createControllers } from "#controllers/registry.ts";
import type { StatefulSet } from "#model/gen/apps-v1.ts";
import type { PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import * as resources from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { startTestDriver, type TestDriver } from "#node/volumes/csi/driver.fixture.ts";
import { systemRandom as random } from "#platform/random.ts";
import { createScheduler } from "#scheduler/scheduler.ts";
import { image, TestNode } from "./node-fixture.ts";

const node = new TestNode(9);
const { folder, kubeletFolder } = node;
const storageFolder = `${folder}/storage`;
const agentOptions = { storageFolder, sharesMounts: true };
let client: Client;
let driver: TestDriver | undefined;

beforeAll(async () => {
  await node.open(agentOptions, {
    admission: createAdmissionPlugins({ random }),
    services: (deps) => [
      ...createControllers({ ...deps, rootCa: "none", localPath: { folder: storageFolder } }),
      createScheduler(deps),
    ],
  });
  client = node.client;
}, 120_000);

afterAll(async () => {
  await node.stop();
  await driver?.close();
  await node.close();
}, 60_000);

const until = <T>(what: string, ask: () => Promise<T | undefined | false>, timeoutMs = 40_000): Promise<T> =>
  node.until(what, ask, timeoutMs);
async function find<T extends ApiObject>(resource: ResourceInfo<T>, name: string, namespace?: string) {
  try {
    return await client.get(resource, name, namespace);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}
const readyPod = async (name: string, not?: string): Promise<Pod | undefined> => {
  const pod = await find(resources.pods, name, "default");
  const isReady = pod?.status?.conditions?.some((c) => c.type === "Ready" && c.status === "True");
  return isReady && pod?.metadata.uid !== not ? pod : undefined;
};
const exec = async (name: string, script: string): Promise<string> =>
  (await node.exec(name, ["sh", "-c", script])).trim();
const deleteAndWait = async (name: string): Promise<void> => {
  await client.delete(resources.pods, { name, namespace: "default" });
  await until(`${name} is gone`, async () => !(await find(resources.pods, name, "default")));
};
const sleeper = { name: "main", image, command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"] };
const claimSpec: PersistentVolumeClaim["spec"] = {
  accessModes: ["ReadWriteOnce"],
  resources: { requests: { storage: "16Mi" } },
};
const runPod = (name: string, spec: Partial<Pod["spec"]>) =>
  client.create(resources.pods, {
    metadata: { name, namespace: "default" },
    spec: { containers: [], automountServiceAccountToken: false, terminationGracePeriodSeconds: 1, ...spec },
  });

test("a stateful set keeps its data, and its folder goes with its claim", async () => {
  const set = {
    metadata: { name: "db", namespace: "default" },
    spec: {
      replicas: 1,
      serviceName: "db",
      selector: { matchLabels: { app: "db" } },
      template: {
        metadata: { labels: { app: "db" } },
        spec: {
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: 1,
          securityContext: { runAsUser: 1000, fsGroup: 2000 },
          containers: [
            {
              ...sleeper,
              volumeMounts: [
                { name: "data", mountPath: "/data" },
                { name: "data", mountPath: "/part", subPath: "inner/part" },
              ],
            },
          ],
        },
      },
      volumeClaimTemplates: [{ metadata: { name: "data" }, spec: claimSpec }],
    },
  } as StatefulSet;
  await client.create(resources.statefulSets, set);
  const first = await until("runs", () => readyPod("db-0"));
  expect(await exec("db-0", "echo one >> /data/log; echo two > /part/file; id -G; stat -c %g /data/log")).toContain(
    "2000",
  );
  const claim = await client.get(resources.persistentVolumeClaims, "data-db-0", "default");
  const volume = `${storageFolder}/${claim.spec.volumeName}_default_data-db-0`;
  expect(readFileSync(`${volume}/inner/part/file`, "utf8")).toBe("two\n");
  expect(statSync(storageFolder).mode & 0o777).toBe(0o700);

  await client.delete(resources.pods, { name: "db-0", namespace: "default" });
  const second = await until("is back", () => readyPod("db-0", first.metadata.uid));
  expect(await exec("db-0", "cat /data/log /part/file")).toBe("one\ntwo");
  expect(readdirSync(`${folder}/agent/pods`)).not.toContain(first.metadata.uid);

  // The agent is replaced under the running pod, then the pod goes.
  await node.stop();
  await node.start(agentOptions);
  expect(await exec("db-0", "echo three >> /data/log; cat /data/log")).toBe("one\nthree");
  await client.delete(resources.statefulSets, { name: "db", namespace: "default" });
  await until("pod is gone", async () => !(await find(resources.pods, "db-0", "default")));
  await until("pod's folder is gone", async () => !existsSync(`${folder}/agent/pods/${second.metadata.uid}`));
  expect(readFileSync(`${volume}/log`, "utf8")).toBe("one\nthree\n");
  await client.delete(resources.persistentVolumeClaims, { name: "data-db-0", namespace: "default" });
  await until("folder is gone", async () => !existsSync(volume));
  await until("volume is gone", async () => !(await find(resources.persistentVolumes, claim.spec.volumeName ?? "")));
});

test("an ephemeral volume lives as long as its pod; a read-only claim cannot be written", async () => {
  await client.create(resources.persistentVolumeClaims, {
    metadata: { name: "shared", namespace: "default" },
    spec: claimSpec,
  });
  await runPod("scratch", {
    containers: [
      {
        ...sleeper,
        volumeMounts: [
          { name: "own", mountPath: "/own" },
          { name: "shared", mountPath: "/shared" },
        ],
      },
    ],
    volumes: [
      { name: "own", ephemeral: { volumeClaimTemplate: { spec: claimSpec } } },
      { name: "shared", persistentVolumeClaim: { claimName: "shared", readOnly: true } },
    ],
  });
  await until("runs", () => readyPod("scratch"));
  expect(await exec("scratch", "echo x > /own/x && cat /own/x")).toBe("x");
  expect(await exec("scratch", "echo x > /shared/x")).toContain("Read-only file system");
  await deleteAndWait("scratch");
  await until("claim is gone", async () => !(await find(resources.persistentVolumeClaims, "scratch-own", "default")));
  await client.delete(resources.persistentVolumeClaims, { name: "shared", namespace: "default" });
  await until("folders are gone", async () => readdirSync(storageFolder).length === 0);
});

test("a pod waits for a claim that is not there, and says so", async () => {
  await runPod("early", {
    nodeName: "node-a",
    containers: [{ ...sleeper, volumeMounts: [{ name: "v", mountPath: "/v" }] }],
    volumes: [{ name: "v", persistentVolumeClaim: { claimName: "later" } }],
  });
  await until("said", async () =>
    (await client.list(resources.events)).items.some(
      (e) => e.reason === "FailedMount" && e.message?.includes('persistentvolumeclaims "later" not found'),
    ),
  );
  await client.create(resources.persistentVolumes, {
    metadata: { name: "by-hand" },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      hostPath: { path: `${folder}/by-hand`, type: "DirectoryOrCreate" },
    },
  });
  await client.create(resources.persistentVolumeClaims, {
    metadata: { name: "later", namespace: "default" },
    spec: { ...claimSpec, storageClassName: "" },
  });
  await until("runs", () => readyPod("early"), 90_000);
  await deleteAndWait("early");
});

test("a block volume is a device in the container", async () => {
  execFileSync("truncate", ["-s", "4M", `${folder}/disk`]);
  const device = execFileSync("losetup", ["--find", "--show", `${folder}/disk`])
    .toString()
    .trim();
  try {
    await client.create(resources.persistentVolumes, {
      metadata: { name: "raw" },
      spec: {
        capacity: { storage: "4Mi" },
        accessModes: ["ReadWriteOnce"],
        volumeMode: "Block",
        local: { path: device },
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [
              { matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: ["node-a"] }] },
            ],
          },
        },
      },
    });
    await client.create(resources.persistentVolumeClaims, {
      metadata: { name: "raw", namespace: "default" },
      spec: {
        accessModes: ["ReadWriteOnce"],
        volumeMode: "Block",
        storageClassName: "",
        resources: { requests: { storage: "1Mi" } },
      },
    });
    await runPod("raw", {
      containers: [{ ...sleeper, volumeDevices: [{ name: "v", devicePath: "/dev/disk" }] }],
      volumes: [{ name: "v", persistentVolumeClaim: { claimName: "raw" } }],
    });
    await until("runs", () => readyPod("raw"));
    await exec("raw", "echo written | dd of=/dev/disk bs=512 conv=sync,fsync 2>/dev/null");
    expect(readFileSync(`${folder}/disk`).subarray(0, 8).toString()).toBe("written\n");
    await deleteAndWait("raw");
  } finally {
    execFileSync("losetup", ["-d", device]);
  }
});

test("what a driver mounts in its container is mounted for others", async () => {
  await runPod("mounter", {
    containers: [
      {
        ...sleeper,
        securityContext: { privileged: true },
        volumeMounts: [{ name: "kubelet", mountPath: kubeletFolder, mountPropagation: "Bidirectional" }],
      },
    ],
    volumes: [{ name: "kubelet", hostPath: { path: kubeletFolder } }],
  });
  await until("runs", () => readyPod("mounter"));
  const place = `${kubeletFolder}/plugins/disk`;
  const said = await exec("mounter", `mkdir -p ${place} && mount -t tmpfs none ${place} && echo here > ${place}/file`);
  expect(said).toBe("");
  expect(readFileSync(`${place}/file`, "utf8")).toBe("here\n");
  await deleteAndWait("mounter");
});

test("a CSI driver serves a claim and an inline volume", async () => {
  const name = "disk.example.com";
  driver = await startTestDriver({ name, kubeletFolder, capabilities: ["STAGE_UNSTAGE_VOLUME"] });
  await client.create(resources.csiDrivers, {
    metadata: { name },
    spec: { attachRequired: false, podInfoOnMount: true, volumeLifecycleModes: ["Persistent", "Ephemeral"] },
  });
  await until("registered", async () => (await find(resources.csiNodes, "node-a"))?.spec.drivers.length === 1);
  await client.create(resources.persistentVolumes, {
    metadata: { name: "csi" },
    spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], csi: { driver: name, volumeHandle: "one" } },
  });
  await client.create(resources.persistentVolumeClaims, {
    metadata: { name: "csi", namespace: "default" },
    spec: { ...claimSpec, storageClassName: "", volumeName: "csi" },
  });
  await runPod("csi", {
    containers: [
      {
        ...sleeper,
        volumeMounts: [
          { name: "claim", mountPath: "/claim" },
          { name: "inline", mountPath: "/inline" },
        ],
      },
    ],
    volumes: [
      { name: "claim", persistentVolumeClaim: { claimName: "csi" } },
      { name: "inline", csi: { driver: name } },
    ],
  });
  const pod = await until("runs", () => readyPod("csi"));
  await exec("csi", "echo a > /claim/a; echo b > /inline/b");
  const target = driver.calls.find((call) => call.request["volumeId"] === "one" && "targetPath" in call.request);
  expect(readFileSync(`${target?.request["targetPath"]}/a`, "utf8")).toBe("a\n");
  expect(driver.calls.map((call) => call.method)).toEqual([
    "NodeStageVolume",
    "NodePublishVolume",
    "NodePublishVolume",
  ]);
  await deleteAndWait("csi");
  expect(
    driver.calls
      .slice(3)
      .map((call) => call.method)
      .sort(),
  ).toEqual(["NodeUnpublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]);
  expect(existsSync(`${kubeletFolder}/pods/${pod.metadata.uid}/volumes/kubernetes.io~csi/csi`)).toBe(false);
});
