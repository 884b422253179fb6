import { expect, test } from "vitest";
import type { ApiObject } from "../object.ts";
import {
  csiDrivers,
  csiNodes,
  csiStorageCapacities,
  persistentVolumes,
  pods,
  storageClasses,
  volumeAttachments,
} from "../resources.ts";
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

const storageClass = (more: object): ApiObject =>
  ({
    metadata: { name: "s" },
    provisioner: "d.example.com",
    reclaimPolicy: "Delete",
    volumeBindingMode: "Immediate",
    ...more,
  }) as ApiObject;
const topology = (key: string, values: string[]) => ({
  allowedTopologies: [{ matchLabelExpressions: [{ key, values }] }],
});
const volume = (csi: object): ApiObject =>
  ({
    metadata: { name: "v" },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      persistentVolumeReclaimPolicy: "Retain",
      volumeMode: "Filesystem",
      csi: { driver: "d.example.com", volumeHandle: "h", ...csi },
    },
  }) as ApiObject;
const secretRef = { name: "s", namespace: "ns" };

test.each([
  [storageClasses, storageClass({ parameters: { a: "b" }, ...topology("zone", ["x"]) }), []],
  [storageClasses, storageClass({ parameters: { "": "b" } }), ["parameters"]],
  [storageClasses, storageClass({ parameters: { a: "b".repeat(300_000) } }), ["parameters"]],
  [
    storageClasses,
    storageClass(topology("no label", [])),
    ["allowedTopologies[0].matchLabelExpressions[0].key", "allowedTopologies[0].matchLabelExpressions[0].values"],
  ],
  [
    storageClasses,
    storageClass(topology("zone", ["x", "x"])),
    ["allowedTopologies[0].matchLabelExpressions[0].values[1]"],
  ],
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
  [persistentVolumes, volume({ nodeExpandSecretRef: secretRef }), volume({}), []],
  [
    persistentVolumes,
    volume({ nodeExpandSecretRef: { ...secretRef, name: "t" } }),
    volume({ nodeExpandSecretRef: secretRef }),
    ["spec.persistentvolumesource"],
  ],
  [persistentVolumes, volume({ volumeHandle: "i" }), volume({}), ["spec.persistentvolumesource"]],
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
