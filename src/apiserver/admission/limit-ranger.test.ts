import { afterAll, beforeAll, expect, test } from "vitest";
import type {
  LimitRange,
  LimitRangeItem,
  Namespace,
  PersistentVolumeClaim,
  Pod,
  ServiceAccount,
} from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";

let kinds: Kinds;
let count = 0;
beforeAll(async () => {
  kinds = await openKinds();
});
afterAll(() => kinds.close());

/** A namespace with one limit range. */
async function ranged(...limits: LimitRangeItem[]): Promise<string> {
  const namespace = `ranged-${++count}`;
  await kinds.client.create(resources.namespaces, { metadata: { name: namespace } } as Namespace);
  await kinds.client.create(resources.serviceAccounts, { metadata: { name: "default", namespace } } as ServiceAccount);
  await kinds.client.create(resources.limitRanges, {
    metadata: { name: "r", namespace },
    spec: { limits },
  } as LimitRange);
  return namespace;
}
type Sizes = { requests?: Record<string, string>; limits?: Record<string, string> };
const pod = (namespace: string, ...containers: Sizes[]): Pod =>
  ({
    metadata: { name: `p${++count}`, namespace },
    spec: { containers: containers.map((sizes, i) => ({ name: `c${i}`, image: "x", resources: sizes })) },
  }) as Pod;
const create = (object: Pod) => kinds.client.create(resources.pods, object);
const why = async (object: Pod) => (await refusal(create(object))).replace(/^pods "p\d+" is forbidden: /, "");

test("what a container does not say is filled in, what it says stays", async () => {
  const namespace = await ranged({
    type: "Container",
    default: { cpu: "500m", memory: "500Mi" },
    defaultRequest: { cpu: "100m", memory: "200Mi" },
  });
  const made = await create(pod(namespace, {}, { requests: { cpu: "300m" }, limits: { memory: "1Gi" } }));
  expect(made.spec.containers.map((c) => c.resources)).toEqual([
    { requests: { cpu: "100m", memory: "200Mi" }, limits: { cpu: "500m", memory: "500Mi" } },
    // A limit alone is a request as well, before any range is asked.
    { requests: { cpu: "300m", memory: "1Gi" }, limits: { cpu: "500m", memory: "1Gi" } },
  ]);
  expect(made.metadata.annotations?.["kubernetes.io/limit-ranger"]).toBe(
    "LimitRanger plugin set: cpu, memory request for container c0; cpu, memory limit for container c0; cpu limit for container c1",
  );
});
test("a namespace without ranges changes nothing", async () => {
  const namespace = await ranged();
  expect((await create(pod(namespace, {}))).spec.containers[0]?.resources).toEqual({});
});
test.each<[string, LimitRangeItem, Sizes[], string]>([
  [
    "too little",
    { type: "Container", min: { cpu: "100m" } },
    [{ requests: { cpu: "50m" } }],
    "minimum cpu usage per Container is 100m, but request is 50m",
  ],
  [
    "nothing said, some wanted",
    { type: "Pod", min: { memory: "1Gi" } },
    [{}],
    "minimum memory usage per Pod is 1Gi.  No request is specified",
  ],
  [
    "too much together",
    { type: "Pod", max: { cpu: "1" } },
    [{ limits: { cpu: "600m" } }, { limits: { cpu: "600m" } }],
    "maximum cpu usage per Pod is 1, but limit is 1200m",
  ],
  [
    "no limit where there is a maximum",
    { type: "Pod", max: { cpu: "1" } },
    [{ requests: { cpu: "1" } }],
    "maximum cpu usage per Pod is 1.  No limit is specified",
  ],
  [
    "too far apart",
    { type: "Container", maxLimitRequestRatio: { cpu: "2" } },
    [{ requests: { cpu: "100m" }, limits: { cpu: "300m" } }],
    "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
  ],
])("refused: %s", async (_, item, containers, message) => {
  expect(await why(pod(await ranged(item), ...containers))).toBe(message);
});
test("all reasons at once", async () => {
  const namespace = await ranged({ type: "Pod", max: { cpu: "1", memory: "1Gi" } });
  expect(await why(pod(namespace, { limits: { cpu: "2", memory: "2Gi" } }))).toBe(
    "[maximum cpu usage per Pod is 1, but limit is 2, maximum memory usage per Pod is 1Gi, but limit is 2Gi]",
  );
});
test("claims", async () => {
  const namespace = await ranged({ type: "PersistentVolumeClaim", min: { storage: "1Gi" }, max: { storage: "2Gi" } });
  const claim = (name: string, storage: string) =>
    kinds.client.create(resources.persistentVolumeClaims, {
      metadata: { name, namespace },
      spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage } } },
    } as PersistentVolumeClaim);
  expect(await refusal(claim("large", "3Gi"))).toContain(
    "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi",
  );
  expect(await refusal(claim("small", "1Mi"))).toContain(
    "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi",
  );
  await claim("right", "1Gi");
});
