import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Deployment } from "#model/gen/apps-v1.ts";
import type { Namespace, Pod, PodSpec, ServiceAccount } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { type Kinds, openKinds, refusal } from "../../kinds.fixture.ts";
import { violations } from "./checks.ts";
import { readPolicy } from "./policy.ts";

const good: PodSpec = {
  securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
  containers: [
    {
      name: "c",
      image: "x",
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"], add: ["NET_BIND_SERVICE"] } },
    },
  ],
};
const container = (name: string, more: object) => ({ ...good.containers[0]!, name, ...more });
const withContext = (more: object): PodSpec => ({
  ...good,
  containers: [container("c", { securityContext: { ...good.containers[0]!.securityContext, ...more } })],
});
const said = (level: "baseline" | "restricted", spec: PodSpec, version = "latest", annotations = {}) =>
  violations({ level, version }, { annotations, spec })
    .map(({ reason, detail }) => `${reason} (${detail})`)
    .join(", ");

describe("baseline", () => {
  test.each<[string, PodSpec, string]>([
    ["nothing", { containers: [{ name: "c", image: "x" }] }, ""],
    [
      "the host's namespaces",
      { ...good, hostNetwork: true, hostPID: true, hostIPC: true },
      "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
    ],
    [
      "privileged",
      withContext({ privileged: true }),
      'privileged (container "c" must not set securityContext.privileged=true)',
    ],
    [
      "two privileged",
      {
        containers: [
          container("a", { securityContext: { privileged: true } }),
          container("b", { securityContext: { privileged: true } }),
        ],
      },
      'privileged (containers "a", "b" must not set securityContext.privileged=true)',
    ],
    ["host paths", { ...good, volumes: [{ name: "v", hostPath: { path: "/" } }] }, 'hostPath volumes (volume "v")'],
    [
      "host ports",
      {
        containers: [
          container("c", {
            ports: [
              { containerPort: 1, hostPort: 80 },
              { containerPort: 2, hostPort: 81 },
            ],
          }),
        ],
      },
      'hostPort (container "c" uses hostPorts 80, 81)',
    ],
    [
      "capabilities",
      withContext({ capabilities: { add: ["NET_ADMIN", "CHOWN", "SYS_TIME"] } }),
      'non-default capabilities (container "c" must not include "NET_ADMIN", "SYS_TIME" in securityContext.capabilities.add)',
    ],
    [
      "proc mounts",
      withContext({ procMount: "Unmasked" }),
      'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
    ],
    [
      "SELinux",
      { ...good, securityContext: { ...good.securityContext, seLinuxOptions: { type: "spc_t", user: "u" } } },
      'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set)',
    ],
    [
      "seccomp",
      { ...good, securityContext: { seccompProfile: { type: "Unconfined" } } },
      'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
    ],
    [
      "AppArmor",
      { ...good, securityContext: { appArmorProfile: { type: "Unconfined" } } },
      'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")',
    ],
    [
      "sysctls",
      {
        ...good,
        securityContext: {
          sysctls: [
            { name: "kernel.msgmax", value: "1" },
            { name: "net.ipv4.tcp_rmem", value: "1" },
          ],
        },
      },
      "forbidden sysctls (kernel.msgmax)",
    ],
    [
      "init and ephemeral containers too",
      {
        ...good,
        initContainers: [container("i", { securityContext: { privileged: true } })],
        ephemeralContainers: [container("e", { securityContext: { privileged: true } })],
      },
      'privileged (containers "i", "e" must not set securityContext.privileged=true)',
    ],
  ])("%s", (_what, spec, wanted) => {
    expect(said("baseline", spec)).toBe(wanted);
  });

  test("rules grow with the version", () => {
    const spec = { ...good, securityContext: { sysctls: [{ name: "net.ipv4.tcp_rmem", value: "1" }] } };
    expect(said("baseline", spec, "v1.31")).toBe("forbidden sysctls (net.ipv4.tcp_rmem)");
    expect(said("baseline", spec, "v1.32")).toBe("");
    const annotations = { "seccomp.security.alpha.kubernetes.io/pod": "unconfined" };
    expect(said("baseline", good, "v1.18", annotations)).toContain("seccompProfile");
    expect(said("baseline", good, "v1.19", annotations)).toBe("");
  });
});

describe("restricted", () => {
  test.each<[string, PodSpec, string]>([
    ["what it asks for", good, ""],
    [
      "a pod that says nothing",
      { containers: [{ name: "c", image: "x" }] },
      'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), ' +
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), ' +
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), ' +
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
    ],
    [
      "volumes",
      {
        ...good,
        volumes: [
          { name: "v", hostPath: { path: "/" } },
          { name: "n", nfs: { server: "s", path: "/" } },
          { name: "e", emptyDir: {} },
        ],
      },
      'restricted volume types (volumes "v", "n" use restricted volume types "hostPath", "nfs")',
    ],
    [
      "root",
      { ...good, securityContext: { ...good.securityContext, runAsUser: 0 } },
      "runAsUser=0 (pod must not set runAsUser=0)",
    ],
    [
      "root by choice",
      withContext({ runAsNonRoot: false }),
      'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)',
    ],
  ])("%s", (_what, spec, wanted) => {
    expect(said("restricted", spec)).toBe(wanted);
  });
  test("Windows has no seccomp, capabilities or escalation", () => {
    const spec = {
      ...good,
      os: { name: "windows" },
      securityContext: { runAsNonRoot: true },
      containers: [{ name: "c", image: "x" }],
    };
    expect(said("restricted", spec)).toBe("");
    expect(said("restricted", spec, "v1.24")).toContain("unrestricted capabilities");
  });
});

test("labels", () => {
  const prefix = "pod-security.kubernetes.io/";
  expect(readPolicy({ [`${prefix}enforce`]: "baseline", [`${prefix}enforce-version`]: "v1.30" }).policy).toEqual({
    enforce: { level: "baseline", version: "v1.30" },
    warn: { level: "baseline", version: "v1.30" },
    audit: { level: "privileged", version: "latest" },
  });
  expect(readPolicy({ [`${prefix}warn`]: "none", [`${prefix}audit-version`]: "1.2" }).errors).toHaveLength(2);
});

describe("in the API", () => {
  let kinds: Kinds;
  beforeAll(async () => {
    kinds = await openKinds();
    const labels = {
      "pod-security.kubernetes.io/enforce": "baseline",
      "pod-security.kubernetes.io/warn": "restricted",
    };
    await kinds.client.create(resources.namespaces, { metadata: { name: "guarded", labels }, spec: {} } as Namespace);
    for (const namespace of ["guarded", "default"]) {
      await kinds.client.create(resources.serviceAccounts, {
        metadata: { name: "default", namespace },
      } as ServiceAccount);
    }
  });
  afterAll(() => kinds.close());
  const pod = (name: string, spec: object, namespace = "guarded"): Pod =>
    ({ metadata: { name, namespace }, spec: { containers: [{ name: "c", image: "x" }], ...spec } }) as Pod;

  test("pods that break the standard are refused, workloads are not", async () => {
    expect(await refusal(kinds.client.create(resources.pods, pod("p", { hostNetwork: true })))).toBe(
      'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)',
    );
    expect(await refusal(kinds.client.create(resources.pods, pod("p", {})))).toBe("accepted");
    expect(await refusal(kinds.client.create(resources.pods, pod("p", { hostNetwork: true }, "default")))).toBe(
      "accepted",
    );
    const deployment = {
      metadata: { name: "d", namespace: "guarded" },
      spec: {
        selector: { matchLabels: { a: "b" } },
        template: {
          metadata: { labels: { a: "b" } },
          spec: { hostNetwork: true, containers: [{ name: "c", image: "x" }] },
        },
      },
    } as unknown as Deployment;
    expect(await refusal(kinds.client.create(resources.deployments, deployment))).toBe("accepted");
  });

  test("labels that mean nothing are refused", async () => {
    const labels = { "pod-security.kubernetes.io/enforce": "strict" };
    expect(
      await refusal(
        kinds.client.create(resources.namespaces, { metadata: { name: "odd", labels }, spec: {} } as Namespace),
      ),
    ).toBe(
      'Namespace "odd" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted',
    );
  });

  test("a label change of a pod is not looked at, a new image is", async () => {
    const made = await kinds.client.create(resources.pods, pod("old", { hostNetwork: true }, "default"));
    const namespace = await kinds.client.get(resources.namespaces, "default");
    const labels = { ...namespace.metadata.labels, "pod-security.kubernetes.io/enforce": "baseline" };
    await kinds.client.update(resources.namespaces, { ...namespace, metadata: { ...namespace.metadata, labels } });
    const relabelled = { ...made, metadata: { ...made.metadata, labels: { a: "b" } } };
    const updated = await kinds.client.update(resources.pods, relabelled);
    const reimaged = {
      ...updated,
      spec: { ...updated.spec, containers: [{ ...updated.spec.containers[0]!, image: "y" }] },
    };
    expect(await refusal(kinds.client.update(resources.pods, reimaged))).toContain(
      'violates PodSecurity "baseline:latest"',
    );
  });
});
