// Services of one and two address families on clusters that have one or two: what they get, what is refused, what a change
// takes and gives back.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Service, ServiceSpec } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";

/** By the families of the cluster, the default first. */
const clusters: Record<string, Kinds> = {};
beforeAll(async () => {
  for (const [name, serviceCidr] of [
    ["4", "10.43.0.0/24"],
    ["46", "10.43.0.0/24,fd00:43::/112"],
    ["64", "fd00:43::/108,10.43.0.0/24"],
    // Two addresses beside that of the service kubernetes.
    ["46 small", "10.43.0.0/24,fd00:43::/126"],
  ] as const) {
    clusters[name] = await openKinds({ serviceCidr });
  }
});
afterAll(async () => {
  for (const kinds of Object.values(clusters)) await kinds.close();
});

type Spec = Partial<ServiceSpec>;
const at = (name: string) => ({ name, namespace: "default" });
const make = (cluster: string, name: string, spec: Spec): Promise<Service> =>
  clusters[cluster]!.client.create(resources.services, {
    metadata: at(name),
    spec: { ports: [{ port: 80 }], ...spec } as ServiceSpec,
  });
const drop = (cluster: string, name: string) => clusters[cluster]!.client.delete(resources.services, at(name));

/** `4` and `6` of each address, the families, the policy. */
function shapeOf({ spec }: Service): string {
  const ips = (spec?.clusterIPs ?? []).map((ip) => (ip === "None" ? ip : ip.includes(":") ? "6" : "4"));
  expect(spec?.clusterIP ?? "").toBe(spec?.clusterIPs?.[0] ?? "");
  const families = (spec?.ipFamilies ?? []).map((family) => family.slice(-1));
  return `${ips.join("")} ${families.join("")} ${spec?.ipFamilyPolicy ?? ""}`;
}

const headless = { clusterIP: "None" };
const selector = { app: "a" };
const named = { type: "ExternalName", externalName: "a.example" };
const single = { ipFamilyPolicy: "SingleStack" };
const prefer = { ipFamilyPolicy: "PreferDualStack" };
const both = { ipFamilyPolicy: "RequireDualStack" };

test.each<[string, Spec, string]>([
  ["4", {}, "4 4 SingleStack"],
  ["4", prefer, "4 4 PreferDualStack"],
  ["4", { ipFamilies: ["IPv4"] }, "4 4 SingleStack"],
  ["4", { ...headless, selector }, "None 4 SingleStack"],
  ["4", headless, "None 46 RequireDualStack"],
  ["4", { ...headless, ipFamilies: ["IPv6"] }, "None 64 RequireDualStack"],
  ["4", { ...headless, ...single }, "None 4 SingleStack"],
  ["46", {}, "4 4 SingleStack"],
  ["46", single, "4 4 SingleStack"],
  ["46", prefer, "46 46 PreferDualStack"],
  ["46", both, "46 46 RequireDualStack"],
  ["46", { ipFamilies: ["IPv6"] }, "6 6 SingleStack"],
  ["46", { ...prefer, ipFamilies: ["IPv6"] }, "64 64 PreferDualStack"],
  ["46", { ...both, ipFamilies: ["IPv6", "IPv4"] }, "64 64 RequireDualStack"],
  ["46", { clusterIP: "fd00:43::77" }, "6 6 SingleStack"],
  ["46", { ...both, clusterIP: "fd00:43::78" }, "64 64 RequireDualStack"],
  [
    "46",
    { ...both, clusterIP: "10.43.0.77", clusterIPs: ["10.43.0.77", "fd00:43::79"], type: "NodePort" },
    "46 46 RequireDualStack",
  ],
  ["46", { ...both, type: "LoadBalancer" }, "46 46 RequireDualStack"],
  ["46", { ...headless, selector }, "None 4 SingleStack"],
  ["46", { ...headless, selector, ...prefer }, "None 46 PreferDualStack"],
  ["46", headless, "None 46 RequireDualStack"],
  ["46", named, "  "],
  ["64", {}, "6 6 SingleStack"],
  ["64", both, "64 64 RequireDualStack"],
  ["64", headless, "None 64 RequireDualStack"],
])("a cluster of %s: %j gets %s", async (cluster, spec, shape) => {
  expect(shapeOf(await make(cluster, "made", spec))).toBe(shape);
  await drop(cluster, "made");
});

const list = (...ips: string[]) => `[]string{${ips.map((ip) => `"${ip}"`).join(", ")}}`;
const policyOf = (policy: string) => `spec.ipFamilyPolicy: Invalid value: "${policy}": `;

test.each<[string, Spec, string]>([
  ["4", both, `${policyOf("RequireDualStack")}this cluster is not configured for dual-stack services`],
  ["4", { ...headless, selector, ...both }, "this cluster is not configured for dual-stack services"],
  ["4", { ipFamilies: ["IPv6"] }, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'],
  [
    "4",
    { ...prefer, ipFamilies: ["IPv4", "IPv6"] },
    'spec.ipFamilies[1]: Invalid value: "IPv6": not configured on this cluster',
  ],
  [
    "4",
    { clusterIP: "fd00:43::9" },
    `spec.clusterIPs[0]: Invalid value: ${list("fd00:43::9")}: IPv6 is not configured on this cluster`,
  ],
  ["46", { ipFamilyPolicy: "Both" }, 'spec.ipFamilyPolicy: Unsupported value: "Both": supported values: '],
  ["46", { ipFamilies: ["IPv5"] }, 'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"'],
  ["46", { ...both, ipFamilies: ["IPv4", "IPv4"] }, 'spec.ipFamilies[1]: Duplicate value: "IPv4"'],
  [
    "46",
    { ipFamilies: ["IPv4", "IPv6"] },
    `${policyOf("SingleStack")}must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified`,
  ],
  [
    "46",
    { clusterIP: "10.43.0.9", clusterIPs: ["10.43.0.9", "fd00:43::9"] },
    `${policyOf("SingleStack")}must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified`,
  ],
  [
    "46",
    { ...both, clusterIP: "10.43.0.9", clusterIPs: ["10.43.0.9", "10.43.0.8"] },
    `spec.clusterIPs: Invalid value: ${list("10.43.0.9", "10.43.0.8")}: may specify no more than one IP for each IP family`,
  ],
  [
    "46",
    { ...both, clusterIP: "10.43.0.9", clusterIPs: ["10.43.0.9", "fd00:43::8", "fd00:43::9"] },
    "may only hold up to 2 values",
  ],
  ["46", { clusterIPs: ["10.43.0.9"] }, "must be empty when `clusterIP` is not specified"],
  ["46", { clusterIP: "10.43.0.9", clusterIPs: ["10.43.0.8"] }, "first value must match `clusterIP`"],
  ["46", { clusterIP: "None", clusterIPs: ["None", "fd00:43::9"] }, "'None' must be the first and only value"],
  [
    "46",
    { ...both, clusterIP: "10.43.0.9", clusterIPs: ["10.43.0.9", "None"] },
    'spec.clusterIPs[1]: Invalid value: "None": must be a valid IP address',
  ],
  [
    "46",
    { clusterIP: "10.43.0.9", ipFamilies: ["IPv6"] },
    'spec.clusterIPs[0]: Invalid value: "10.43.0.9": expected an IPv6 value as indicated by `ipFamilies[0]`',
  ],
  [
    "46",
    { clusterIP: "fd00:44::9" },
    `spec.clusterIPs: Invalid value: ${list("fd00:44::9")}: failed to allocate IP fd00:44::9: the provided IP (fd00:44::9) is not in the valid range. The range of valid IPs is fd00:43::/112`,
  ],
  // More of a wide range is not looked at.
  ["64", { clusterIP: "fd00:43::1:0" }, "is not in the valid range. The range of valid IPs is fd00:43::/108"],
  ["46", { ...named, ...single }, "spec.ipFamilyPolicy: Forbidden: may not be set when `type` is 'ExternalName'"],
  ["46", { ...named, ipFamilies: ["IPv4"] }, "spec.ipFamilies: Forbidden: may not be set when"],
])("a cluster of %s: %j is refused: %s", async (cluster, spec, message) => {
  expect(await refusal(make(cluster, "refused", spec))).toContain(message);
});

test.each<[string, Spec, object, string]>([
  ["up by policy", {}, both, "46 46 RequireDualStack"],
  ["up if possible", {}, prefer, "46 46 PreferDualStack"],
  ["up with an address", {}, { ...both, clusterIPs: ["?", "fd00:43::55"] }, "46 46 RequireDualStack"],
  ["up from IPv6", { ipFamilies: ["IPv6"] }, both, "64 64 RequireDualStack"],
  ["down by policy", both, single, "4 4 SingleStack"],
  ["down to IPv6", { ...both, ipFamilies: ["IPv6"] }, single, "6 6 SingleStack"],
  ["down, all named", both, { ...single, clusterIPs: ["?"], ipFamilies: ["IPv4"] }, "4 4 SingleStack"],
  ["require becomes prefer", both, prefer, "46 46 PreferDualStack"],
  ["the address cleared", both, { clusterIP: null }, "46 46 RequireDualStack"],
  ["the addresses cleared", both, { clusterIPs: null }, "46 46 RequireDualStack"],
  [
    "all cleared",
    both,
    { clusterIP: null, clusterIPs: null, ipFamilies: null, ipFamilyPolicy: null },
    "46 46 RequireDualStack",
  ],
  ["something else", prefer, { sessionAffinity: "ClientIP" }, "46 46 PreferDualStack"],
  ["to a name", both, named, "  "],
  ["from a name", named, { type: "ClusterIP", externalName: null, ...both }, "46 46 RequireDualStack"],
  ["headless, up", { ...headless, selector }, prefer, "None 46 PreferDualStack"],
  ["headless, down", headless, single, "None 4 SingleStack"],
  ["headless, turned", headless, { ipFamilies: ["IPv6", "IPv4"] }, "None 64 RequireDualStack"],
])("a change: %s", async (_, spec, patch, shape) => {
  const made = await make("46", "changed", spec);
  const shown = JSON.parse(JSON.stringify(patch).replace('"?"', JSON.stringify(made.spec?.clusterIP))) as object;
  const now = await clusters["46"]!.client.patch(resources.services, at("changed"), { spec: shown });
  expect(shapeOf(now)).toBe(shape);
  const first = (service: Service) => service.spec?.clusterIPs?.[0];
  if (first(made) && first(now)) expect(first(now)).toBe(first(made));
  await drop("46", "changed");
});

test.each<[string, Spec, object, string]>([
  ["the first family", {}, { ipFamilies: ["IPv6"] }, "expected an IPv6 value as indicated by `ipFamilies[0]`"],
  [
    "the order of families",
    both,
    { ipFamilies: ["IPv6", "IPv4"] },
    "expected an IPv6 value as indicated by `ipFamilies[0]`",
  ],
  [
    "the first address",
    {},
    { clusterIP: "10.43.0.99" },
    'spec.clusterIPs[0]: Invalid value: []string{"10.43.0.99"}: may not change once set',
  ],
  ["to headless", {}, headless, "may not change once set"],
  ["from headless", { ...headless, selector }, { clusterIP: "10.43.0.99", ...single }, "may not change once set"],
  ["the second address", both, { clusterIPs: ["?", "fd00:43::99"] }, "spec.clusterIPs[1]: Invalid value: "],
  [
    "one address less",
    both,
    { clusterIPs: ["?"] },
    `${policyOf("RequireDualStack")}must be 'SingleStack' to release the secondary cluster IP`,
  ],
  [
    "one family less",
    prefer,
    { ipFamilies: ["IPv4"] },
    `${policyOf("PreferDualStack")}must be 'SingleStack' to release the secondary IP family`,
  ],
  [
    "a second address without policy",
    {},
    { clusterIPs: ["?", "fd00:43::99"] },
    "when multiple cluster IPs are specified",
  ],
])("a change that is refused: %s", async (_, spec, patch, message) => {
  const made = await make("46", "kept", spec);
  const shown = JSON.parse(JSON.stringify(patch).replace('"?"', JSON.stringify(made.spec?.clusterIP))) as object;
  const target = clusters["46"]!.client;
  expect(await refusal(target.patch(resources.services, at("kept"), { spec: shown }))).toContain(message);
  await drop("46", "kept");
  expect(
    shapeOf(await make("46", "free", { ...both, clusterIP: "10.43.0.99", clusterIPs: ["10.43.0.99", "fd00:43::99"] })),
  ).toBe("46 46 RequireDualStack");
  await drop("46", "free");
});

test("what a downgrade lets go of can be had at once, also when nothing was read since", async () => {
  for (const name of ["a", "b"]) {
    const spec = { ...both, clusterIP: "10.43.0.50", clusterIPs: ["10.43.0.50", "fd00:43::50"] };
    await make("46", name, name === "a" ? spec : { clusterIP: "fd00:43::50" });
    if (name === "a") await clusters["46"]!.client.patch(resources.services, at("a"), { spec: single });
  }
  expect(await refusal(make("46", "c", { clusterIP: "fd00:43::50" }))).toContain("provided IP is already allocated");
  // The same address written otherwise.
  expect(await refusal(make("46", "c", { clusterIP: "fd00:43:0::0050" }))).toContain("already allocated");
  for (const name of ["a", "b"]) await drop("46", name);
});

test("a full second range: the write fails and gives the first address back", async () => {
  const cluster = "46 small";
  for (let i = 0; i < 3; i++) await make(cluster, `v6-${i}`, { ipFamilies: ["IPv6"] });
  const wanted = { ...both, clusterIP: "10.43.0.60" };
  expect(await refusal(make(cluster, "one-more", wanted))).toContain("failed to allocate a serviceIP: range is full");
  expect(shapeOf(await make(cluster, "one-more", { clusterIP: "10.43.0.60" }))).toBe("4 4 SingleStack");
  expect(await refusal(clusters[cluster]!.client.patch(resources.services, at("one-more"), { spec: both }))).toContain(
    "range is full",
  );
  await drop(cluster, "v6-1");
  const up = await clusters[cluster]!.client.patch(resources.services, at("one-more"), { spec: both });
  expect(up.spec?.clusterIPs?.[1]).toMatch(/^fd00:43::[123]$/);
});
