// Facts about the machine that configuration defaults come from.
import { readFileSync } from "node:fs";
import { hostname, networkInterfaces } from "node:os";
import { hasCode } from "#base/errors.ts";

export const hostName = (): string => hostname();

export const isRoot = (): boolean => process.getuid?.() === 0;

/** GOARCH name of this machine, as OCI images and Node objects use it. */
export function ociArchitecture(): "amd64" | "arm64" | "arm" {
  if (process.arch === "x64") return "amd64";
  return process.arch === "arm64" ? "arm64" : "arm";
}

/** The interface that the IPv4 default route leaves by, if there is one. */
function defaultInterface(): string | undefined {
  let routes = "";
  try {
    routes = readFileSync("/proc/net/route", "utf8");
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
  }
  const fields = routes
    .split("\n")
    .slice(1)
    .map((line) => line.split("\t"));
  return fields.find(([, destination]) => destination === "00000000")?.[0];
}

/** Whether anything leads beyond the networks this machine is part of. */
export const hasDefaultRoute = (): boolean => defaultInterface() !== undefined;

/** Changes when this machine's addresses do, pods' and the link's own left out. Cheap: asks no other process. */
export function addressFingerprint(): string {
  const lines = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    /^(lo$|veth)/.test(name) ? [] : addresses.map(({ address, scopeid }) => (scopeid ? "" : `${name} ${address}`)),
  );
  return `${defaultInterface() ?? ""} ${lines.sort().join(" ")}`;
}

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
  const ownNetwork = /^(mote|cni|veth|docker|flannel|br-)/;
  return (
    Object.keys(interfaces)
      .filter((name) => !ownNetwork.test(name))
      .map(usable)
      .find((found) => found !== undefined) ?? "127.0.0.1"
  );
}
