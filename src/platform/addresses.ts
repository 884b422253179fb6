// Sets of addresses, by the system's own reading of them.
import { BlockList, isIP, isIPv6 } from "node:net";

/** Whether an IP address lies in one of `cidrs`, which must be valid. */
export function addressSet(cidrs: readonly string[]): (address: string) => boolean {
  const set = new BlockList();
  const family = (address: string) => (isIPv6(address) ? "ipv6" : "ipv4");
  for (const cidr of cidrs) {
    const [network = "", bits = ""] = cidr.split("/");
    set.addSubnet(network, Number(bits), family(network));
  }
  return (address) => set.check(address, family(address));
}

/** 4 or 6; 0 where it is no address, or one that means something on one machine only (fe80::1%eth0). */
export const addressFamily = (text: string): 0 | 4 | 6 => (text.includes("%") ? 0 : (isIP(text) as 0 | 4 | 6));
