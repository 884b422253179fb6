import { describe, expect, test } from "vitest";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { type AdmissionInput, admit, sysctlRefusal } from "./admission.ts";

const podOf = (spec: object): Pod =>
  ({ metadata: {}, spec: { containers: [{ name: "c" }], ...spec } }) as unknown as Pod;
const sysctls = (...names: string[]) => ({ securityContext: { sysctls: names.map((name) => ({ name, value: "1" })) } });

describe("sysctls", () => {
  const cases: [string, Pod, string[], string | undefined][] = [
    ["a safe one", podOf(sysctls("kernel.shm_rmid_forced")), [], undefined],
    ["an unsafe one", podOf(sysctls("kernel.msgmax")), [], 'forbidden sysctl: "kernel.msgmax" not allowlisted'],
    ["an unsafe one that is allowed", podOf(sysctls("kernel.msgmax")), ["kernel.msg*"], undefined],
    ["with slashes", podOf(sysctls("net/ipv4/tcp_syncookies")), [], undefined],
    [
      "of the host's network",
      podOf({ ...sysctls("net.ipv4.tcp_syncookies"), hostNetwork: true }),
      [],
      "host net enabled",
    ],
    ["of the host's IPC", podOf({ ...sysctls("kernel.shm_rmid_forced"), hostIPC: true }), [], "host ipc enabled"],
  ];
  test.each(cases)("%s", (_, pod, allowed, expected) => {
    const refusal = sysctlRefusal(pod, allowed);
    if (expected === undefined) expect(refusal).toBeUndefined();
    else expect(refusal?.message).toContain(expected);
  });
});

describe("admission", () => {
  const input = (extra: Partial<AdmissionInput>): AdmissionInput => ({
    pod: podOf({}),
    others: [],
    allocatable: { pods: 10 },
    allowedUnsafeSysctls: [],
    hasAppArmor: false,
    node: { metadata: { labels: { disk: "ssd" } } } as unknown as Node,
    underPressure: () => undefined,
    isShuttingDown: false,
    ...extra,
  });
  const affinity = (disk: string) => ({
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: "disk", operator: "In", values: [disk] }] }],
      },
    },
  });
  const onPort = (hostIP?: string) =>
    podOf({ containers: [{ name: "c", ports: [{ containerPort: 80, hostPort: 80, hostIP }] }] });
  const profile = { securityContext: { appArmorProfile: { type: "RuntimeDefault" } } };
  const cases: [string, Partial<AdmissionInput>, string | undefined][] = [
    ["a plain pod", {}, undefined],
    ["another system's", { pod: podOf({ os: { name: "windows" } }) }, "PodOSNotSupported"],
    ["AppArmor where there is none", { pod: podOf(profile) }, "AppArmor"],
    ["AppArmor where there is one", { pod: podOf(profile), hasAppArmor: true }, undefined],
    ["a label that has gone", { pod: podOf({ nodeSelector: { disk: "hdd" } }) }, "NodeAffinity"],
    ["a label that is there", { pod: podOf({ nodeSelector: { disk: "ssd" } }) }, undefined],
    ["an affinity that is not met", { pod: podOf({ affinity: affinity("hdd") }) }, "NodeAffinity"],
    ["an affinity that is", { pod: podOf({ affinity: affinity("ssd") }) }, undefined],
    ["a host port that is taken", { pod: onPort("10.0.0.1"), others: [onPort()] }, "NodePorts"],
    ["another address of it", { pod: onPort("10.0.0.1"), others: [onPort("10.0.0.2")] }, undefined],
    ["while shutting down", { isShuttingDown: true }, "NodeShutdown"],
    ["no room", { allocatable: { pods: 0 } }, "OutOfpods"],
  ];
  test.each(cases)("%s", (_, extra, reason) => expect(admit(input(extra))?.reason).toBe(reason));
});
