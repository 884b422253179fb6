// The hardware address of a node's VXLAN devices, made of its name: always the same, so that peers need not be told after a
// reboot, and a new flash card with the old name takes the old one's place.
import { createHash } from "node:crypto";

/** Locally administered, unicast. */
export function vtepMac(nodeName: string): string {
  const bytes = createHash("sha256").update(`overlay ${nodeName}`).digest().subarray(0, 6);
  bytes[0] = (bytes[0]! & 0xfc) | 0x02;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
