import { expect, test } from "vitest";
import type { Sysctl } from "#platform/sysctl.ts";
import { ensureForwarding } from "./forwarding.ts";

const ra = (device: string) => `net/ipv6/conf/${device}/accept_ra`;
const off = { "net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0" };

test.each<[string, Record<string, string>, boolean, string[]]>([
  ["IPv4 alone", off, false, ["net.ipv4.ip_forward=1"]],
  [
    "where the kernel listens to routers it goes on to",
    { ...off, [ra("default")]: "1", [ra("eth0")]: "1", [ra("eth0.5")]: "0" },
    true,
    ["net.ipv4.ip_forward=1", `${ra("default")}=2`, `${ra("eth0")}=2`, "net.ipv6.conf.all.forwarding=1"],
  ],
  [
    "what forwards is left alone",
    { "net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", [ra("eth0")]: "1" },
    true,
    [],
  ],
  ["a kernel without IPv6", { "net.ipv4.ip_forward": "1" }, true, []],
])("%s", async (_, given, hasIpv6, expected) => {
  const written: string[] = [];
  const sysctl: Sysctl = {
    read: async (name) => given[name],
    write: async (name, value) => void written.push(`${name}=${value}`),
  };
  await ensureForwarding(sysctl, { hasIpv6, devices: ["eth0", "eth0.5"] });
  expect(written).toEqual(expected);
});
