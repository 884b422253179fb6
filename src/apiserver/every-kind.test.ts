// Every stored kind through the life that the API promises it: created, read in every way, watched, changed by each
// kind of write, its status apart from the rest, deleted alone and together.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Client } from "#client/client.ts";
import { pathOf } from "#client/client.ts";
import { decodeObject } from "#model/decode.ts";
import type { Namespace, ServiceAccount } from "#model/gen/core-v1.ts";
import type { UnknownObject } from "#model/object.ts";
import { encodeProtobuf, hasProtobuf } from "#model/protobuf.ts";
import { groupVersion, qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import * as resources from "#model/resources.ts";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { addZeroValues } from "./endpoints/zero-values.ts";
import { type Kinds, openKinds } from "./kinds.fixture.ts";

const template = { metadata: { labels: { app: "a" } }, spec: { containers: [{ name: "c", image: "x" }] } };
const selector = { matchLabels: { app: "a" } };
const jobTemplate = { spec: { template: { spec: { ...template.spec, restartPolicy: "Never" } } } };
const now = "2026-01-01T00:00:00.000000Z";
const request = Buffer.from(makeSigningRequest({ commonName: "e2e" }).request).toString("base64");

/** What is needed beside metadata, and what a status write says. */
const samples: Readonly<Record<string, { readonly body?: object; readonly status?: object }>> = {
  configmaps: { body: { data: { a: "b" } } },
  endpoints: { body: { subsets: [{ addresses: [{ ip: "10.1.2.3" }], ports: [{ port: 80 }] }] } },
  events: {
    body: { involvedObject: { kind: "Pod", namespace: "life", name: "p" }, reason: "R", type: "Normal", message: "m" },
  },
  limitranges: { body: { spec: { limits: [{ type: "Container", max: { cpu: "1" } }] } } },
  namespaces: {
    body: { spec: {} },
    status: { conditions: [{ type: "StatusUpdate", status: "True", reason: "R", message: "m" }] },
  },
  nodes: { body: { spec: {} }, status: { conditions: [{ type: "Ready", status: "True" }] } },
  persistentvolumeclaims: {
    body: { spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } } },
    status: { conditions: [{ type: "StatusUpdate", status: "True" }] },
  },
  persistentvolumes: {
    body: { spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: "/tmp/v" } } },
    status: { message: "StatusUpdate" },
  },
  pods: { body: { spec: template.spec }, status: { conditions: [{ type: "StatusUpdate", status: "True" }] } },
  podtemplates: { body: { template } },
  replicationcontrollers: { body: { spec: { replicas: 1, template } }, status: { replicas: 0, observedGeneration: 3 } },
  resourcequotas: { body: { spec: { hard: { pods: "1" } } }, status: { hard: { pods: "2" } } },
  secrets: { body: { data: { a: "Yg==" } } },
  serviceaccounts: {},
  services: {
    body: { spec: { ports: [{ port: 80 }] } },
    status: { conditions: [{ type: "StatusUpdate", status: "True" }] },
  },
  "mutatingwebhookconfigurations.admissionregistration.k8s.io": { body: { webhooks: [] } },
  "validatingwebhookconfigurations.admissionregistration.k8s.io": { body: { webhooks: [] } },
  "validatingadmissionpolicies.admissionregistration.k8s.io": {
    body: {
      spec: {
        matchConstraints: {
          resourceRules: [
            { apiGroups: ["apps"], apiVersions: ["v1"], operations: ["CREATE"], resources: ["deployments"] },
          ],
        },
        validations: [{ expression: "object.spec.replicas <= 5" }],
      },
    },
    status: {
      conditions: [
        { type: "StatusUpdate", status: "True", reason: "R", message: "m", lastTransitionTime: "2026-01-01T00:00:00Z" },
      ],
    },
  },
  "validatingadmissionpolicybindings.admissionregistration.k8s.io": {
    body: { spec: { policyName: "p", validationActions: ["Deny"] } },
  },
  "apiservices.apiregistration.k8s.io": {
    body: {
      spec: {
        version: "v1",
        service: { namespace: "n", name: "s" },
        groupPriorityMinimum: 100,
        versionPriority: 100,
      },
    },
    status: {
      conditions: [
        { type: "Available", status: "False", reason: "R", message: "m", lastTransitionTime: "2026-01-01T00:00:00Z" },
      ],
    },
  },
  "controllerrevisions.apps": { body: { data: { a: 1 }, revision: 1 } },
  "daemonsets.apps": { body: { spec: { selector, template } }, status: { observedGeneration: 3 } },
  "deployments.apps": { body: { spec: { selector, template } }, status: { observedGeneration: 3 } },
  "replicasets.apps": { body: { spec: { selector, template } }, status: { observedGeneration: 3 } },
  "statefulsets.apps": { body: { spec: { selector, template, serviceName: "s" } }, status: { observedGeneration: 3 } },
  "horizontalpodautoscalers.autoscaling": {
    body: { spec: { maxReplicas: 2, scaleTargetRef: { kind: "Deployment", name: "d", apiVersion: "apps/v1" } } },
    status: { desiredReplicas: 2 },
  },
  "cronjobs.batch": {
    body: { spec: { schedule: "* * * * *", jobTemplate } },
    status: { lastScheduleTime: "2026-01-01T00:00:00Z" },
  },
  "jobs.batch": { body: { spec: jobTemplate.spec }, status: { startTime: "2026-01-01T00:00:00Z" } },
  "certificatesigningrequests.certificates.k8s.io": {
    body: { spec: { request, signerName: "example.com/e2e", usages: ["client auth"] } },
    status: {
      certificate: Buffer.from("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").toString("base64"),
    },
  },
  "leases.coordination.k8s.io": { body: { spec: { holderIdentity: "h", leaseDurationSeconds: 30, acquireTime: now } } },
  "endpointslices.discovery.k8s.io": {
    body: { addressType: "IPv4", endpoints: [{ addresses: ["10.1.2.3"] }], ports: [{ port: 80 }] },
  },
  "events.events.k8s.io": {
    body: {
      regarding: { kind: "Pod", namespace: "life", name: "p" },
      eventTime: now,
      action: "Do",
      reason: "R",
      type: "Normal",
      reportingController: "example.com/c",
      reportingInstance: "i",
    },
  },
  "flowschemas.flowcontrol.apiserver.k8s.io": {
    body: {
      spec: {
        matchingPrecedence: 10000,
        priorityLevelConfiguration: { name: "global-default" },
        distinguisherMethod: { type: "ByUser" },
        rules: [
          {
            subjects: [{ kind: "User", user: { name: "example-e2e-non-existent" } }],
            nonResourceRules: [{ verbs: ["*"], nonResourceURLs: ["*"] }],
          },
        ],
      },
    },
    status: {
      conditions: [
        { type: "Dangling", status: "False", reason: "R", message: "m", lastTransitionTime: "2026-01-01T00:00:00Z" },
      ],
    },
  },
  "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": {
    body: { spec: { type: "Limited", limited: { nominalConcurrencyShares: 2, limitResponse: { type: "Reject" } } } },
    status: {
      conditions: [
        { type: "X", status: "False", reason: "R", message: "m", lastTransitionTime: "2026-01-01T00:00:00Z" },
      ],
    },
  },
  "ipaddresses.networking.k8s.io": {
    body: { spec: { parentRef: { resource: "services", namespace: "a", name: "b" } } },
  },
  "servicecidrs.networking.k8s.io": {
    body: { spec: { cidrs: ["10.98.0.0/24"] } },
    status: {
      conditions: [
        { type: "StatusUpdate", status: "True", reason: "", message: "", lastTransitionTime: "2026-01-01T00:00:00Z" },
      ],
    },
  },
  "ingressclasses.networking.k8s.io": { body: { spec: { controller: "example.com/c" } } },
  "ingresses.networking.k8s.io": {
    body: { spec: { defaultBackend: { service: { name: "s", port: { number: 80 } } } } },
    status: { loadBalancer: { ingress: [{ ip: "169.1.1.1" }] } },
  },
  "networkpolicies.networking.k8s.io": { body: { spec: { podSelector: {} } } },
  "runtimeclasses.node.k8s.io": { body: { handler: "h" } },
  "poddisruptionbudgets.policy": { body: { spec: { minAvailable: 1, selector } }, status: { disruptionsAllowed: 1 } },
  "clusterrolebindings.rbac.authorization.k8s.io": {
    body: { roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "view" } },
  },
  "clusterroles.rbac.authorization.k8s.io": {
    body: { rules: [{ verbs: ["get"], apiGroups: [""], resources: ["pods"] }] },
  },
  "rolebindings.rbac.authorization.k8s.io": {
    body: { roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "view" } },
  },
  "roles.rbac.authorization.k8s.io": { body: { rules: [{ verbs: ["get"], apiGroups: [""], resources: ["pods"] }] } },
  "priorityclasses.scheduling.k8s.io": { body: { value: 10 } },
  "csidrivers.storage.k8s.io": { body: { spec: { attachRequired: false } } },
  "csinodes.storage.k8s.io": { body: { spec: { drivers: [] } } },
  "csistoragecapacities.storage.k8s.io": { body: { storageClassName: "s", capacity: "1Gi" } },
  "storageclasses.storage.k8s.io": { body: { provisioner: "example.com/p" } },
  "volumeattachments.storage.k8s.io": {
    body: { spec: { attacher: "a.example.com", nodeName: "n", source: { persistentVolumeName: "v" } } },
    status: { attached: true },
  },
};

let kinds: Kinds;
let client: Client;
beforeAll(async () => {
  kinds = await openKinds({ multiCidr: true });
  ({ client } = kinds);
  for (const name of ["life", "other"]) {
    await client.create(resources.namespaces, { metadata: { name }, spec: {} } as Namespace);
    await client.create(resources.serviceAccounts, {
      metadata: { name: "default", namespace: name },
    } as ServiceAccount);
  }
});
afterAll(() => kinds.close());

/** Definitions of custom resources change what is served; they have tests of their own. */
const stored = resources.knownResources.filter(
  (info) => info.verbs.includes("create") && info.verbs.includes("get") && info.group !== "apiextensions.k8s.io",
);
const sampleOf = (info: ResourceInfo) => samples[qualifiedResource(info)] ?? {};
const labels = { "every-kind": "yes" };

function bodyOf(info: ResourceInfo, name: string): UnknownObject {
  const body = {
    apiVersion: groupVersion(info),
    kind: info.kind,
    metadata: { name, labels: { ...labels }, ...(info.namespaced ? { namespace: "life" } : {}) },
    ...structuredClone(sampleOf(info).body),
  } as UnknownObject;
  // Its name says what it is about.
  if (info.kind === "APIService") (body["spec"] as Record<string, unknown>)["group"] = name.slice("v1.".length);
  return body;
}

/** Kinds whose changes are counted in metadata.generation. */
const counted = new Set([
  "podtemplates",
  "replicationcontrollers",
  "mutatingwebhookconfigurations.admissionregistration.k8s.io",
  "validatingadmissionpolicies.admissionregistration.k8s.io",
  "validatingadmissionpolicybindings.admissionregistration.k8s.io",
  "validatingwebhookconfigurations.admissionregistration.k8s.io",
  "daemonsets.apps",
  "deployments.apps",
  "replicasets.apps",
  "statefulsets.apps",
  "cronjobs.batch",
  "jobs.batch",
  "endpointslices.discovery.k8s.io",
  "flowschemas.flowcontrol.apiserver.k8s.io",
  "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
  "ingresses.networking.k8s.io",
  "ingressclasses.networking.k8s.io",
  "networkpolicies.networking.k8s.io",
  "poddisruptionbudgets.policy",
  "priorityclasses.scheduling.k8s.io",
  "csidrivers.storage.k8s.io",
]);
/** Kinds that a PUT must name the revision of. */
const seenFirst = new Set([
  "mutatingwebhookconfigurations.admissionregistration.k8s.io",
  "validatingadmissionpolicies.admissionregistration.k8s.io",
  "validatingadmissionpolicybindings.admissionregistration.k8s.io",
  "validatingwebhookconfigurations.admissionregistration.k8s.io",
  "apiservices.apiregistration.k8s.io",
  "leases.coordination.k8s.io",
  "flowschemas.flowcontrol.apiserver.k8s.io",
  "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
  "runtimeclasses.node.k8s.io",
  "poddisruptionbudgets.policy",
  "csidrivers.storage.k8s.io",
  "csinodes.storage.k8s.io",
  "csistoragecapacities.storage.k8s.io",
  "volumeattachments.storage.k8s.io",
]);

/** Names that say what they are about. */
function named(info: ResourceInfo, name: string): string {
  if (info.kind === "APIService") return `v1.${name}`;
  if (info.kind === "IPAddress") return `10.99.0.${Buffer.from(name).reduce((sum, byte) => (sum + byte) % 251, 0)}`;
  return name;
}

test("every stored kind has a sample", () => {
  expect(stored.map(qualifiedResource).filter((name) => !Object.hasOwn(samples, name))).toEqual([]);
});

describe.each(stored.map((info) => [`${qualifiedResource(info)} ${info.version}`, info] as const))(
  "%s",
  (_title, info) => {
    const namespace = info.namespaced ? "life" : undefined;
    const name = named(info, `life-of-${info.singular}`);
    const scope = { labelSelector: "every-kind=yes", ...(namespace ? { namespace } : {}) };
    const at = { name, ...(namespace ? { namespace } : {}) };
    const resource = info as ResourceInfo<UnknownObject>;

    test("lives", async () => {
      const before = (await client.list(resource, scope)).metadata.resourceVersion!;
      const { status } = sampleOf(info);
      const made = await client.create(resource, { ...bodyOf(info, name), ...(status ? { status } : {}) });
      expect(made).toMatchObject({ apiVersion: groupVersion(info), kind: info.kind, metadata: { name, labels } });
      expect(made.metadata.uid).toMatch(/^[0-9a-f-]{36}$/);
      expect(made.metadata.generation).toBe(counted.has(qualifiedResource(info)) ? 1 : undefined);
      // Nodes come with what their agents say of them.
      if (status && info.plural !== "nodes") expect(made["status"]).not.toMatchObject(status);
      expect(await client.get(resource, name, namespace)).toEqual(made);
      if (hasProtobuf(info.type)) {
        // Go's typed clients speak protobuf: what they read and write back has not changed. Statuses are not theirs.
        const { object } = decodeObject(encodeProtobuf(made, info.type), info, { contentType: "protobuf" });
        addZeroValues(object, info.type);
        expect({ ...object, status: undefined }).toEqual({ ...made, status: undefined });
      }
      expect((await client.list(resource, scope)).items.map((item) => item.metadata.name)).toEqual([name]);
      expect((await client.list(resource, { labelSelector: "every-kind=yes" })).items).toHaveLength(1);
      expect((await client.list(resource, { fieldSelector: `metadata.name=${name}` })).items).toHaveLength(1);

      const annotated = await client.patch<UnknownObject>(resource, at, {
        metadata: { annotations: { patched: "merge" } },
      });
      expect(annotated.metadata.annotations?.["patched"]).toBe("merge");
      const strategic = await client.patch<UnknownObject>(
        resource,
        at,
        { metadata: { annotations: { patched: "strategic" } } },
        { type: "application/strategic-merge-patch+json" },
      );
      expect(strategic.metadata.annotations?.["patched"]).toBe("strategic");
      const json = await client.patch<UnknownObject>(
        resource,
        at,
        [{ op: "replace", path: "/metadata/annotations/patched", value: "json" }],
        { type: "application/json-patch+json" },
      );
      expect(json.metadata.annotations?.["patched"]).toBe("json");
      const applied = await client.patch<UnknownObject>(
        resource,
        at,
        { apiVersion: groupVersion(info), kind: info.kind, metadata: { name, annotations: { applied: "yes" } } },
        { type: "application/apply-patch+yaml", fieldManager: "test" },
      );
      expect(applied.metadata.annotations).toMatchObject({ patched: "json", applied: "yes" });
      const updated = await client.update(resource, {
        ...applied,
        ...(status ? { status } : {}),
        metadata: { ...applied.metadata, annotations: { ...applied.metadata.annotations, updated: "yes" } },
      });
      expect(updated.metadata.annotations?.["updated"]).toBe("yes");
      // Nothing of the spec was touched.
      expect(updated.metadata.generation).toBe(made.metadata.generation);
      expect(updated["status"]).toEqual(applied["status"]);
      const { resourceVersion: _resourceVersion, ...blind } = updated.metadata;
      const overwrite = client.update(resource, { ...updated, metadata: blind });
      if (seenFirst.has(qualifiedResource(info))) await expect(overwrite).rejects.toThrow("must be specified");
      else await overwrite;

      const seen: string[] = [];
      const watching = new AbortController();
      const watch = client.watch(resource, { ...scope, resourceVersion: before }, watching.signal);
      const watched = (async () => {
        for await (const event of watch) {
          seen.push(event.type);
          if (event.type === "DELETED") break;
        }
      })();

      expect(status !== undefined).toBe(Object.hasOwn(info.subresources, "status"));
      if (status) {
        const spec = updated["spec"];
        const written = await client.updateStatus(resource, {
          ...updated,
          spec: {},
          status: { ...(updated["status"] as object), ...status },
        } as UnknownObject);
        expect(written["status"]).toMatchObject(status);
        expect(written["spec"]).toEqual(spec);
        const patched = await client.patch<UnknownObject>(resource, at, { status }, { subresource: "status" });
        expect(patched["status"]).toMatchObject(status);
        expect(patched.metadata.resourceVersion).toBe(written.metadata.resourceVersion);
        const path = pathOf(info, namespace, name, "status");
        expect(await client.transport.request({ method: "GET", path })).toEqual(patched);
      }

      await client.delete(resource, at, { propagationPolicy: "Background" });
      if (!["namespaces", "persistentvolumes", "persistentvolumeclaims"].includes(info.plural)) {
        await watched;
        expect(seen[0]).toBe("ADDED");
        expect(seen.at(-1)).toBe("DELETED");
        await expect(client.get(resource, name, namespace)).rejects.toThrow("not found");
      }
      watching.abort();
      await watched.catch(() => {});
    });

    test.runIf(info.verbs.includes("deletecollection"))("goes together", async () => {
      for (const each of ["one", "two", "three"])
        await client.create(resource, bodyOf(info, named(info, `${info.singular}-${each}`)));
      const mineOnly = { labelSelector: "every-kind=yes", ...(namespace ? { namespace } : {}) };
      const mine = async () =>
        (await client.list(resource, mineOnly)).items.filter((item) => !item.metadata.deletionTimestamp);
      expect(await mine()).toHaveLength(3);
      await client.deleteCollection(resource, {
        ...mineOnly,
        fieldSelector: `metadata.name=${named(info, `${info.singular}-two`)}`,
      });
      expect(await mine()).toHaveLength(2);
      await client.deleteCollection(resource, mineOnly);
      expect(await mine()).toHaveLength(0);
    });
  },
);
