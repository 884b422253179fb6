// Which resolvers the machine uses. Pure parsing; the files are read in cluster-dns.ts.
export const stubResolvers: readonly string[] = ["127.0.0.53", "127.0.0.54"];

/** The addresses of `nameserver` lines, in order, without duplicates. */
export function nameserversOf(text: string): string[] {
  const out = new Set<string>();
  for (const line of text.split("\n")) {
    const match = /^\s*nameserver\s+([0-9A-Fa-f:.]+)/.exec(line);
    if (match?.[1]) out.add(match[1]);
  }
  return [...out];
}

/**
 * Resolvers to forward to. systemd's stub stands for those in its own file, which spares a hop and a loop where the stub
 * was told to ask us; our own addresses never are resolvers.
 */
export function upstreamsOf(
  resolvConf: string | undefined,
  systemdResolvConf: string | undefined,
  ownAddresses: ReadonlySet<string>,
): string[] {
  const listed = nameserversOf(resolvConf ?? "");
  const isStub = listed.some((address) => stubResolvers.includes(address));
  const real = isStub && systemdResolvConf !== undefined ? nameserversOf(systemdResolvConf) : [];
  const chosen = real.length > 0 ? real : listed;
  return chosen.filter((address) => !ownAddresses.has(address));
}
