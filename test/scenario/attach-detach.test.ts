// CSI volumes that must be attached: attached for the first pod on a node, kept while the node uses them, never on two
// nodes at once where that is not allowed, and taken off from nodes that do not answer.
import { afterEach, expect, test } from "vitest";
import { attachmentName } from "#client/attachment-name.ts";
import type { Node, PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import {
  csiDrivers,
  events,
  nodes,
  persistentVolumeClaims,
  persistentVolumes,
  pods,
  volumeAttachments,
} from "#model/resources.ts";
import { uniqueVolumeName } from "#model/volumes.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  await cluster?.stop();
  cluster = undefined;
});

const driver = "disk.example.com";
const user = (name: string, nodeName: string): Pod => ({
  metadata: { name, namespace: "default" },
  spec: {
    nodeName,
    containers: [{ name: "c", image: "x" }],
    volumes: [{ name: "v", persistentVolumeClaim: { claimName: "data" } }],
  },
});

async function begin(attachRequired: boolean, modes = ["ReadWriteOnce"]) {
  const c = await InMemoryCluster.start({ nodeCount: 2 });
  cluster = c;
  await c.client.create(csiDrivers, { metadata: { name: driver }, spec: { attachRequired } });
  const volume: PersistentVolume = {
    metadata: { name: "disk" },
    spec: { capacity: { storage: "1Gi" }, accessModes: modes, csi: { driver, volumeHandle: "h" } },
  };
  await c.client.create(persistentVolumes, volume);
  const claim: PersistentVolumeClaim = {
    metadata: { name: "data", namespace: "default" },
    spec: { accessModes: modes, resources: { requests: { storage: "1Gi" } }, storageClassName: "" },
  };
  await c.client.create(persistentVolumeClaims, claim);
  await c.until(
    async () => (await c.find(persistentVolumeClaims, "data", "default"))?.status?.phase === "Bound",
    "bound",
  );
  const attached = async () => (await c.list(volumeAttachments)).map((one) => one.spec.nodeName).sort();
  const setInUse = (name: string, volumesInUse: string[]) =>
    c.client.patch(nodes, { name }, { status: { volumesInUse } }, { subresource: "status" });
  const answer = (node: string) =>
    c.client.patch(
      volumeAttachments,
      { name: attachmentName("h", driver, node) },
      { status: { attached: true } },
      { subresource: "status" },
    );
  const onNode = async (name: string) => ((await c.find(nodes, name)) as Node).status?.volumesAttached;
  const said = async (reason: string) => (await c.list(events)).filter((e) => e.reason === reason);
  return { c, attached, setInUse, answer, onNode, said };
}
const used = [uniqueVolumeName(driver, "h")];

test("attached for its pod, held while in use, and taken off", async () => {
  const { c, attached, setInUse, answer, onNode, said } = await begin(true);
  await c.client.create(pods, user("p", "node-1"));
  await c.until(async () => (await attached()).join() === "node-1", "asked for");
  expect((await c.list(volumeAttachments))[0]).toMatchObject({
    metadata: { name: attachmentName("h", driver, "node-1") },
    spec: { attacher: driver, source: { persistentVolumeName: "disk" } },
  });
  await answer("node-1");
  await c.until(async () => (await onNode("node-1"))?.[0]?.name === used[0], "the node is told");
  await c.until(async () => (await said("SuccessfulAttachVolume")).length === 1, "said");

  await setInUse("node-1", used);
  const refused = async (why: string) =>
    (await said("FailedAttachVolume")).some(
      (event) => event.message === `Multi-Attach error for volume "disk" Volume is already ${why}`,
    );
  await c.client.create(pods, user("q", "node-2"));
  await c.until(() => refused("used by pod(s) p"), "refused elsewhere");
  await c.client.delete(pods, { name: "p", namespace: "default" });
  await c.until(
    () => refused("exclusively attached to one node and can't be attached to another"),
    "refused as long as the node uses it",
  );
  await c.advance(10_000);
  expect(await attached()).toEqual(["node-1"]);
  await setInUse("node-1", []);
  await c.until(async () => (await attached()).join() === "node-2", "moved");
  await c.until(async () => (await onNode("node-1")) === undefined, "the node is told");
});

test("a volume of a silent node is taken off after six minutes, at once where it is out of service", async () => {
  const { c, attached, setInUse } = await begin(true);
  await c.client.create(pods, user("p", "node-1"));
  await c.until(async () => (await attached()).length === 1, "asked for");
  await setInUse("node-1", used);
  c.kubelets.get("node-1")!.isCut = true;
  await c.client.delete(pods, { name: "p", namespace: "default" }, { gracePeriodSeconds: 0 });
  await c.advance(5 * 60_000);
  expect(await attached()).toEqual(["node-1"]);
  await c.until(async () => (await attached()).length === 0, "taken off", 3 * 60_000);

  await c.client.create(pods, user("q", "node-2"));
  await c.until(async () => (await attached()).length === 1, "asked for");
  await setInUse("node-2", used);
  await c.client.delete(pods, { name: "q", namespace: "default" }, { gracePeriodSeconds: 0 });
  await c.advance(5_000);
  expect(await attached()).toEqual(["node-2"]);
  const taints = [{ key: "node.kubernetes.io/out-of-service", value: "nodeshutdown", effect: "NoExecute" }];
  await c.client.patch(nodes, { name: "node-2" }, { spec: { taints } });
  await c.until(async () => (await attached()).length === 0, "taken off", 60_000);
  const forced = "attach_detach_controller_attachdetach_controller_forced_detaches";
  const text = c.metrics.render();
  for (const reason of ["timeout", "out-of-service"]) expect(text).toContain(`${forced}{reason="${reason}"} 1`);
});

test("many nodes where the volume can be on many; none where the driver does not attach; strangers' are left", async () => {
  const { c, attached } = await begin(true, ["ReadWriteMany"]);
  await c.client.create(pods, user("p", "node-1"));
  await c.client.create(pods, user("q", "node-2"));
  await c.until(async () => (await attached()).length === 2, "both");
  await c.client.create(volumeAttachments, {
    metadata: { name: "by-hand" },
    spec: { attacher: "x.example.com", nodeName: "node-1", source: { persistentVolumeName: "none" } },
  });
  await c.client.delete(pods, { name: "p", namespace: "default" });
  await c.client.delete(pods, { name: "q", namespace: "default" });
  await c.until(async () => (await attached()).length === 1, "only the stranger's is left");
  await c.stop();
  cluster = undefined;
  const other = await begin(false);
  await other.c.client.create(pods, user("p", "node-1"));
  await other.c.advance(5_000);
  expect(await other.attached()).toEqual([]);
});
