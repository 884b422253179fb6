// What is served, held against what kube-apiserver 1.32 serves by default: every group, version, kind, verb and
// subresource, and the hashes by which clients see that a storage version has changed. Facts, a row each.
import { describe, expect, test } from "vitest";
import { allResources, resourcesWith } from "#model/resources.ts";
import { createDiscovery } from "./discovery.ts";
import type { HandlerRequest } from "./result.ts";

/**
 * `plural kind scope verbs hash short,names categories`, with `-` for none; subresources below their resource with the
 * kind they speak where it is not their resource's. Of definitions, slices, flow schemas and levels the hash is that of
 * v1, which we store; releases of upstream stored betas of these.
 * Verbs: * all eight, s get patch update, p what proxies do, x streams.
 */
const upstream: Readonly<Record<string, string>> = {
  v1: `
bindings Binding N create - - -
componentstatuses ComponentStatus C get,list - cs -
configmaps ConfigMap N * qFsyl6wFWjQ= cm -
endpoints Endpoints N * fWeeMqaN/OA= ep -
events Event N * r2yiGXH7wu8= ev -
limitranges LimitRange N * EBKMFVe6cwo= limits -
namespaces Namespace C create,delete,get,list,patch,update,watch Q3oi5N2YM8M= ns -
  finalize update
  status s
nodes Node C * XwShjMxG9Fs= no -
  proxy p NodeProxyOptions
  status s
persistentvolumeclaims PersistentVolumeClaim N * QWTyNDq0dC4= pvc -
  status s
persistentvolumes PersistentVolume C * HN/zwEC+JgM= pv -
  status s
pods Pod N * xPOwRZ+Yhw8= po all
  attach x PodAttachOptions
  binding create Binding
  ephemeralcontainers s
  eviction create policy/v1/Eviction
  exec x PodExecOptions
  log get
  portforward x PodPortForwardOptions
  proxy p PodProxyOptions
  status s
podtemplates PodTemplate N * LIXB2x4IFpk= - -
replicationcontrollers ReplicationController N * Jond2If31h0= rc all
  scale s autoscaling/v1/Scale
  status s
resourcequotas ResourceQuota N * 8uhSgffRX6w= quota -
  status s
secrets Secret N * S6u1pOWzb84= - -
serviceaccounts ServiceAccount N * pbx9ZvyFpBE= sa -
  token create authentication.k8s.io/v1/TokenRequest
services Service N * 0/CO1lhkEBI= svc all
  proxy p ServiceProxyOptions
  status s`,
  "apiregistration.k8s.io/v1": `
apiservices APIService C * InPBPD7+PqM= - api-extensions
  status s`,
  "apps/v1": `
controllerrevisions ControllerRevision N * 85nkx63pcBU= - -
daemonsets DaemonSet N * dd7pWHUlMKQ= ds all
  status s
deployments Deployment N * 8aSe+NMegvE= deploy all
  scale s autoscaling/v1/Scale
  status s
replicasets ReplicaSet N * P1RzHs8/mWQ= rs all
  scale s autoscaling/v1/Scale
  status s
statefulsets StatefulSet N * H+vl74LkKdo= sts all
  scale s autoscaling/v1/Scale
  status s`,
  "events.k8s.io/v1": `
events Event N * r2yiGXH7wu8= ev -`,
  "authentication.k8s.io/v1": `
selfsubjectreviews SelfSubjectReview C create - - -
tokenreviews TokenReview C create - - -`,
  "authorization.k8s.io/v1": `
localsubjectaccessreviews LocalSubjectAccessReview N create - - -
selfsubjectaccessreviews SelfSubjectAccessReview C create - - -
selfsubjectrulesreviews SelfSubjectRulesReview C create - - -
subjectaccessreviews SubjectAccessReview C create - - -`,
  "autoscaling/v2": `
horizontalpodautoscalers HorizontalPodAutoscaler N * qwQve8ut294= hpa all
  status s`,
  "autoscaling/v1": `
horizontalpodautoscalers HorizontalPodAutoscaler N * qwQve8ut294= hpa all
  status s`,
  "batch/v1": `
cronjobs CronJob N * sd5LIXh4Fjs= cj all
  status s
jobs Job N * mudhfqk/qZY= - all
  status s`,
  "certificates.k8s.io/v1": `
certificatesigningrequests CertificateSigningRequest C * 95fRKMXA+00= csr -
  approval s
  status s`,
  "networking.k8s.io/v1": `
ingressclasses IngressClass C * l/iqIbDgFyQ= - -
ingresses Ingress N * 39NQlfNR+bo= ing -
  status s
networkpolicies NetworkPolicy N * YpfwF18m1G8= netpol -`,
  "policy/v1": `
poddisruptionbudgets PodDisruptionBudget N * EVWiDmWqyJw= pdb -
  status s`,
  "rbac.authorization.k8s.io/v1": `
clusterrolebindings ClusterRoleBinding C * 48tpQ8gZHFc= - -
clusterroles ClusterRole C * bYE5ZWDrJ44= - -
rolebindings RoleBinding N * eGsCzGH6b1g= - -
roles Role N * 7FuwZcIIItM= - -`,
  "storage.k8s.io/v1": `
csidrivers CSIDriver C * hL6j/rwBV5w= - -
csinodes CSINode C * Pe62DkZtjuo= - -
csistoragecapacities CSIStorageCapacity N * xeVl+2Ly1kE= - -
storageclasses StorageClass C * K+m6uJwbjGY= sc -
volumeattachments VolumeAttachment C * tJx/ezt6UDU= - -
  status s`,
  "admissionregistration.k8s.io/v1": `
mutatingwebhookconfigurations MutatingWebhookConfiguration C * Sqi0GUgDaX0= - api-extensions
validatingadmissionpolicies ValidatingAdmissionPolicy C * 6OxvlMmQ6is= - api-extensions
  status s
validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C * v9715VZqakg= - api-extensions
validatingwebhookconfigurations ValidatingWebhookConfiguration C * B0wHjQmsGNk= - api-extensions`,
  "apiextensions.k8s.io/v1": `
customresourcedefinitions CustomResourceDefinition C * M5uH+AlWATY= crd,crds api-extensions
  status s`,
  "scheduling.k8s.io/v1": `
priorityclasses PriorityClass C * 1QwjyaZjj3Y= pc -`,
  "coordination.k8s.io/v1": `
leases Lease N * gqkMMb/YqFM= - -`,
  "node.k8s.io/v1": `
runtimeclasses RuntimeClass C * WQTu1GL3T2Q= - -`,
  "discovery.k8s.io/v1": `
endpointslices EndpointSlice N * qgS0xkrxYAI= - -`,
  "flowcontrol.apiserver.k8s.io/v1": `
flowschemas FlowSchema C * GJVAJZSZBIw= - -
  status s
prioritylevelconfigurations PriorityLevelConfiguration C * Kir5PVfvNeI= - -
  status s`,
};

const discovery = createDiscovery(allResources, "127.0.0.1:6443");
// biome-ignore lint/suspicious/noExplicitAny: documents as clients see them
function answer(path: string, accept = "application/json"): any {
  const request = { header: (name: string) => (name === "accept" ? accept : undefined) } as unknown as HandlerRequest;
  const result = discovery.answer(request, path);
  if (result?.type === "object") return result.object;
  if (result?.type === "raw") return JSON.parse(String(result.body));
  throw new Error(`${path}: ${result?.type}`);
}

const shortVerbs: Readonly<Record<string, string>> = {
  "create,delete,deletecollection,get,list,patch,update,watch": "*",
  "get,patch,update": "s",
  "create,delete,get,patch,update": "p",
  "create,get": "x",
};
const verbsOf = (verbs: readonly string[]) => shortVerbs[verbs.join()] ?? verbs.join();

interface Legacy {
  readonly name: string;
  readonly kind: string;
  readonly group?: string;
  readonly version?: string;
  readonly namespaced: boolean;
  readonly singularName: string;
  readonly verbs: readonly string[];
  readonly shortNames?: readonly string[];
  readonly categories?: readonly string[];
  readonly storageVersionHash?: string;
}
function legacyRow(row: Legacy, parent: Legacy | undefined): string {
  const [, subresource] = row.name.split("/");
  if (subresource === undefined) {
    expect(row.singularName).toBe(row.kind.toLowerCase());
    const words = [row.name, row.kind, row.namespaced ? "N" : "C", verbsOf(row.verbs), row.storageVersionHash ?? "-"];
    return [...words, row.shortNames?.join() ?? "-", row.categories?.join() ?? "-"].join(" ");
  }
  expect([row.singularName, row.namespaced]).toEqual(["", parent?.namespaced]);
  const kind = row.group ? `${row.group}/${row.version}/${row.kind}` : row.kind;
  return `  ${subresource} ${verbsOf(row.verbs)}${kind === parent?.kind ? "" : ` ${kind}`}`;
}

const pathOf = (groupVersion: string) => (groupVersion === "v1" ? "/api/v1" : `/apis/${groupVersion}`);

describe("what is served is what upstream serves", () => {
  test.each(Object.keys(upstream))("%s", (groupVersion) => {
    const document = answer(pathOf(groupVersion)) as { groupVersion: string; resources: Legacy[] };
    expect(document.groupVersion).toBe(groupVersion);
    let parent: Legacy | undefined;
    const rows = document.resources.map((row) => {
      if (!row.name.includes("/")) parent = row;
      return legacyRow(row, parent);
    });
    expect(rows.join("\n")).toBe(upstream[groupVersion]!.trim());
  });

  test("in upstream's order, by every form of discovery", () => {
    const wanted = Object.keys(upstream);
    interface Group {
      name: string;
      versions: { groupVersion: string }[];
      preferredVersion: { groupVersion: string };
    }
    const { groups } = answer("/apis") as { groups: Group[] };
    expect(groups.flatMap((group) => group.versions.map((version) => version.groupVersion))).toEqual(wanted.slice(1));
    expect(groups.find(({ name }) => name === "autoscaling")?.preferredVersion.groupVersion).toBe("autoscaling/v2");
    expect(answer("/api").versions).toEqual(["v1"]);
    for (const version of ["v2", "v2beta1"]) {
      const accept = `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`;
      const rows = ["/api", "/apis"].flatMap((path) => aggregatedRows(answer(path, accept)));
      expect(rows).toEqual(wanted.flatMap((name) => legacyNames(name)));
    }
  });
});

interface Aggregated {
  items: {
    metadata: { name?: string };
    versions: {
      version: string;
      freshness: string;
      resources: {
        resource: string;
        scope: string;
        verbs: string[];
        responseKind: { kind: string };
        subresources?: { subresource: string; verbs: string[]; responseKind: { kind: string } }[];
      }[];
    }[];
  }[];
}
const aggregatedRows = ({ items }: Aggregated): string[] =>
  items.flatMap(({ metadata, versions }) =>
    versions.flatMap(({ version, resources }) => {
      const own = metadata.name === undefined ? version : `${metadata.name}/${version}`;
      return resources.flatMap((row) => [
        `${own} ${row.resource} ${row.responseKind.kind} ${row.scope[0]} ${row.verbs.join()}`,
        ...(row.subresources ?? []).map(
          (sub) =>
            `${own} ${row.resource}/${sub.subresource} ${sub.responseKind.kind} ${row.scope[0]} ${sub.verbs.join()}`,
        ),
      ]);
    }),
  );
const legacyNames = (groupVersion: string): string[] =>
  (answer(pathOf(groupVersion)).resources as Legacy[]).map(
    ({ name, kind, namespaced, verbs }) => `${groupVersion} ${name} ${kind} ${namespaced ? "N" : "C"} ${verbs.join()}`,
  );

test("what is off by default shows as upstream's where it is on", () => {
  const rows = resourcesWith(["networking.k8s.io/v1beta1"]);
  const { answer: answerOf } = createDiscovery(rows, "127.0.0.1:6443");
  const request = { header: () => undefined } as unknown as HandlerRequest;
  const result = answerOf(request, "/apis/networking.k8s.io/v1beta1");
  const { resources } = (result as unknown as { object: { resources: Legacy[] } }).object;
  const [addresses, cidrs, status] = resources;
  expect(legacyRow(addresses!, undefined)).toBe("ipaddresses IPAddress C * O4H8VxQhW5Y= ip -");
  expect(legacyRow(cidrs!, undefined)).toBe("servicecidrs ServiceCIDR C * 8ufAXOnr3Yg= - -");
  expect(legacyRow(status!, cidrs)).toBe("  status s");
});
