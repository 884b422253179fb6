// Local volumes as pods get them, subPaths, and the folders of the class local-path: what may be removed and what never.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import type { Node, PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import { nodes, persistentVolumeClaims, persistentVolumes } from "#model/resources.ts";
import { volumeAnnotations, volumeFinalizers } from "#model/volumes.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { giveToGroup } from "#platform/ownership.ts";
import { type Commands, systemCommands } from "#platform/processes.ts";
import { systemRandom as random } from "#platform/random.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { until } from "#test/harness/until.ts";
import { localFolder } from "./local-path.ts";
import { isMounted, shareMounts, unmountAll } from "./mount-points.ts";
import { NodeStorage } from "./storage.ts";
import { bindSubPath } from "./sub-path.ts";
import { PodTokens } from "./tokens.ts";

const isRoot = process.getuid?.() === 0;
const commands: Commands = isRoot ? systemCommands : { run: async () => ({ code: 0, stdout: "", stderr: "" }) };
let folder: string;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-volumes-");
});
afterEach(async () => {
  if (isRoot) await unmountAll(folder, commands);
  rmSync(folder, { recursive: true, force: true });
});

const uid = "0a1b2c3d-0000-4000-8000-000000000001";
const name = `pvc-${uid}`;
const provisioned = (path: string, more: Partial<PersistentVolume["metadata"]> = {}): PersistentVolume => ({
  metadata: {
    name,
    finalizers: [volumeFinalizers.provisioner],
    annotations: {
      [volumeAnnotations.provisionedBy]: "rancher.io/local-path",
      "local.path.provisioner/selected-node": "n",
    },
    ...more,
  },
  spec: {
    capacity: { storage: "1Gi" },
    accessModes: ["ReadWriteOnce"],
    persistentVolumeReclaimPolicy: "Delete",
    claimRef: { namespace: "ns", name: "c" },
    local: { path },
    nodeAffinity: {
      required: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: ["n"] }] }],
      },
    },
  },
  status: { phase: "Bound" },
});

test.each<[string, string]>([
  ["/storage/elsewhere", "another name"],
  [`/storage/../etc/${name}_ns_c`, "a way out"],
  [`/other/${name}_ns_c`, "another folder"],
  [`/storage/${name}_ns_d`, "another claim"],
  ["/storage", "the folder itself"],
])("%s is no folder of a local volume: %s", (path) => {
  expect(localFolder(provisioned(path), "/storage")).toBeUndefined();
});
test("only the volume's own folder is", () => {
  const path = `/storage/${name}_ns_c`;
  expect(localFolder(provisioned(path), "/storage")).toBe(path);
  expect(localFolder(provisioned(path, { annotations: {} }), "/storage")).toBeUndefined();
  const escaping = provisioned(path);
  const { claimRef: _, ...spec } = escaping.spec;
  expect(localFolder({ ...escaping, spec }, "/storage")).toBeUndefined();
});

interface Agent {
  readonly storage: NodeStorage;
  readonly stop: () => Promise<void>;
}
async function agent(client: Client, said: string[] = []): Promise<Agent> {
  mkdirSync(`${folder}/pods`, { recursive: true });
  const storage = new NodeStorage(
    {
      nodeName: "n",
      podsFolder: `${folder}/pods`,
      storageFolder: `${folder}/storage`,
      kubeletFolder: `${folder}/kubelet`,
      sharesMounts: false,
    },
    {
      ...{ client, clock, random, log: silentLogger, commands },
      events: { record: ({ reason, message }) => void said.push(`${reason}: ${message}`) },
      tokens: new PodTokens({ client, clock }),
    },
  );
  await storage.persistent.open();
  const stop = new AbortController();
  const done = storage.run(stop.signal);
  return {
    storage,
    stop: async () => {
      stop.abort(new Error("over"));
      await done;
    },
  };
}
async function cluster(volume: PersistentVolume): Promise<Client> {
  const client = new Client(new FakeTransport());
  await client.create(nodes, { metadata: { name: "n", labels: { "kubernetes.io/hostname": "n" } }, spec: {} } as Node);
  const claim: PersistentVolumeClaim = {
    metadata: { name: "c", namespace: "ns", uid, annotations: { [volumeAnnotations.bindCompleted]: "yes" } },
    spec: { volumeName: volume.metadata.name ?? "" },
    status: { phase: "Bound" },
  };
  await client.create(persistentVolumeClaims, claim);
  const claimRef = { namespace: "ns", name: "c", uid };
  await client.create(persistentVolumes, { ...volume, spec: { ...volume.spec, claimRef } });
  return client;
}
const pod = (podName: string, security?: NonNullable<Pod["spec"]["securityContext"]>): Pod => ({
  metadata: { name: podName, namespace: "ns", uid: podName },
  spec: {
    containers: [],
    volumes: [{ name: "data", persistentVolumeClaim: { claimName: "c" } }],
    ...(security ? { securityContext: security } : {}),
  },
});
const ensure = (one: Agent, p: Pod) => one.storage.persistent.ensure(p, p.spec.volumes![0]!);
test("a folder is made at the first mount, kept while a pod has it, and removed with its volume", async () => {
  const path = `${folder}/storage/${name}_ns_c`;
  const client = await cluster(provisioned(path));
  const one = await agent(client);
  expect(await ensure(one, pod("p"))).toBe(path);
  expect(statSync(path).mode & 0o777).toBe(0o777);
  writeFileSync(`${path}/kept`, "data");
  await client.patch(persistentVolumes, { name }, { status: { phase: "Released" } });
  await client.delete(persistentVolumes, { name });
  await clock.sleep(300);
  expect(readFileSync(`${path}/kept`, "utf8")).toBe("data");
  await one.storage.persistent.release("p");
  await until(async () => (await client.list(persistentVolumes)).items.length === 0, "volume is gone");
  expect(existsSync(path)).toBe(false);
  expect(existsSync(`${folder}/storage`)).toBe(true);
  await one.stop();
});

test("a volume that points elsewhere is not removed, and says why", async () => {
  mkdirSync(`${folder}/precious`);
  const bad = provisioned(`${folder}/precious`, {});
  const client = await cluster({ ...bad, status: { phase: "Released" } });
  const said: string[] = [];
  const one = await agent(client, said);
  await client.delete(persistentVolumes, { name });
  await until(() => said.length > 0, "said");
  expect(said[0]).toContain("VolumeFailedDelete: cannot remove the folder of volume");
  expect(existsSync(`${folder}/precious`)).toBe(true);
  await one.stop();
});

test("a volume of another node is not given to a pod here", async () => {
  const path = `${folder}/storage/${name}_ns_c`;
  const client = await cluster(provisioned(path));
  await client.patch(nodes, { name: "n" }, { metadata: { labels: { "kubernetes.io/hostname": "other" } } });
  const one = await agent(client);
  await expect(ensure(one, pod("p"))).rejects.toThrow("no matching NodeSelectorTerms");
  expect(existsSync(path)).toBe(false);
  await one.stop();
});

describe.runIf(isRoot)("with root", () => {
  test("fsGroup is applied once, and by policy", async () => {
    const path = `${folder}/storage/${name}_ns_c`;
    const client = await cluster(provisioned(path));
    const one = await agent(client);
    mkdirSync(path, { recursive: true });
    writeFileSync(`${path}/file`, "");
    symlinkSync("/etc/passwd", `${path}/link`);
    const passwd = statSync("/etc/passwd").gid;
    await ensure(one, pod("p", { fsGroup: 4711 }));
    expect([statSync(path).gid, statSync(path).mode & 0o7777]).toEqual([4711, 0o2775]);
    expect([statSync(`${path}/file`).gid, statSync(`${path}/file`).mode & 0o660]).toEqual([4711, 0o660]);
    expect(statSync("/etc/passwd").gid).toBe(passwd);
    // The same pod again, even of a later agent: nothing is changed under its feet.
    execFileSync("chgrp", ["0", `${path}/file`]);
    await ensure(one, pod("p", { fsGroup: 4711 }));
    await ensure(one, pod("q", { fsGroup: 4711, fsGroupChangePolicy: "OnRootMismatch" }));
    expect(statSync(`${path}/file`).gid).toBe(0);
    await ensure(one, pod("r", { fsGroup: 4711 }));
    expect(statSync(`${path}/file`).gid).toBe(4711);
    await one.stop();
  });

  test("a tree that is given to a group again changes nothing", async () => {
    mkdirSync(`${folder}/t/inner`, { recursive: true });
    const how = { gid: 4711, readOnly: false, onlyWhenTopDiffers: false };
    expect(await giveToGroup(`${folder}/t`, how)).toBe(2);
    expect(await giveToGroup(`${folder}/t`, how)).toBe(0);
  });

  test("a device gets a file system once, and its pod a mount of its own", async ({ skip }) => {
    const image = `${folder}/disk`;
    execFileSync("truncate", ["-s", "16M", image]);
    let device: string;
    try {
      device = execFileSync("losetup", ["--find", "--show", image]).toString().trim();
    } catch {
      return skip("no loop devices here");
    }
    try {
      const local = provisioned(device, { annotations: {} });
      const client = await cluster(local);
      const one = await agent(client);
      const path = (await ensure(one, pod("p"))) ?? "";
      expect(await isMounted(path)).toBe(true);
      writeFileSync(`${path}/kept`, "data");
      await one.storage.persistent.release("p");
      expect(await isMounted(path)).toBe(false);
      const again = (await ensure(one, pod("q"))) ?? "";
      expect(readFileSync(`${again}/kept`, "utf8")).toBe("data");
      await one.storage.persistent.release("q");
      await one.stop();
    } finally {
      execFileSync("losetup", ["-d", device]);
    }
  });

  const place = () => `${folder}/place/data/c/0`;
  const sub = (subPath: string) => bindSubPath({ volume: `${folder}/v`, subPath, place: place() }, commands);
  test("a subPath is made where it is missing, and bound", async () => {
    mkdirSync(`${folder}/v`);
    chmodSync(`${folder}/v`, 0o2775);
    expect(await sub("a/b")).toBe(place());
    writeFileSync(`${place()}/x`, "here");
    expect(readFileSync(`${folder}/v/a/b/x`, "utf8")).toBe("here");
    // As open as the volume, not more.
    for (const made of ["a", "a/b"]) expect(statSync(`${folder}/v/${made}`).mode & 0o7777).toBe(0o2775);
    // Again, as for a restarted container: one mount.
    await sub("a/b");
    await unmountAll(place(), commands);
    expect(existsSync(`${folder}/v/a/b/x`)).toBe(true);
  });
  test("files and links inside the volume work, ways out do not", async () => {
    mkdirSync(`${folder}/v/..1`, { recursive: true });
    writeFileSync(`${folder}/v/..1/key`, "value");
    symlinkSync("..1", `${folder}/v/..data`);
    symlinkSync("..data/key", `${folder}/v/key`);
    await sub("key");
    expect(readFileSync(place(), "utf8")).toBe("value");
    await unmountAll(place(), commands);
    symlinkSync("/etc", `${folder}/v/out`);
    symlinkSync("nowhere", `${folder}/v/dangling`);
    for (const path of ["out/passwd", "out", "../x", "/etc", "a/../../x"]) {
      await expect(sub(path), path).rejects.toThrow();
    }
    await expect(sub("dangling/x")).rejects.toThrow();
    expect(existsSync(`${folder}/v/nowhere`)).toBe(false);
  });
});

test.runIf(isRoot)("a folder's mounts are shared, once", async () => {
  mkdirSync(`${folder}/shared`);
  const shared = () => shareMounts(`${folder}/shared`, commands);
  await shared();
  await shared();
  const table = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const own = table.filter((line) => line.split(" ")[4] === `${folder}/shared`);
  // On a machine that shares everything there is nothing to do.
  const ofRoot = table.find((line) => line.split(" ")[4] === "/") ?? "";
  expect(own.length).toBe(ofRoot.includes("shared:") ? 0 : 1);
  for (const line of own) expect(line).toContain("shared:");
});
