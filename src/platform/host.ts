// Facts about the machine that configuration defaults come from.
import { readFileSync } from "node:fs";
import { hostname, networkInterfaces } from "node:os";
import { hasCode } from "#base/errors.ts";
import { canonicalIp } from "#base/ip-range.ts";

export const hostName = (): string => hostname();

export const isRoot = (): boolean => process.getuid?.() === 0;

/** GOARCH name of this machine, as OCI images and Node objects use it. */
export function ociArchitecture(): "amd64" | "arm64" | "arm" {
  if (process.arch === "x64") return "amd64";
  return process.arch === "arm64" ? "arm64" : "arm";
}

/** Lines of a table of the kernel, in fields; none where the kernel does not have it. */
function kernelTable(path: string): string[][] {
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
  }
  return text.split("\n").map((line) => line.trim().split(/\s+/));
}

/** The interface that the IPv4 default route leaves by, if there is one. */
const defaultInterface = (): string | undefined =>
  kernelTable("/proc/net/route").find(([, destination]) => destination === "00000000")?.[0];

/** Containers' and tunnels' own: nobody reaches the machine by them. */
const ownNetwork = /^(mote|cni|veth|docker|flannel|br-)/;

/** As IPv6 has it, which follows the device's: sysfs may show another network namespace's devices. "" where it is off. */
const mtuOf = (name: string): string =>
  name.includes("/") ? "" : (kernelTable(`/proc/sys/net/ipv6/conf/${name}/mtu`)[0]?.[0] ?? "");

/** Whether anything leads beyond the networks this machine is part of. */
export const hasDefaultRoute = (): boolean => defaultInterface() !== undefined;

/**
 * Changes when this machine's addresses do, or the largest packet of its networks; pods' and the link's own left out. Cheap: asks
 * no other process.
 */
export function addressFingerprint(): string {
  const lines = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    /^(lo$|veth)/.test(name)
      ? []
      : [
          ...(ownNetwork.test(name) ? [] : [`${name} mtu ${mtuOf(name)}`]),
          ...addresses.map(({ address, scopeid }) => (scopeid ? "" : `${name} ${address}`)),
        ],
  );
  return `${defaultInterface() ?? ""} ${lines.sort().join(" ")}`;
}

/** All that this machine has on devices that are up, loopback and pods' networks too. */
export const machineAddresses = (): string[] =>
  Object.values(networkInterfaces()).flatMap((addresses = []) => addresses.map(({ address }) => address));

/**
 * IPv4 address of the interface with the default route; else the first that is neither loopback nor a container
 * network's; else 127.0.0.1, so that a machine without any network still starts.
 */
export function defaultAddress(): string {
  const interfaces = networkInterfaces();
  const usable = (name: string) => interfaces[name]?.find((a) => a.family === "IPv4" && !a.internal)?.address;
  const outward = defaultInterface();
  const address = outward === undefined ? undefined : usable(outward);
  if (address) return address;
  return (
    Object.keys(interfaces)
      .filter((name) => !ownNetwork.test(name))
      .map(usable)
      .find((found) => found !== undefined) ?? "127.0.0.1"
  );
}

/** An address that the kernel made up for privacy, is about to lose, has found twice, or does not know to be its own yet. */
const passingAddress = 0x01 | 0x08 | 0x20 | 0x40;

/**
 * IPv6 address that others reach this machine at: of the interface with the IPv4 default route, else of that with the IPv6
 * one, else of any other network. Undefined where there is none, or only such as mean something on one link.
 */
export function defaultIpv6Address(): string | undefined {
  const usable = kernelTable("/proc/net/if_inet6").filter(
    ([, , , scope, flags, name = ""]) =>
      scope === "00" && (Number.parseInt(flags ?? "", 16) & passingAddress) === 0 && !/^lo$/.test(name),
  );
  const zero = "0".repeat(32);
  const outward = kernelTable("/proc/net/ipv6_route").find(
    (fields) => fields[0] === zero && fields[1] === "00" && fields.at(-1) !== "lo",
  );
  const on = (wanted: string | undefined) => usable.find(([, , , , , name]) => name === wanted)?.[0];
  const digits =
    on(defaultInterface()) ??
    on(outward?.at(-1)) ??
    usable.find(([, , , , , name = ""]) => !ownNetwork.test(name))?.[0];
  return digits === undefined ? undefined : canonicalIp(digits.replaceAll(/.{4}(?!$)/g, "$&:"));
}
