// What a node may do to storage objects, through the real chain: its role and NodeRestriction together.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Node, PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import { csiNodes, nodes, persistentVolumeClaims, persistentVolumes, pods, serviceAccounts } from "#model/resources.ts";
import { volumeFinalizers } from "#model/volumes.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
  await kinds.syncRbac();
  for (const name of ["n1", "n2"]) await kinds.client.create(nodes, { metadata: { name }, spec: {} } as Node);
});
afterAll(() => kinds.close());
const node = (name: string) =>
  kinds.as({ name: `system:node:${name}`, groups: ["system:nodes", "system:authenticated"] });

async function localVolume(name: string, owner: string, isDeleting: boolean): Promise<PersistentVolume> {
  const made = await kinds.client.create(persistentVolumes, {
    metadata: {
      name,
      finalizers: [volumeFinalizers.provisioner, "example.com/other"],
      annotations: {
        "pv.kubernetes.io/provisioned-by": "rancher.io/local-path",
        "local.path.provisioner/selected-node": owner,
      },
    },
    spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: `/storage/${name}` } },
  });
  if (!isDeleting) return made;
  await kinds.client.delete(persistentVolumes, { name });
  return kinds.client.get(persistentVolumes, name);
}
const letGo = (client: Kinds["client"], volume: PersistentVolume, more: object = {}) =>
  client.patch(
    persistentVolumes,
    { name: volume.metadata.name ?? "" },
    {
      metadata: { finalizers: volume.metadata.finalizers?.filter((one) => one !== volumeFinalizers.provisioner) },
      ...more,
    },
  );

test("a node lets go of its own local volumes that are being deleted, and does nothing else to volumes", async () => {
  const why = 'is forbidden: node "n1" can only let go of its own local volumes';
  expect(await refusal(letGo(node("n1"), await localVolume("kept", "n1", false)))).toContain(why);
  expect(await refusal(letGo(node("n1"), await localVolume("other", "n2", true)))).toContain(why);
  const own = await localVolume("own", "n1", true);
  const elsewhere = { spec: { persistentVolumeReclaimPolicy: "Delete" } };
  expect(await refusal(letGo(node("n1"), own, elsewhere))).toContain(why);
  const all = { metadata: { finalizers: null } };
  expect(await refusal(node("n1").patch(persistentVolumes, { name: "own" }, all))).toContain(why);
  expect(await refusal(node("n1").delete(persistentVolumes, { name: "own" }))).toContain("cannot delete");
  expect(await refusal(letGo(node("n1"), own))).toBe("accepted");
  expect((await kinds.client.get(persistentVolumes, "own")).metadata.finalizers).not.toContain(
    volumeFinalizers.provisioner,
  );
});

test("a node writes the status of claims that its pods use, not their spec", async () => {
  const claim = await kinds.client.create(persistentVolumeClaims, {
    metadata: { name: "c", namespace: "default" },
    spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } },
  } as PersistentVolumeClaim);
  const grown = { ...claim, status: { phase: "Bound", capacity: { storage: "2Gi" } } };
  const why = "no relationship found between node 'n1' and this object";
  expect(await refusal(node("n1").updateStatus(persistentVolumeClaims, grown))).toContain(why);
  await kinds.client.create(serviceAccounts, { metadata: { name: "default", namespace: "default" } });
  await kinds.client.create(pods, {
    metadata: { name: "user", namespace: "default" },
    spec: {
      nodeName: "n1",
      containers: [{ name: "c", image: "i" }],
      volumes: [{ name: "v", persistentVolumeClaim: { claimName: "c" } }],
    },
  } as Pod);
  expect(await refusal(node("n1").updateStatus(persistentVolumeClaims, grown))).toBe("accepted");
  expect(await refusal(node("n1").update(persistentVolumeClaims, claim))).toContain("is forbidden");
});

test("a node has a CSINode of its own", async () => {
  const of = (name: string) => ({ metadata: { name }, spec: { drivers: [] } });
  expect(await refusal(node("n1").create(csiNodes, of("n1")))).toBe("accepted");
  expect(await refusal(node("n1").create(csiNodes, of("n2")))).toContain('is not allowed to modify CSINode "n2"');
  const why = "can only access CSINode with the same name as the requesting node";
  expect(await refusal(node("n2").delete(csiNodes, { name: "n1" }))).toContain(why);
});
