// Network interfaces of Ethernet's kind, as sysfs lists them.
import { access, readdir, readFile } from "node:fs/promises";
import { hasCode } from "#base/errors.ts";

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

/** What the kernel says of a link that has gone, or that has no answer in its present state. Anything else is a failure. */
const absent = ["ENOENT", "EINVAL", "ENODEV"] as const;
const isAbsent = (error: unknown): boolean => absent.some((code) => hasCode(error, code));

/** Names of all links, of whatever kind; none where there is no sysfs. */
export async function listLinkNames(sysfs = "/sys"): Promise<string[]> {
  try {
    return await readdir(`${sysfs}/class/net`);
  } catch (error) {
    // Whoever cannot read it must not take all links for gone.
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}

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
  } catch (error) {
    if (isAbsent(error)) return "";
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}
