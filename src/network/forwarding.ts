// Lets the machine pass packets of pods on. A machine that forwards IPv6 no longer listens to routers' advertisements unless
// it is told to, and would lose its own address and default route with their next end: where it listened, it goes on to.
// Who reads advertisements outside of the kernel (networkd, NetworkManager) has switched that off, and is left alone.
import type { Sysctl } from "#platform/sysctl.ts";

export interface ForwardingOptions {
  readonly hasIpv6: boolean;
  /** Those that the machine's own networks are at. */
  readonly devices: readonly string[];
}

const all = { 4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding" } as const;

export async function ensureForwarding(sysctl: Sysctl, { hasIpv6, devices }: ForwardingOptions): Promise<void> {
  if ((await sysctl.read(all[4])) === "0") await sysctl.write(all[4], "1");
  if (!hasIpv6 || (await sysctl.read(all[6])) !== "0") return;
  for (const device of ["default", ...devices]) {
    const name = `net/ipv6/conf/${device}/accept_ra`;
    if ((await sysctl.read(name)) === "1") await sysctl.write(name, "2");
  }
  await sysctl.write(all[6], "1");
}
