// Network interfaces of Ethernet's kind, as sysfs lists them.
import { access, readdir, readFile } from "node:fs/promises";

export interface LinkFacts {
  readonly name: string;
  /** The kernel's number: an adapter that is pulled out and plugged in again has another. */
  readonly index: number;
  readonly mac: string;
  readonly isPhysical: boolean;
  readonly isWireless: boolean;
  readonly hasCarrier: boolean;
}

/** ARPHRD_ETHER; wireless links have it too. */
const ethernetType = "1";

/** Names of all links, of whatever kind. */
export const listLinkNames = (sysfs = "/sys"): Promise<string[]> => readdir(`${sysfs}/class/net`).catch(() => []);

/** Undefined for other kinds, and for a link that has gone. */
export async function readLink(name: string, sysfs = "/sys"): Promise<LinkFacts | undefined> {
  const folder = `${sysfs}/class/net/${name}`;
  if ((await text(`${folder}/type`)) !== ethernetType) return undefined;
  return {
    name,
    index: Number(await text(`${folder}/ifindex`)),
    mac: await text(`${folder}/address`),
    isPhysical: await exists(`${folder}/device`),
    isWireless: (await exists(`${folder}/wireless`)) || (await exists(`${folder}/phy80211`)),
    // Unreadable (EINVAL) while the link is down.
    hasCarrier: (await text(`${folder}/carrier`)) === "1",
  };
}

export async function listLinks(sysfs = "/sys"): Promise<LinkFacts[]> {
  const links: LinkFacts[] = [];
  for (const name of (await listLinkNames(sysfs)).sort()) {
    const link = await readLink(name, sysfs);
    if (link) links.push(link);
  }
  return links;
}

async function text(path: string): Promise<string> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch {
    // The link has gone, or has no answer in its present state.
    return "";
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
