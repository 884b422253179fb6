// pods/resize through the whole of the API server: what it takes, what it leaves alone, who is asked.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { LimitRange, Namespace, Pod, ResourceQuota, ServiceAccount } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds({ podResize: true });
});
afterAll(() => kinds.close());

const size = (cpu: string) => ({ requests: { cpu, memory: "64Mi" }, limits: { cpu: "4", memory: "128Mi" } });

/** A pod that runs on a node that can resize. */
async function running(namespace: string, name: string): Promise<Pod> {
  await kinds.client.create(resources.pods, {
    metadata: { name, namespace },
    spec: { nodeName: "n", containers: [{ name: "c", image: "x", resources: size("1") }] },
  } as Pod);
  const containerStatuses = [
    { name: "c", state: { running: {} }, resources: size("1"), allocatedResources: { cpu: "1" } },
  ];
  return kinds.client.patch(
    resources.pods,
    { name, namespace },
    { status: { phase: "Running", containerStatuses } },
    { subresource: "status", type: "application/merge-patch+json" },
  );
}
async function room(name: string): Promise<void> {
  await kinds.client.create(resources.namespaces, { metadata: { name } } as Namespace);
  await kinds.client.create(resources.serviceAccounts, {
    metadata: { name: "default", namespace: name },
  } as ServiceAccount);
}
const resize = (namespace: string, name: string, cpu: string, more: object = {}): Promise<Pod> =>
  kinds.client.patch(
    resources.pods,
    { name, namespace },
    { spec: { containers: [{ name: "c", resources: { requests: { cpu } }, ...more }] } },
    { subresource: "resize", type: "application/strategic-merge-patch+json" },
  );

test("changes resources and marks the pod; everything else stays, whatever came in", async () => {
  await room("plain");
  const before = await running("plain", "p");
  expect(before.spec.containers[0]?.resizePolicy).toEqual([
    { resourceName: "cpu", restartPolicy: "NotRequired" },
    { resourceName: "memory", restartPolicy: "NotRequired" },
  ]);
  const after = await resize("plain", "p", "2", { image: "other" });
  expect(after.spec.containers[0]).toMatchObject({ image: "x", resources: size("2") });
  expect(after.status).toMatchObject({ phase: "Running", resize: "Proposed" });
  const shown = await kinds.client.get(resources.pods, "p", "plain");
  expect(shown.spec.containers[0]?.resources).toEqual(size("2"));
});
test("the same size again is no resize", async () => {
  await room("same");
  const before = await running("same", "p");
  const after = await resize("same", "p", "1");
  expect(after.status?.resize).toBeUndefined();
  expect(after.metadata.resourceVersion).toBe(before.metadata.resourceVersion);
});
test("is refused in the words of validation", async () => {
  await room("refused");
  await running("refused", "p");
  expect(await refusal(resize("refused", "p", "5"))).toBe(
    'Pod "p" is invalid: spec.containers[0].resources.requests: Invalid value: "5": must be less than or equal to cpu limit of 4',
  );
});
test("the pod itself does not take another size", async () => {
  await room("main");
  const pod = await running("main", "p");
  const [container] = pod.spec.containers;
  const changed = { ...pod, spec: { ...pod.spec, containers: [{ ...container!, resources: size("2") }] } };
  expect(await refusal(kinds.client.update(resources.pods, changed))).toContain(
    "spec: Forbidden: pod updates may not change",
  );
  // The same by PUT where it belongs.
  const put = await kinds.client.update(resources.pods, changed, { subresource: "resize" });
  expect(put.spec.containers[0]?.resources).toEqual(size("2"));
});
test("who applies a size owns it, on this subresource", async () => {
  await room("applied");
  await running("applied", "p");
  const apply = (force?: string) =>
    kinds.client.transport.request({
      method: "PATCH",
      path: "/api/v1/namespaces/applied/pods/p/resize",
      query: { fieldManager: "sizer", force },
      body: {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "p", namespace: "applied" },
        spec: { containers: [{ name: "c", resources: { requests: { memory: "65Mi" } } }] },
      },
      contentType: "application/apply-patch+yaml",
    });
  expect(await refusal(apply())).toContain('.spec.containers[name="c"].resources.requests.memory');
  const applied = (await apply("true")) as unknown as Pod;
  expect(applied.spec.containers[0]?.resources?.requests).toEqual({ cpu: "1", memory: "65Mi" });
  const entry = applied.metadata.managedFields?.find((e) => e.manager === "sizer");
  expect(entry).toMatchObject({ operation: "Apply", subresource: "resize" });
});
test("limit ranges are asked", async () => {
  await room("ranged");
  await running("ranged", "p");
  await kinds.client.create(resources.limitRanges, {
    metadata: { name: "r", namespace: "ranged" },
    spec: { limits: [{ type: "Container", max: { cpu: "4" }, min: { cpu: "500m" } }] },
  } as LimitRange);
  expect(await refusal(resize("ranged", "p", "100m"))).toBe(
    'pods "p" is forbidden: minimum cpu usage per Container is 500m, but request is 100m',
  );
  expect((await resize("ranged", "p", "600m")).metadata.annotations).toBeUndefined();
});
test("quotas are asked and charged, and what a pod still has counts until it has let go of it", async () => {
  await room("quota");
  await kinds.client.create(resources.resourceQuotas, {
    metadata: { name: "q", namespace: "quota" },
    spec: { hard: { "requests.cpu": "3" } },
  } as ResourceQuota);
  const counts = { hard: { "requests.cpu": "3" }, used: { "requests.cpu": "0" } };
  const quota = await kinds.client.get(resources.resourceQuotas, "q", "quota");
  await kinds.client.updateStatus(resources.resourceQuotas, { ...quota, status: counts });
  const used = async () =>
    (await kinds.client.get(resources.resourceQuotas, "q", "quota")).status?.used?.["requests.cpu"];
  await running("quota", "p");
  expect(await used()).toBe("1");
  await resize("quota", "p", "2");
  expect(await used()).toBe("2");
  expect(await refusal(resize("quota", "p", "4"))).toBe(
    'pods "p" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=2, limited: requests.cpu=3',
  );
  // The node has given it one core, and still does.
  await resize("quota", "p", "500m");
  expect(await used()).toBe("1");
});
test("user namespaces are off: the field is dropped from new pods", async () => {
  await room("users");
  const made = await kinds.client.create(resources.pods, {
    metadata: { name: "p", namespace: "users" },
    spec: { hostUsers: false, containers: [{ name: "c", image: "x" }] },
  } as Pod);
  expect(made.spec.hostUsers).toBeUndefined();
});
test("without the feature gate there is no such subresource, and no policy for it", async () => {
  const plain = await openKinds();
  const account = { metadata: { name: "default", namespace: "default" } } as ServiceAccount;
  await plain.client.create(resources.serviceAccounts, account);
  try {
    const made = await plain.client.create(resources.pods, {
      metadata: { name: "p", namespace: "default" },
      spec: {
        containers: [
          {
            name: "c",
            image: "x",
            resources: size("1"),
            resizePolicy: [{ resourceName: "cpu", restartPolicy: "NotRequired" }],
          },
        ],
      },
    } as Pod);
    expect(made.spec.containers[0]?.resizePolicy).toBeUndefined();
    const act = plain.client.patch(resources.pods, { name: "p", namespace: "default" }, {}, { subresource: "resize" });
    expect(await refusal(act)).toContain("could not find the requested resource");
  } finally {
    await plain.close();
  }
});
