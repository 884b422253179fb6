import { expect, test } from "vitest";
import type { ApiObject } from "../object.ts";
import { csiDrivers, csiNodes, csiStorageCapacities, pods, volumeAttachments } from "../resources.ts";
import { validateObject, validateObjectUpdate } from "../validate.ts";

const driver = (spec: object, name = "d.example.com"): ApiObject =>
  ({
    metadata: { name },
    spec: { attachRequired: true, podInfoOnMount: false, storageCapacity: false, ...spec },
  }) as ApiObject;
const csiNode = (...drivers: object[]): ApiObject => ({ metadata: { name: "n" }, spec: { drivers } }) as ApiObject;
const known = { name: "d.example.com", nodeID: "id", topologyKeys: ["zone"] };
const attachment = (spec: object): ApiObject =>
  ({
    metadata: { name: "a" },
    spec: { attacher: "d.example.com", nodeName: "n", source: { persistentVolumeName: "v" }, ...spec },
  }) as ApiObject;
const capacity = (more: object): ApiObject =>
  ({ metadata: { name: "c", namespace: "ns" }, storageClassName: "s", capacity: "1Gi", ...more }) as ApiObject;
const pod = (volume: object): ApiObject =>
  ({
    metadata: { name: "p", namespace: "ns" },
    spec: {
      containers: [{ name: "c", image: "x", terminationMessagePolicy: "File", imagePullPolicy: "Always" }],
      restartPolicy: "Always",
      dnsPolicy: "ClusterFirst",
      volumes: [{ name: "v", ...volume }],
    },
  }) as ApiObject;

test.each([
  [csiDrivers, driver({}), []],
  [csiDrivers, driver({}, "d".repeat(64)), ["metadata.name"]],
  [csiDrivers, driver({ volumeLifecycleModes: ["Sometimes"] }), ["spec.volumeLifecycleModes"]],
  [csiDrivers, driver({ fsGroupPolicy: "Maybe" }), ["spec.fsGroupPolicy"]],
  [csiDrivers, driver({ attachRequired: undefined }), ["spec.attachRequired"]],
  [
    csiDrivers,
    driver({ tokenRequests: [{ audience: "a", expirationSeconds: 5 }, { audience: "a" }] }),
    ["spec.tokenRequests[0].expirationSeconds", "spec.tokenRequests[1].audience"],
  ],
  [csiNodes, csiNode(known), []],
  [csiNodes, csiNode(known, known), ["spec.drivers[1].name"]],
  [csiNodes, csiNode({ ...known, nodeID: "" }), ["spec.drivers[0].nodeID"]],
  [csiNodes, csiNode({ ...known, allocatable: { count: -1 } }), ["spec.drivers[0].allocatable.count"]],
  [volumeAttachments, attachment({}), []],
  [volumeAttachments, attachment({ source: {} }), ["spec.source"]],
  [volumeAttachments, attachment({ nodeName: "" }), ["spec.nodeName"]],
  [csiStorageCapacities, capacity({}), []],
  [csiStorageCapacities, capacity({ storageClassName: "", capacity: "much" }), ["storageClassName", "capacity"]],
  [pods, pod({ csi: { driver: "d.example.com" } }), []],
  [pods, pod({ csi: { driver: "" } }), ["spec.volumes[0].csi.driver"]],
  [pods, pod({ ephemeral: {} }), ["spec.volumes[0].ephemeral.volumeClaimTemplate"]],
  [
    pods,
    pod({ ephemeral: { volumeClaimTemplate: { spec: { accessModes: [] } } } }),
    [
      "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes",
      "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]",
    ],
  ],
])("%# $kind", (info, object, expected) => {
  expect(validateObject(info, object).map((error) => error.field)).toEqual(expected);
});

test.each([
  [csiDrivers, driver({ attachRequired: false }), driver({}), ["spec.attachedRequired"]],
  [csiDrivers, driver({ podInfoOnMount: true }), driver({}), []],
  [csiNodes, csiNode(), csiNode(known), []],
  [csiNodes, csiNode({ ...known, nodeID: "other" }), csiNode(known), ["spec.drivers"]],
  [volumeAttachments, attachment({ nodeName: "m" }), attachment({}), ["spec"]],
  [csiStorageCapacities, capacity({ capacity: "2Gi" }), capacity({}), []],
  [csiStorageCapacities, capacity({ storageClassName: "t" }), capacity({}), ["storageClassName"]],
])("%# an update of $kind", (info, object, old, expected) => {
  expect(validateObjectUpdate(info, object, old).map((error) => error.field)).toEqual(expected);
});
