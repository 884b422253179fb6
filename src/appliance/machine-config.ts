// `mote.yaml`: the keys of config.yaml, which configure the server, and a `machine:` block, which configures the device.
// Strict and forgiving at once: every unknown key and every bad value becomes a sentence with key, value and what is
// allowed, and the device starts with the rest. Secrets never appear in a sentence. Pure; the keys of config.yaml belong to
// the command line, which hands them in.
import { messageOf } from "#base/errors.ts";
import { canonicalIp, familyOfIp, parseIpRange } from "#base/ip-range.ts";
import { parseYaml } from "#wire/yaml.ts";
import { checkServer } from "./token-file.ts";

export interface InterfaceConfig {
  /** One of the two, or neither: then the first wired link. */
  readonly name?: string;
  readonly mac?: string;
  readonly dhcp: boolean;
  /** ADDRESS/BITS. */
  readonly addresses: readonly string[];
  /** At most one of each IP family. */
  readonly gateways: readonly string[];
  /** Addresses belong to this VLAN over the link, not to the link itself. */
  readonly vlan?: number;
  readonly mtu?: number;
}

export interface WifiConfig {
  readonly ssid: string;
  /** Absent: an open network. */
  readonly password?: string;
  readonly hidden: boolean;
}

export interface MachineConfig {
  readonly hostname?: string;
  readonly interfaces: readonly InterfaceConfig[];
  readonly wifi: readonly WifiConfig[];
  /** Two letters: which channels the radio may use. */
  readonly wifiCountry?: string;
  readonly proxy: { readonly http?: string; readonly https?: string; readonly exclude: readonly string[] };
  /** Empty: time is not asked for. */
  readonly ntp: readonly string[];
  readonly dns: { readonly servers: readonly string[]; readonly search: readonly string[] };
  /** The clock is never set to an earlier time, ms since 1970. */
  readonly notBeforeMs?: number;
  readonly watchdog: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

export interface MoteConfig {
  /** Keys of config.yaml that were accepted, as written. */
  readonly server: Readonly<Record<string, unknown>>;
  readonly machine: MachineConfig;
  /** `https://HOST:PORT` of the server to join, as k3s' agents have it in their config.yaml. */
  readonly joins?: string;
  /** One sentence each. */
  readonly problems: readonly string[];
}

/** What the command line knows about the keys of config.yaml. */
export interface ServerKeys {
  readonly names: readonly string[];
  /** Throws with a sentence that names key, value and what is allowed. */
  check(key: string, value: unknown): void;
}

/** Decided by the device: another value would lose data or hide the server. */
const reservedKeys = ["config", "data-dir", "run-dir", "write-kubeconfig", "write-kubeconfig-mode", "disable-agent"];
const defaultNtpServers = ["0.debian.pool.ntp.org", "1.debian.pool.ntp.org"];
/** More of anything is a mistake. */
const maxItems = 32;

export const defaultMachineConfig: MachineConfig = {
  interfaces: [],
  wifi: [],
  proxy: { exclude: [] },
  ntp: defaultNtpServers,
  dns: { servers: [], search: [] },
  watchdog: true,
  labels: {},
};

/** Throws only where the text is no YAML map at all. */
export function parseMoteYaml(text: string, keys: ServerKeys): MoteConfig {
  const document = parseYaml(text) ?? {};
  if (!isMap(document)) throw new Error("a map of keys to values is expected");
  const problems: string[] = [];
  const server: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(document)) {
    if (key === "machine" || key === "server") continue;
    const name = key.endsWith("+") ? key.slice(0, -1) : key;
    if (reservedKeys.includes(name)) {
      problems.push(`${key}: is not allowed here; the device decides it`);
    } else if (!keys.names.includes(name)) {
      problems.push(`${key}: unknown key${nearest(name, ["machine", ...keys.names])}`);
    } else {
      try {
        keys.check(name, value);
        server[name] = value;
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
  }
  let joins: string | undefined;
  try {
    const given = document["server"] ?? undefined;
    if (given !== undefined) joins = checkServer(scalarText(given) ?? "");
  } catch (error) {
    problems.push(messageOf(error));
  }
  const machine = readMachine(document["machine"], problems);
  return { server, machine, ...(joins === undefined ? {} : { joins }), problems };
}

interface Field {
  readonly allowed: string;
  /** The value in its final form, or undefined where it is not allowed. */
  readonly read: (value: unknown) => unknown;
  /** Never repeated in a sentence. */
  readonly secret?: boolean;
}
type Fields = Readonly<Record<string, Field>>;

const matching = (pattern: RegExp, allowed: string, change: (text: string) => string = (text) => text): Field => ({
  allowed,
  read: (value) => {
    const text = scalarText(value);
    return text !== undefined && pattern.test(text) ? change(text) : undefined;
  },
});
const wholeNumber = (min: number, max: number): Field => ({
  allowed: `a whole number from ${min} to ${max}`,
  read: (value) =>
    Number.isInteger(value) && (value as number) >= min && (value as number) <= max ? value : undefined,
});
const yesOrNo: Field = { allowed: "true or false", read: (value) => (typeof value === "boolean" ? value : undefined) };
/** A list, or one item that stands for a list of one. */
const listOf = (item: Field): Field => ({
  allowed: `a list of: ${item.allowed}`,
  read: (value) => {
    const items = (Array.isArray(value) ? value : [value]).map((one) => item.read(one));
    return items.length > maxItems || items.includes(undefined) ? undefined : items;
  },
});

const hostPattern = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/i;
const domainPattern = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/i;
const lower = (text: string) => text.toLowerCase();
const ipAddress: Field = {
  allowed: "an IP address such as 192.168.1.2",
  read: (value) => (isText(value) ? canonicalIp(value) : undefined),
};
const addressWithBits: Field = {
  allowed: "an IP address with prefix length such as 192.168.1.2/24",
  read: (value) => {
    const [address = "", bits = ""] = isText(value) ? value.split("/") : [];
    const ip = isText(value) && parseIpRange(value) ? canonicalIp(address) : undefined;
    return ip !== undefined && bits !== "0" ? `${ip}/${bits}` : undefined;
  },
};
/** A list, or one item; each of another IP family. */
const gatewayList: Field = {
  allowed: "an IP address such as 192.168.1.1, or a list with one of each IP family",
  read: (value) => {
    const items = listOf(ipAddress).read(value) as readonly string[] | undefined;
    return items && new Set(items.map(familyOfIp)).size === items.length ? items : undefined;
  },
};
const hostOrAddress = matching(domainPattern, "a host name or an IPv4 address", lower);
const proxyUrl = matching(/^https?:\/\/[^\s/]+\/?$/i, "a URL such as http://proxy.example:3128");

const interfaceFields: Fields = {
  name: matching(/^[^\s/:.][^\s/:]{0,14}$/, "the name of a network interface such as eth0, at most 15 characters"),
  mac: matching(/^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$/i, "a hardware address such as 52:54:00:12:34:56", (text) =>
    text.toLowerCase().replaceAll("-", ":"),
  ),
  dhcp: yesOrNo,
  addresses: listOf(addressWithBits),
  gateway: gatewayList,
  vlan: wholeNumber(1, 4094),
  mtu: wholeNumber(576, 9216),
};
const wifiFields: Fields = {
  ssid: {
    allowed: "the network's name, 1 to 32 bytes",
    read: (value) => {
      const text = scalarText(value);
      const size = text === undefined ? 0 : new TextEncoder().encode(text).length;
      return size >= 1 && size <= 32 ? text : undefined;
    },
  },
  password: {
    ...matching(
      /^([\x20-\x7e]{8,63}|[0-9a-f]{64})$/,
      "8 to 63 ASCII characters, or 64 hexadecimal digits; in quotes when it is a number",
    ),
    secret: true,
  },
  hidden: yesOrNo,
  country: matching(/^[A-Z]{2}$/i, "a country code of two letters such as DE", (text) => text.toUpperCase()),
};
const proxyFields: Fields = {
  http: { ...proxyUrl, secret: true },
  https: { ...proxyUrl, secret: true },
  exclude: listOf(matching(/^[^\s,]+$/, "a host, domain or address range without blanks")),
};
const dnsFields: Fields = {
  servers: listOf(ipAddress),
  search: listOf(matching(domainPattern, "a domain name", lower)),
};
const clockFields: Fields = {
  notBefore: {
    allowed: "a date such as 2026-11-21 or 2026-11-21T08:00:00Z",
    read: (value) => {
      const isDate = isText(value) && /^20\d\d-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?$/.test(value);
      const ms = isDate ? Date.parse(value) : Number.NaN;
      return Number.isNaN(ms) ? undefined : ms;
    },
  },
};
const ntpFields: Fields = { servers: listOf(hostOrAddress), enabled: yesOrNo };
const machineKeys = ["hostname", "interfaces", "wifi", "proxy", "ntp", "dns", "clock", "watchdog", "labels"];
const labelKey = /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const labelValue = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;

function readMachine(value: unknown, problems: string[]): MachineConfig {
  if (value === undefined || value === null) return defaultMachineConfig;
  if (!isMap(value)) {
    problems.push(`machine: ${shown(value)} is not allowed; use a map with ${machineKeys.join(", ")}`);
    return defaultMachineConfig;
  }
  for (const key of Object.keys(value)) {
    if (!machineKeys.includes(key)) problems.push(`machine.${key}: unknown key${nearest(key, machineKeys)}`);
  }
  const at = (key: string) => value[key] ?? undefined;
  const block = (key: string, fields: Fields) => readFields(`machine.${key}`, at(key), fields, problems);
  const hostname = readFields(
    "machine",
    { hostname: at("hostname"), watchdog: at("watchdog") },
    {
      hostname: matching(hostPattern, "letters, digits and '-', at most 63 characters", lower),
      watchdog: yesOrNo,
    },
    problems,
  );
  const wifi = readItems("machine.wifi", at("wifi"), wifiFields, problems).filter((network, i) => {
    if (network["ssid"] === undefined)
      problems.push(`machine.wifi[${i}].ssid: is missing; without it the entry is skipped`);
    return network["ssid"] !== undefined;
  });
  // A list alone means the servers, as with `ntp: [a, b]`.
  const shortList = (given: unknown) => (Array.isArray(given) || isText(given) ? { servers: given } : given);
  const ntp = readFields(
    "machine.ntp",
    at("ntp") === false ? { enabled: false } : shortList(at("ntp")),
    ntpFields,
    problems,
  );
  const dns = readFields("machine.dns", shortList(at("dns")), dnsFields, problems);
  const proxy = block("proxy", proxyFields);
  const clock = block("clock", clockFields);
  const country = wifi.find((network) => network["country"] !== undefined)?.["country"];
  return {
    ...pick(hostname, "hostname"),
    interfaces: readInterfaces(at("interfaces"), problems),
    wifi: wifi.map(
      (network) => ({ ...pick(network, "ssid", "password"), hidden: network["hidden"] === true }) as WifiConfig,
    ),
    ...(country === undefined ? {} : { wifiCountry: country as string }),
    proxy: { ...pick(proxy, "http", "https"), exclude: strings(proxy["exclude"]) },
    ntp: ntp["enabled"] === false ? [] : ntp["servers"] === undefined ? defaultNtpServers : strings(ntp["servers"]),
    dns: { servers: strings(dns["servers"]), search: strings(dns["search"]) },
    ...(clock["notBefore"] === undefined ? {} : { notBeforeMs: clock["notBefore"] as number }),
    watchdog: hostname["watchdog"] !== false,
    labels: readLabels(at("labels"), problems),
  };
}

function readInterfaces(value: unknown, problems: string[]): InterfaceConfig[] {
  const result: InterfaceConfig[] = [];
  for (const [i, given] of readItems("machine.interfaces", value, interfaceFields, problems).entries()) {
    const where = `machine.interfaces[${i}]`;
    const addresses = strings(given["addresses"]);
    if (given["gateway"] !== undefined && addresses.length === 0) {
      problems.push(`${where}.gateway: has no meaning without addresses; it is skipped`);
    }
    if (given["dhcp"] === false && addresses.length === 0) {
      problems.push(`${where}: neither dhcp nor addresses; the interface stays without address`);
    }
    result.push({
      ...pick(given, "name", "mac", "vlan", "mtu"),
      dhcp: given["dhcp"] === undefined ? addresses.length === 0 : given["dhcp"] === true,
      addresses,
      gateways: addresses.length > 0 ? strings(given["gateway"]) : [],
    } as InterfaceConfig);
  }
  return result;
}

function readLabels(value: unknown, problems: string[]): Record<string, string> {
  const labels: Record<string, string> = {};
  if (value === undefined) return labels;
  if (!isMap(value)) {
    problems.push(`machine.labels: ${shown(value)} is not allowed; use a map of label names to values`);
    return labels;
  }
  for (const [key, one] of Object.entries(value)) {
    const text = scalarText(one ?? "");
    if (!labelKey.test(key)) problems.push(`machine.labels: ${shown(key)} is not allowed as a name; use [PREFIX/]NAME`);
    else if (text === undefined || !labelValue.test(text)) {
      problems.push(
        `machine.labels.${key}: ${shown(one)} is not allowed; use letters, digits, '-', '_', '.', at most 63`,
      );
    } else labels[key] = text;
  }
  return labels;
}

/** A list of maps, or one map that stands for a list of one. */
function readItems(where: string, value: unknown, fields: Fields, problems: string[]): Record<string, unknown>[] {
  if (value === undefined) return [];
  const items: unknown[] = Array.isArray(value) ? value : [value];
  if (items.length > maxItems) problems.push(`${where}: ${items.length} entries; only the first ${maxItems} are used`);
  return items.slice(0, maxItems).map((item, i) => readFields(`${where}[${i}]`, item ?? {}, fields, problems));
}

function readFields(where: string, value: unknown, fields: Fields, problems: string[]): Record<string, unknown> {
  if (value === undefined) return {};
  const names = Object.keys(fields);
  if (!isMap(value)) {
    const isSecret = Object.values(fields).some((field) => field.secret);
    problems.push(`${where}: ${isSecret ? "this" : shown(value)} is not allowed; use a map with ${names.join(", ")}`);
    return {};
  }
  const result: Record<string, unknown> = {};
  for (const [key, one] of Object.entries(value)) {
    const field = Object.hasOwn(fields, key) ? fields[key] : undefined;
    if (!field) problems.push(`${where}.${key}: unknown key${nearest(key, names)}`);
    else if (one !== undefined && one !== null) {
      const read = field.read(one);
      if (read === undefined) {
        problems.push(
          `${where}.${key}: ${field.secret ? "this value" : shown(one)} is not allowed; use ${field.allowed}`,
        );
      } else result[key] = read;
    }
  }
  return result;
}

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value: unknown): value is string => typeof value === "string";
const strings = (value: unknown): readonly string[] => (value as readonly string[] | undefined) ?? [];

/** Numbers and booleans that YAML made of plain words are words again where a word is wanted. */
const scalarText = (value: unknown): string | undefined =>
  isText(value) ? value : typeof value === "number" || typeof value === "boolean" ? String(value) : undefined;

function pick(from: Record<string, unknown>, ...names: string[]): Record<string, unknown> {
  return Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));
}

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
};

/** The key that was probably meant, else the whole list where it is short. */
function nearest(key: string, names: readonly string[]): string {
  const bare = (text: string) => text.toLowerCase().replace(/[^a-z0-9]/g, "");
  const wanted = bare(key);
  const near = names.find((name) => {
    const other = bare(name);
    return (
      other === wanted ||
      (wanted.length > 2 && (other.startsWith(wanted) || wanted.startsWith(other))) ||
      oneEditApart(other, wanted)
    );
  });
  if (near) return `; did you mean ${near}?`;
  return names.length > 12 ? "" : `; allowed are ${names.join(", ")}`;
}

/** One letter added, missing, changed or swapped with its neighbour. */
function oneEditApart(a: string, b: string): boolean {
  const [short, long] = a.length <= b.length ? [a, b] : [b, a];
  if (short.length < 4 || long.length - short.length > 1) return false;
  let i = 0;
  while (i < short.length && short[i] === long[i]) i++;
  if (long.length > short.length) return short.slice(i) === long.slice(i + 1);
  const isSwap = short[i] === long[i + 1] && short[i + 1] === long[i] && short.slice(i + 2) === long.slice(i + 2);
  return isSwap || short.slice(i + 1) === long.slice(i + 1);
}
