// Network interfaces of Ethernet's kind, as sysfs lists them.
import { access, readdir, readFile } from "node:fs/promises";

export interface LinkFacts {
  readonly name: string;
  readonly mac: string;
  readonly isPhysical: boolean;
  readonly isWireless: boolean;
  readonly hasCarrier: boolean;
}

/** ARPHRD_ETHER; wireless links have it too. */
const ethernetType = "1";

export async function listLinks(sysfs = "/sys"): Promise<LinkFacts[]> {
  const links: LinkFacts[] = [];
  for (const name of (await readdir(`${sysfs}/class/net`).catch(() => [])).sort()) {
    const folder = `${sysfs}/class/net/${name}`;
    if ((await text(`${folder}/type`)) !== ethernetType) continue;
    const isWireless = (await exists(`${folder}/wireless`)) || (await exists(`${folder}/phy80211`));
    links.push({
      name,
      mac: await text(`${folder}/address`),
      isPhysical: await exists(`${folder}/device`),
      isWireless,
      // Unreadable (EINVAL) while the link is down.
      hasCarrier: (await text(`${folder}/carrier`)) === "1",
    });
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
