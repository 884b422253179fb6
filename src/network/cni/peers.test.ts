import { describe, expect, test } from "vitest";
import type { Node } from "#model/gen/core-v1.ts";
import { externalIpsOf, noAnnotations, overlayFacts, ownAnnotations, peersOf } from "./peers.ts";

const prefix = "flannel.alpha.coreos.com/";
const mac = "de:ad:be:ef:00:01";
const flannel = {
  "backend-type": "vxlan",
  "backend-data": `{"VNI":1,"VtepMAC":"${mac}"}`,
  "kube-subnet-manager": "true",
  "public-ip": "192.0.2.2",
};
function node(name: string, podCIDR: string | undefined, told: Readonly<Record<string, string>>, more = {}): Node {
  const annotations = Object.fromEntries(Object.entries(told).map(([key, value]) => [`${prefix}${key}`, value]));
  const spec = podCIDR ? { podCIDR, podCIDRs: podCIDR.split(",") } : {};
  return { metadata: { name, annotations: { ...annotations, ...more } }, spec } as Node;
}
const me = node("me", "10.42.0.0/24", flannel);
const options = { nodeName: "me", vtepMac: "de:ad:be:ef:00:ff", clusterCidrs: ["10.42.0.0/16", "fd00:42::/48"] };

describe("peers", () => {
  test("a node of k3s", () => {
    expect(peersOf([node("b", "10.42.1.0/24", flannel), me], options)).toEqual([
      {
        name: "b",
        backend: "vxlan",
        mtu: undefined,
        sides: { 4: { subnet: "10.42.1.0/24", publicIp: "192.0.2.2", vtepMac: mac } },
      },
    ]);
  });
  test("both families, and an MTU", () => {
    const six = { "public-ipv6": "2001:db8::2", "backend-v6-data": `{"VNI":1,"VtepMAC":"${mac.toUpperCase()}"}` };
    const more = { "mote.local/overlay-mtu": "1350" };
    const [peer] = peersOf([node("b", "10.42.1.0/24,fd00:42:0:1::/64", { ...flannel, ...six }, more)], options);
    expect(peer?.mtu).toBe(1350);
    expect(peer?.sides[6]).toEqual({ subnet: "fd00:42:0:1::/64", publicIp: "2001:db8::2", vtepMac: mac });
  });

  const newline = "10.42.1.0/24\nlink delete dev eth0";
  test.each<[string, Node]>([
    ["that has no range yet", node("b", undefined, flannel)],
    ["that has not been told of", node("b", "10.42.1.0/24", {})],
    ["of another manager", node("b", "10.42.1.0/24", { ...flannel, "kube-subnet-manager": "false" })],
    ["with a range that is not the cluster's", node("b", "192.0.2.0/24", flannel)],
    ["that claims everything", node("b", "0.0.0.0/0", flannel)],
    ["with our own range", node("b", "10.42.0.0/24", flannel)],
    ["whose range is a command", node("b", newline, flannel)],
    ["whose address is a command", node("b", "10.42.1.0/24", { ...flannel, "public-ip": "192.0.2.2\nlink" })],
    ["with a zone", node("b", "fd00:42::/64", { ...flannel, "public-ipv6": "fe80::1%eth0" })],
    ["whose address is of the other family", node("b", "10.42.1.0/24", { ...flannel, "public-ip": "2001:db8::2" })],
  ])("none is one %s", (_, other) => {
    expect(peersOf([me, other], options)).toEqual([]);
  });

  test("an address of IPv6 is taken as the kernel prints it", () => {
    const six = { ...flannel, "public-ipv6": "2001:DB8:0::2" };
    const [peer] = peersOf([node("b", "fd00:42:0:0::/64", six)], options);
    expect(peer?.sides[6]).toMatchObject({ subnet: "fd00:42::/64", publicIp: "2001:db8::2" });
  });

  test("of two with one range the first has it", () => {
    const both = [node("c", "10.42.1.0/24", flannel), node("b", "10.42.1.0/24", flannel)];
    expect(peersOf(both, options).map(({ name }) => name)).toEqual(["b"]);
  });

  test("nobody takes another's device for his, nor ours", () => {
    const claims = (n: number, vtepMac: string) =>
      node(`n${n}`, `10.42.${n}.0/24`, { ...flannel, "backend-data": `{"VNI":1,"VtepMAC":"${vtepMac}"}` });
    const found = peersOf([claims(1, mac), claims(2, mac), claims(3, options.vtepMac)], options);
    expect(found.map(({ sides }) => sides[4]?.vtepMac)).toEqual([mac, undefined, undefined]);
  });

  test.each([
    ["no JSON", "{"],
    ["null", "null"],
    ["a list", "[]"],
    ["another number", `{"VNI":2,"VtepMAC":"${mac}"}`],
    ["a command", `{"VtepMAC":"${mac} dev eth0"}`],
    ["of WireGuard", '{"PublicKey":"abc"}'],
  ])("device data that is %s names no device", (_, data) => {
    const [peer] = peersOf([node("b", "10.42.1.0/24", { ...flannel, "backend-data": data })], options);
    expect(peer?.sides[4]).toMatchObject({ vtepMac: undefined });
  });
});

describe("own annotations", () => {
  const facts = {
    backend: "vxlan" as const,
    publicIps: { 4: "192.0.2.1", 6: "2001:db8::1" },
    vtepMac: mac,
    mtu: 1450,
    externalIps: {},
  };
  const apply = (to: Node, change: Record<string, string | null> | undefined): Node => {
    const all = { ...to.metadata.annotations, ...change };
    const annotations = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null));
    return { ...to, metadata: { ...to.metadata, annotations } } as Node;
  };
  test("as flannel writes them, once", () => {
    const fresh = node("me", "10.42.0.0/24", {});
    const written = ownAnnotations(fresh, facts);
    expect(written).toMatchObject({
      [`${prefix}backend-type`]: "vxlan",
      [`${prefix}backend-data`]: `{"VNI":1,"VtepMAC":"${mac}"}`,
      [`${prefix}kube-subnet-manager`]: "true",
      [`${prefix}public-ip`]: "192.0.2.1",
      [`${prefix}public-ipv6`]: null,
    });
    const after = apply(fresh, written);
    expect(ownAnnotations(after, facts)).toBeUndefined();
    expect(ownAnnotations(after, { ...facts, publicIps: { 4: "192.0.2.9" } })).toBeDefined();
    expect(overlayFacts(after)).not.toBe(overlayFacts(fresh));
    expect(overlayFacts({ ...after, status: { conditions: [] } } as unknown as Node)).toBe(overlayFacts(after));
  });
  test.each([
    ["an overwrite stays and counts", { "public-ip-overwrite": "203.0.113.9" }, undefined, "203.0.113.9"],
    ["a wrong one does not", { "public-ip-overwrite": "nowhere" }, undefined, "192.0.2.1"],
    ["an external address counts most", { "public-ip-overwrite": "203.0.113.9" }, "198.51.100.7", "198.51.100.7"],
  ])("%s", (_, told, externalIp, expected) => {
    const written = ownAnnotations(node("me", "10.42.0.0/24", told), {
      ...facts,
      externalIps: externalIp === undefined ? {} : { 4: externalIp, 6: "2001:db8::7" },
    });
    expect(written?.[`${prefix}public-ipv6`]).toBeNull();
    expect(written?.[`${prefix}public-ip`]).toBe(expected);
  });
  test.each([
    ["the own address", {}, {}, "2001:db8::1"],
    ["an overwrite", { "public-ipv6-overwrite": "2001:db8::9" }, {}, "2001:db8::9"],
    ["none of the other family", { "public-ip-overwrite": "203.0.113.9" }, { 4: "198.51.100.7" }, "2001:db8::1"],
    ["an external address", { "public-ipv6-overwrite": "2001:db8::9" }, { 6: "2001:db8::7" }, "2001:db8::7"],
  ])("over IPv6 %s", (_, told, externalIps, expected) => {
    const written = ownAnnotations(node("me", "10.42.0.0/24,fd00:42::/64", told), { ...facts, externalIps });
    expect(written).toMatchObject({
      [`${prefix}public-ipv6`]: expected,
      [`${prefix}backend-v6-data`]: `{"VNI":1,"VtepMAC":"${mac}"}`,
    });
  });
  test("external addresses are the first of each family", () => {
    const addresses = [
      "InternalIP 192.0.2.1",
      "ExternalIP 2001:db8::7",
      "ExternalIP 203.0.113.7",
      "ExternalIP 203.0.113.8",
    ];
    const status = {
      addresses: addresses.map((text) => ({ type: text.split(" ")[0]!, address: text.split(" ")[1]! })),
    };
    expect(externalIpsOf({ ...me, status })).toEqual({ 4: "203.0.113.7", 6: "2001:db8::7" });
  });
  test("with host-gw there is no data; without an overlay nothing, unless it is another's", () => {
    const after = apply(node("me", "10.42.0.0/24", {}), ownAnnotations(node("me", "10.42.0.0/24", {}), facts));
    expect(ownAnnotations(after, { ...facts, backend: "host-gw" })?.[`${prefix}backend-data`]).toBe("null");
    expect(apply(after, noAnnotations(after)).metadata.annotations).toEqual({});
    expect(noAnnotations(me)).toBeUndefined();
  });
});
