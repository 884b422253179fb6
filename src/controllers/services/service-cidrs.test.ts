// The decisions about ServiceCIDRs and IPAddresses, as tables; their life is in test/scenario/service-cidrs.test.ts.
import { expect, test } from "vitest";
import type { Service } from "#model/gen/core-v1.ts";
import type { IPAddress, ServiceCIDR } from "#model/gen/networking-v1beta1.ts";
import { addressFor } from "#model/service-addresses.ts";
import { planAddress, planClusterIp } from "./ip-address-plan.ts";
import { planServiceCidr, serviceCidrFinalizer } from "./service-cidr-plan.ts";

const nowMs = Date.parse("2026-01-01T00:10:00Z");
const before = (seconds: number) => new Date(nowMs - seconds * 1000).toISOString().replace(".000", "");

interface Shape {
  readonly cidrs?: string[];
  /** Seconds since it was to go. */
  readonly going?: number;
  readonly ready?: "True" | "False";
  readonly isBare?: boolean;
}
const range = (name: string, { cidrs = ["10.44.0.0/24"], going, ready, isBare }: Shape = {}): ServiceCIDR => ({
  metadata: {
    name,
    ...(isBare ? {} : { finalizers: [serviceCidrFinalizer] }),
    ...(going === undefined ? {} : { deletionTimestamp: before(going) }),
  },
  spec: { cidrs },
  status: {
    conditions: ready
      ? [
          {
            type: "Ready",
            status: ready,
            reason: ready === "True" ? "" : "Terminating",
            message: "",
            lastTransitionTime: "",
          },
        ]
      : [],
  },
});
const web = { metadata: { namespace: "shop", name: "web" }, spec: { clusterIP: "10.44.0.7" } } as Service;
const taken = (ip: string): IPAddress => addressFor(ip, web);
const foreign = (ip: string): IPAddress => ({ ...taken(ip), metadata: { name: ip } });
const gone = { going: 11 };

test.each<[string, ServiceCIDR, ServiceCIDR[], IPAddress[], string]>([
  ["a new one", range("a", { isBare: true }), [], [], "protect"],
  ["a protected one", range("a"), [], [], "say True"],
  ["one that is ready", range("a", { ready: "True" }), [], [], "nothing"],
  ["one that was not", range("a", { ready: "False" }), [], [], "say True"],
  ["one that goes", range("a", { going: 3 }), [], [], "wait 7000"],
  ["one that goes and nobody protects", range("a", { ...gone, isBare: true }), [], [taken("10.44.0.7")], "nothing"],
  ["one whose time has come", range("a", gone), [], [taken("10.43.0.7")], "let go"],
  ["one with addresses", range("a", gone), [], [taken("10.44.0.7")], "say False"],
  ["one of which that is said", range("a", { ...gone, ready: "False" }), [], [taken("10.44.0.7")], "nothing"],
  ["addresses of others", range("a", gone), [], [foreign("10.44.0.7")], "let go"],
  [
    "addresses in a wider one too",
    range("a", gone),
    [range("b", { cidrs: ["10.44.0.0/16"] })],
    [taken("10.44.0.7")],
    "let go",
  ],
  ["the same range twice", range("a", gone), [range("b")], [taken("10.44.0.7")], "let go"],
  ["the same range twice, both going", range("a", gone), [range("b", gone)], [taken("10.44.0.7")], "say False"],
  [
    "addresses in a narrower one too",
    range("a", gone),
    [range("b", { cidrs: ["10.44.0.0/28"] })],
    [taken("10.44.0.7")],
    "let go",
  ],
  [
    "not all of them",
    range("a", gone),
    [range("b", { cidrs: ["10.44.0.0/28"] })],
    [taken("10.44.0.7"), taken("10.44.0.77")],
    "say False",
  ],
  [
    "the second family",
    range("a", { ...gone, cidrs: ["10.44.0.0/24", "fd00:44::/112"] }),
    [range("b")],
    [taken("fd00:44::7")],
    "say False",
  ],
])("%s", (_, object, others, addresses, expected) => {
  const step = planServiceCidr({ object, all: [object, ...others], addresses: () => addresses, nowMs });
  const detail = step.do === "say" ? ` ${step.condition.status}` : step.do === "wait" ? ` ${step.ms}` : "";
  expect(step.do + detail).toBe(expected);
});

const other = { ...web, metadata: { namespace: "shop", name: "other" } } as Service;
const moved = { ...other, spec: { clusterIP: "10.44.0.8" } } as Service;
const parented = (spec: IPAddress["spec"], ip = "10.44.0.7"): IPAddress => ({ ...taken(ip), spec });

test.each<[string, IPAddress | undefined, Service | undefined, string]>([
  ["its own", taken("10.44.0.7"), web, "nothing"],
  ["none", undefined, undefined, "make ClusterIPNotAllocated"],
  ["one without labels", foreign("10.44.0.7"), web, "remake"],
  ["one of a service that is gone", addressFor("10.44.0.7", other), undefined, "remake ClusterIPNotAllocated"],
  ["one of a service that has another", addressFor("10.44.0.7", moved), moved, "remake ClusterIPNotAllocated"],
  ["one of a service that has it too", addressFor("10.44.0.7", other), other, "nothing"],
  [
    "one of no service",
    parented({ parentRef: { group: "example.com", resource: "gateways", name: "a" } }),
    undefined,
    "remake ClusterIPNotAllocated",
  ],
])("a service with %s", (_, address, owner, expected) => {
  const step = planClusterIp(web, "10.44.0.7", address, owner);
  const said = step.do === "nothing" ? ["nothing"] : [step.instead ? "remake" : "make", step.told?.reason ?? ""];
  expect(said.join(" ").trim()).toBe(expected);
});

const aged = (address: IPAddress, seconds: number): IPAddress => ({
  ...address,
  metadata: { ...address.metadata, creationTimestamp: before(seconds) },
});

test.each<[string, IPAddress, Service | undefined, string]>([
  ["of its service", aged(taken("10.44.0.7"), 1), web, "nothing"],
  [
    "of its service, otherwise spelt",
    aged(taken("fd00:44::7"), 100),
    { ...web, spec: { clusterIP: "fd00:44:0::7" } } as Service,
    "nothing",
  ],
  ["whose service is being written", aged(taken("10.44.0.7"), 20), undefined, "wait 40000"],
  ["that a service is about to get", aged(taken("10.44.0.8"), 20), web, "wait 40000"],
  ["whose service never came", aged(taken("10.44.0.7"), 61), undefined, "remove IPAddressNotAllocated"],
  ["that its service gave up", aged(taken("10.44.0.8"), 61), web, "remove IPAddressWrongReference"],
  [
    "of no service but with our labels",
    parented({ parentRef: { resource: "pods", name: "a" } }),
    undefined,
    "remove IPAddressNotAllocated",
  ],
  ["of somebody else", foreign("10.44.0.9"), undefined, "nothing"],
])("an address %s", (_, address, owner, expected) => {
  const step = planAddress(address, owner, nowMs);
  const detail = step.do === "wait" ? ` ${step.ms}` : step.do === "remove" ? ` ${step.told.reason}` : "";
  expect(step.do + detail).toBe(expected);
});
