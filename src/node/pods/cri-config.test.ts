import { expect, test } from "vitest";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { NamespaceMode, SecurityProfileProfileType, SupplementalGroupsPolicy } from "#wire/gen/cri.ts";
import { containerConfig, sandboxConfig } from "./cri-config.ts";
import { hugePageSizes } from "./resources.ts";

const limitsOf = (sizes: readonly string[], limits: Record<string, string>) => {
  const container = { name: "c", resources: { limits } } as unknown as Container;
  const pod = { metadata: { uid: "u", name: "p", namespace: "ns" }, spec: { containers: [container] } } as Pod;
  const config = containerConfig({
    ...{ pod, container, attempt: 0, env: new Map(), mounts: [], imageRef: "", imageUser: { name: "" } },
    ...{ memoryCapacityBytes: 2 ** 30, seccompDefault: true, hasAppArmor: false, forbidsSwap: false },
    hugePageSizes: sizes,
  });
  return config.linux?.resources?.hugepageLimits;
};

test("a container may have no huge pages of sizes that it does not ask for", () => {
  const sizes = hugePageSizes({ "hugepages-2Mi": 0, "hugepages-1Gi": 2 ** 30, "hugepages-64Ki": 0 });
  expect(sizes).toEqual(["2MB", "1GB", "64KB"]);
  expect(limitsOf(sizes, { "hugepages-2Mi": "4Mi" })).toEqual([
    { pageSize: "2MB", limit: 4 * 2 ** 20 },
    { pageSize: "1GB", limit: 0 },
    { pageSize: "64KB", limit: 0 },
  ]);
  expect(limitsOf([], { "hugepages-2Mi": "4Mi" })).toEqual([]);
});

type Security = NonNullable<Container["securityContext"]>;
type PodSecurity = NonNullable<Pod["spec"]["securityContext"]>;

/** What the runtime is told of a container's security. */
function securityOf(own: Security, ofPod: PodSecurity = {}, more: Partial<Parameters<typeof containerConfig>[0]> = {}) {
  const container: Container = { name: "c", image: "i", securityContext: own };
  const pod = {
    metadata: { uid: "u", name: "p", namespace: "ns" },
    spec: { containers: [container], securityContext: ofPod },
  } as Pod;
  const config = containerConfig({
    ...{ pod, container, attempt: 0, env: new Map(), mounts: [], imageRef: "", imageUser: { uid: 0, name: "" } },
    ...{ memoryCapacityBytes: 2 ** 30, seccompDefault: true, hasAppArmor: true, forbidsSwap: false, hugePageSizes: [] },
    ...more,
  });
  return config.linux?.securityContext;
}
const { RuntimeDefault, Unconfined, Localhost } = SecurityProfileProfileType;

test.each<[what: string, own: Security, ofPod: PodSecurity, told: Record<string, unknown>]>([
  [
    "nothing said",
    {},
    {},
    {
      ...{ privileged: false, readonlyRootfs: false, noNewPrivs: false, runAsUser: { value: 0 } },
      ...{ seccomp: { profileType: RuntimeDefault }, apparmor: { profileType: RuntimeDefault } },
      supplementalGroupsPolicy: SupplementalGroupsPolicy.Merge,
    },
  ],
  ["a user of the pod", {}, { runAsUser: 7, runAsGroup: 8 }, { runAsUser: { value: 7 }, runAsGroup: { value: 8 } }],
  ["one of its own", { runAsUser: 9 }, { runAsUser: 7 }, { runAsUser: { value: 9 } }],
  ["groups", {}, { fsGroup: 5, supplementalGroups: [6, 7] }, { supplementalGroups: [5, 6, 7] }],
  [
    "groups of the pod only",
    {},
    { supplementalGroupsPolicy: "Strict" },
    { supplementalGroupsPolicy: SupplementalGroupsPolicy.Strict },
  ],
  [
    "capabilities with and without their prefix",
    { capabilities: { add: ["CAP_NET_ADMIN", "SYS_TIME"], drop: ["ALL"] } },
    {},
    { capabilities: { addCapabilities: ["NET_ADMIN", "SYS_TIME"], dropCapabilities: ["ALL"] } },
  ],
  ["no more privileges", { allowPrivilegeEscalation: false }, {}, { noNewPrivs: true }],
  ["a root that cannot be written", { readOnlyRootFilesystem: true }, {}, { readonlyRootfs: true }],
  [
    "a seccomp profile of the machine",
    { seccompProfile: { type: "Localhost", localhostProfile: "a/b.json" } },
    { seccompProfile: { type: "Unconfined" } },
    { seccomp: { profileType: Localhost, localhostRef: "/var/lib/kubelet/seccomp/a/b.json" } },
  ],
  ["no seccomp", {}, { seccompProfile: { type: "Unconfined" } }, { seccomp: { profileType: Unconfined } }],
  [
    "an AppArmor profile of the machine",
    { appArmorProfile: { type: "Localhost", localhostProfile: "mine" } },
    {},
    { apparmor: { profileType: Localhost, localhostRef: "mine" } },
  ],
  ["no AppArmor", {}, { appArmorProfile: { type: "Unconfined" } }, { apparmor: { profileType: Unconfined } }],
  [
    "SELinux labels, the container's own first",
    { seLinuxOptions: { level: "s0:c1" } },
    { seLinuxOptions: { level: "s0:c2", type: "t" } },
    { selinuxOptions: { user: "", role: "", type: "", level: "s0:c1" } },
  ],
  ["all of /proc", { procMount: "Unmasked" }, {}, { maskedPaths: [], readonlyPaths: [] }],
  [
    "everything",
    { privileged: true, seccompProfile: { type: "RuntimeDefault" } },
    {},
    { privileged: true, maskedPaths: [], readonlyPaths: [], seccomp: { profileType: Unconfined } },
  ],
])("security: %s", (_, own, ofPod, told) => {
  expect(securityOf(own, ofPod)).toMatchObject(told);
});

test("a privileged container has no AppArmor profile, nor has one where the kernel has none", () => {
  expect(securityOf({ privileged: true })).not.toHaveProperty("apparmor");
  expect(securityOf({}, {}, { hasAppArmor: false })).not.toHaveProperty("apparmor");
  expect(securityOf({}, {}, { seccompDefault: false })?.seccomp).toEqual({ profileType: Unconfined });
});

test.each([
  [{}, { uid: 0, name: "" }, "image will run as root"],
  [{}, { name: "" }, "image will run as root"],
  [{}, { name: "web" }, "non-numeric user (web)"],
  [{ runAsUser: 0 }, { uid: 7, name: "" }, "runAsUser breaks non-root policy"],
  [{}, { uid: 7, name: "" }, undefined],
  [{ runAsUser: 7 }, { name: "web" }, undefined],
])("who must not be root: %j of an image that runs as %j", (own, imageUser, refusal) => {
  const told = () => securityOf({ ...own, runAsNonRoot: true }, {}, { imageUser });
  if (refusal === undefined) expect(told()?.runAsUser).toEqual({ value: 7 });
  else expect(told).toThrow(refusal);
});

test("a sandbox has the pod's namespaces, safe system settings and ports", () => {
  const pod = {
    metadata: { uid: "u", name: "p", namespace: "ns", labels: { app: "a" } },
    spec: {
      ...{ hostPID: true, shareProcessNamespace: false, hostname: "h", subdomain: "s" },
      securityContext: { sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "0" }], runAsUser: 5 },
      containers: [{ name: "c", ports: [{ containerPort: 80, hostPort: 8080, protocol: "UDP", hostIP: "10.0.0.1" }] }],
    },
  } as unknown as Pod;
  const config = sandboxConfig({
    ...{ pod, attempt: 1, logFolder: "/l", dns: { servers: [], searches: [], options: [] } },
    ...{ nodeName: "n", clusterDomain: "cluster.local", seccompDefault: true, podsCgroup: "/own/kubepods" },
  });
  expect(config).toMatchObject({
    metadata: { name: "p", uid: "u", namespace: "ns", attempt: 1 },
    hostname: "h",
    labels: { app: "a", "io.kubernetes.pod.uid": "u" },
    portMappings: [{ protocol: 1, containerPort: 80, hostPort: 8080, hostIp: "10.0.0.1" }],
    linux: {
      cgroupParent: "/own/kubepods/besteffort/podu",
      sysctls: { "net.ipv4.ip_unprivileged_port_start": "0" },
      securityContext: {
        namespaceOptions: { network: NamespaceMode.POD, pid: NamespaceMode.NODE, ipc: NamespaceMode.POD },
        seccomp: { profileType: RuntimeDefault },
        runAsUser: { value: 5 },
      },
    },
  });
  const onHost = sandboxConfig({
    ...{ pod: { ...pod, spec: { ...pod.spec, hostNetwork: true } }, attempt: 0, logFolder: "/l" },
    ...{ dns: { servers: [], searches: [], options: [] }, nodeName: "n", clusterDomain: "c", seccompDefault: true },
    podsCgroup: "/kubepods",
  });
  expect(onHost).toMatchObject({ hostname: "", portMappings: [{ hostPort: 0 }] });
});
