// IP addresses and networks as Go's net/netip reads and prints them, and URLs as net/url does. What cannot be read is
// undefined or a text that says why; nothing throws.

/** 4 or 16 bytes. */
export type Address = Uint8Array;
export interface Network {
  readonly address: Address;
  readonly bits: number;
}

export function parseAddress(text: string): Address | undefined {
  return text.includes(":") ? parseV6(text) : parseV4(text);
}
function parseV4(text: string): Address | undefined {
  const parts = text.split(".", 5);
  if (parts.length !== 4 || text.length > 15) return undefined;
  const bytes = new Uint8Array(4);
  for (const [index, part] of parts.entries()) {
    if (!/^(?:0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    bytes[index] = Number(part);
  }
  return bytes;
}
function parseV6(text: string): Address | undefined {
  if (text.length > 45) return undefined;
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groupsOf(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? groupsOf(halves[1]!, true) : [];
  if (!head || !tail) return undefined;
  const count = head.length + tail.length;
  if (halves.length === 1 ? count !== 8 : count > 7) return undefined;
  const groups = [...head, ...new Array<number>(8 - count).fill(0), ...tail];
  const bytes = new Uint8Array(16);
  for (const [index, group] of groups.entries()) {
    bytes[2 * index] = group >> 8;
    bytes[2 * index + 1] = group & 0xff;
  }
  return bytes;
}
/** The last two groups may be written as an IPv4 address. */
function groupsOf(text: string, isLast: boolean): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [index, part] of parts.entries()) {
    if (isLast && index === parts.length - 1 && part.includes(".")) {
      const v4 = parseV4(part);
      if (!v4) return undefined;
      groups.push((v4[0]! << 8) | v4[1]!, (v4[2]! << 8) | v4[3]!);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}

export const isMapped = (address: Address): boolean =>
  address.length === 16 &&
  address.slice(0, 10).every((byte) => byte === 0) &&
  address[10] === 0xff &&
  address[11] === 0xff;

/** The canonical form (RFC 5952). */
export function formatAddress(address: Address): string {
  if (address.length === 4) return address.join(".");
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((address[i]! << 8) | address[i + 1]!);
  let best = { start: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > best.length) best = { start: i, length };
  }
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(":");
  return best.start < 0 ? hex(0, 8) : `${hex(0, best.start)}::${hex(best.start + best.length, 8)}`;
}

export function parseNetwork(text: string): Network | undefined {
  const slash = text.lastIndexOf("/");
  const bits = text.slice(slash + 1);
  const address = slash < 0 || !/^(?:0|[1-9]\d{0,2})$/.test(bits) ? undefined : parseAddress(text.slice(0, slash));
  if (!address || Number(bits) > address.length * 8) return undefined;
  return { address, bits: Number(bits) };
}
export function maskOf({ address, bits }: Network): Network {
  const masked = address.map((byte, index) => {
    const kept = Math.min(Math.max(bits - 8 * index, 0), 8);
    return byte & (0xff << (8 - kept)) & 0xff;
  });
  return { address: masked, bits };
}
export function containsAddress(network: Network, address: Address): boolean {
  if (network.address.length !== address.length) return false;
  return sameAddress(maskOf(network).address, maskOf({ address, bits: network.bits }).address);
}
export const sameAddress = (a: Address, b: Address): boolean =>
  a.length === b.length && a.every((byte, index) => byte === b[index]);

// URLs

export interface ParsedUrl {
  readonly scheme: string;
  /** With the port. */
  readonly host: string;
  readonly escapedPath: string;
  readonly query: string;
  /** The whole, as it was or as close as matters: two URLs are equal when these are. */
  readonly text: string;
}

/** As url.ParseRequestURI: an absolute URL or an absolute path. A string says what is wrong. */
export function parseUrl(text: string): ParsedUrl | string {
  const fail = (why: string): string => `parse ${JSON.stringify(text)}: ${why}`;
  if (/\p{Cc}/u.test(text)) return fail("net/url: invalid control character in URL");
  if (text === "") return fail("empty url");
  if (text === "*") return { scheme: "", host: "", escapedPath: "*", query: "", text };
  const colon = text.indexOf(":");
  const name = colon > 0 ? text.slice(0, colon) : "";
  const hasScheme = /^[a-zA-Z][a-zA-Z0-9+.-]*$/.test(name);
  if (colon === 0) return fail("missing protocol scheme");
  const scheme = hasScheme ? name.toLowerCase() : "";
  let rest = hasScheme ? text.slice(colon + 1) : text;
  const question = rest.indexOf("?");
  const query = question < 0 ? "" : rest.slice(question + 1);
  if (question >= 0) rest = rest.slice(0, question);
  if (!rest.startsWith("/")) {
    return scheme === "" ? fail("invalid URI for request") : { scheme, host: "", escapedPath: "", query, text };
  }
  let host = "";
  if (scheme !== "" && rest.startsWith("//")) {
    const end = rest.indexOf("/", 2);
    const authority = end < 0 ? rest.slice(2) : rest.slice(2, end);
    rest = end < 0 ? "" : rest.slice(end);
    const at = authority.lastIndexOf("@");
    if (at >= 0 && !/^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/.test(authority.slice(0, at)))
      return fail("net/url: invalid userinfo");
    host = authority.slice(at + 1);
    const why = hostProblem(host);
    if (why !== undefined) return fail(why);
  }
  const bad = /%(?![0-9a-fA-F]{2})/.exec(rest);
  if (bad) return fail(`invalid URL escape ${JSON.stringify(rest.slice(bad.index, bad.index + 3))}`);
  return { scheme, host, escapedPath: escapePath(rest), query, text };
}
function hostProblem(host: string): string | undefined {
  if (host.startsWith("[")) {
    const end = host.lastIndexOf("]");
    if (end < 0) return "missing ']' in host";
    return portProblem(host.slice(end + 1));
  }
  const colon = host.lastIndexOf(":");
  if (colon >= 0) {
    const why = portProblem(host.slice(colon));
    if (why !== undefined) return why;
  }
  const bad = /[^A-Za-z0-9\-._~!$&'()*+,;=:[\]<>"%\u0080-\uffff]/.exec(host);
  if (bad) return `invalid character ${JSON.stringify(bad[0])} in host name`;
  const broken = /%(?![0-9a-fA-F]{2})/.exec(host);
  return broken ? `invalid URL escape ${JSON.stringify(host.slice(broken.index, broken.index + 3))}` : undefined;
}
const portProblem = (text: string): string | undefined =>
  text === "" || /^:\d*$/.test(text) ? undefined : `invalid port ${JSON.stringify(text)} after host`;

/** Kept as written where that is a valid encoding. */
function escapePath(path: string): string {
  if (/^[A-Za-z0-9\-._~!$&'()*+,;=:@/[\]%]*$/.test(path)) return path;
  let out = "";
  for (const byte of new TextEncoder().encode(path)) {
    const char = String.fromCharCode(byte);
    out +=
      byte < 0x80 && /[A-Za-z0-9\-._~$&+,/:;=@%]/.test(char)
        ? char
        : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

export function portOf(host: string): string {
  const match = /^(?:\[[^\]]*\]|[^:]*):(\d*)$/.exec(host);
  return match?.[1] ?? "";
}
export function hostnameOf(host: string): string {
  const match = /^\[([^\]]*)\]/.exec(host);
  if (match) return match[1]!;
  const port = portOf(host);
  return port === "" ? host.replace(/:$/, "") : host.slice(0, -port.length - 1);
}

/** Pairs that cannot be read are left out, as url.Query does. */
export function parseQuery(query: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const pair of query.split("&")) {
    if (pair === "" || pair.includes(";")) continue;
    const equal = pair.indexOf("=");
    const key = unescapeQuery(equal < 0 ? pair : pair.slice(0, equal));
    const value = unescapeQuery(equal < 0 ? "" : pair.slice(equal + 1));
    if (key === undefined || value === undefined) continue;
    const values = found.get(key);
    if (values) values.push(value);
    else found.set(key, [value]);
  }
  return found;
}
function unescapeQuery(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return undefined;
  }
}
