// Host names through the system's resolver.
import { lookup } from "node:dns/promises";

/** IPv4 addresses of a name or a literal address; empty when it is not known. */
export async function resolveHost(name: string): Promise<string[]> {
  try {
    return (await lookup(name, { family: 4, all: true })).map((one) => one.address);
  } catch {
    // No network, no server, no such name: all mean "not now".
    return [];
  }
}
