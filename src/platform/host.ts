// Facts about the machine that configuration defaults come from.
import { readFileSync } from "node:fs";
import { hostname, networkInterfaces } from "node:os";

export const hostName = (): string => hostname();

export const isRoot = (): boolean => process.getuid?.() === 0;

/** GOARCH name of this machine, as OCI images and Node objects use it. */
export function ociArchitecture(): "amd64" | "arm64" | "arm" {
  if (process.arch === "x64") return "amd64";
  return process.arch === "arm64" ? "arm64" : "arm";
}

/**
 * IPv4 address of the interface with the default route; else the first that is neither loopback nor a container
 * network's; else 127.0.0.1, so that a machine without any network still starts.
 */
export function defaultAddress(): string {
  const interfaces = networkInterfaces();
  const usable = (name: string) => interfaces[name]?.find((a) => a.family === "IPv4" && !a.internal)?.address;
  let routes = "";
  try {
    routes = readFileSync("/proc/net/route", "utf8");
  } catch {
    // Not Linux or no /proc: fall through to the first interface.
  }
  for (const line of routes.split("\n").slice(1)) {
    const [name, destination] = line.split("\t");
    const address = name && destination === "00000000" ? usable(name) : undefined;
    if (address) return address;
  }
  const ownNetwork = /^(mote|cni|veth|docker|flannel|br-)/;
  for (const name of Object.keys(interfaces)) {
    const address = ownNetwork.test(name) ? undefined : usable(name);
    if (address) return address;
  }
  return "127.0.0.1";
}
