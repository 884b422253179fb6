// The libraries that Kubernetes adds: URLs, IP addresses and networks, quantities, named formats. Those of the
// authorizer have no place in rules; policies declare them with their environment.
// Upstream counterpart: apiserver/pkg/cel/library/{urls,ip,cidr,quantity,format}.go.
import { messageOf } from "#base/errors.ts";
import {
  addQuantities,
  compareQuantities,
  isQuantity,
  parseQuantity,
  type Quantity,
  subtractQuantities,
} from "../quantity.ts";
import {
  type Check,
  dns1035Label,
  dns1123Label,
  dns1123Subdomain,
  labelValue,
  qualifiedName,
} from "../validation/names.ts";
import {
  type Address,
  containsAddress,
  formatAddress,
  hostnameOf,
  isMapped,
  maskOf,
  type Network,
  type ParsedUrl,
  parseAddress,
  parseNetwork,
  parseQuery,
  parseUrl,
  portOf,
  sameAddress,
} from "./addresses.ts";
import { type CallCost, type Declaration, scan, scanTwice } from "./overloads.ts";
import { isDay, parseTimestamp } from "./text.ts";
import {
  Double,
  Failure,
  type Int,
  intOf,
  isInt,
  NativeList,
  NativeMap,
  Opaque,
  Optional,
  type Value,
} from "./values.ts";

export class UrlValue extends Opaque {
  readonly typeName = "kubernetes.URL";
  readonly url: ParsedUrl;
  constructor(url: ParsedUrl) {
    super();
    this.url = url;
  }
  equals(other: Opaque): boolean {
    return other instanceof UrlValue && other.url.text === this.url.text;
  }
}
export class IpValue extends Opaque {
  readonly typeName = "net.IP";
  readonly address: Address;
  constructor(address: Address) {
    super();
    this.address = address;
  }
  equals(other: Opaque): boolean {
    return other instanceof IpValue && sameAddress(other.address, this.address);
  }
}
export class CidrValue extends Opaque {
  readonly typeName = "net.CIDR";
  readonly network: Network;
  constructor(network: Network) {
    super();
    this.network = network;
  }
  equals(other: Opaque): boolean {
    if (!(other instanceof CidrValue)) return false;
    return other.network.bits === this.network.bits && sameAddress(other.network.address, this.network.address);
  }
}
export class QuantityValue extends Opaque {
  readonly typeName = "kubernetes.Quantity";
  readonly quantity: Quantity;
  constructor(quantity: Quantity) {
    super();
    this.quantity = quantity;
  }
  equals(other: Opaque): boolean {
    return other instanceof QuantityValue && other.quantity.nano === this.quantity.nano;
  }
}
class FormatValue extends Opaque {
  readonly typeName = "kubernetes.NamedFormat";
  readonly format: NamedFormat;
  constructor(format: NamedFormat) {
    super();
    this.format = format;
  }
  equals(other: Opaque): boolean {
    return other instanceof FormatValue && other.format === this.format;
  }
}

// URLs

const readUrl = (text: string): UrlValue => {
  const parsed = parseUrl(text);
  if (typeof parsed === "string") throw new Failure(`URL parse error during conversion from string: ${parsed}`);
  return new UrlValue(parsed);
};
const urlPart = (name: string, result: string, read: (url: ParsedUrl) => Value): Declaration => [
  name,
  `url_${name}: kubernetes.URL.() -> ${result}`,
  (_run, a) => read((a as UrlValue).url),
];
const urls: readonly Declaration[] = [
  ["url", "string_to_url: (string) -> kubernetes.URL", (_run, a) => readUrl(a as string), scan],
  ["isURL", "is_url_string: (string) -> bool", (_run, a) => typeof parseUrl(a as string) !== "string"],
  urlPart("getScheme", "string", (url) => url.scheme),
  urlPart("getHost", "string", (url) => url.host),
  urlPart("getHostname", "string", (url) => hostnameOf(url.host)),
  urlPart("getPort", "string", (url) => portOf(url.host)),
  urlPart("getEscapedPath", "string", (url) => url.escapedPath),
  [
    "getQuery",
    "url_getQuery: kubernetes.URL.() -> map(string, list(string))",
    (run, a) => {
      const { query } = (a as UrlValue).url;
      run.allocate(query.length);
      return new NativeMap([...parseQuery(query)].map(([key, values]) => [key, new NativeList(values)] as const));
    },
  ],
];

// Addresses

function ipProblem(text: string, address: Address | undefined): string | undefined {
  const shown = JSON.stringify(text);
  if (!address) {
    const zone = text.indexOf("%");
    if (zone > 0 && parseAddress(text.slice(0, zone))) return `IP address ${shown} with zone value is not allowed`;
    return `IP Address ${shown} parse error during conversion from string: ParseAddr(${shown}): unable to parse IP`;
  }
  return isMapped(address) ? `IPv4-mapped IPv6 address ${shown} is not allowed` : undefined;
}
const readIp = (text: string): IpValue => {
  const address = parseAddress(text);
  const problem = ipProblem(text, address);
  if (problem !== undefined) throw new Failure(problem);
  return new IpValue(address!);
};
const cidrError = "network address parse error during conversion from string";
function cidrProblem(text: string, network: Network | undefined): string | undefined {
  const shown = JSON.stringify(text);
  if (!network) return `${cidrError}: ${cidrError}: netip.ParsePrefix(${shown}): unable to parse prefix`;
  return isMapped(network.address) ? `${cidrError}: IPv4-mapped IPv6 address ${shown} is not allowed` : undefined;
}
const readCidr = (text: string): CidrValue => {
  const network = parseNetwork(text);
  const problem = cidrProblem(text, network);
  if (problem !== undefined) throw new Failure(problem);
  return new CidrValue(network!);
};

const isAll = (address: Address, byte: number): boolean => address.every((each) => each === byte);
const isUnspecified = (address: Address): boolean => isAll(address, 0);
const isLoopback = (address: Address): boolean =>
  address.length === 4 ? address[0] === 127 : isAll(address.subarray(0, 15), 0) && address[15] === 1;
const isMulticast = (address: Address): boolean =>
  address.length === 4 ? (address[0]! & 0xf0) === 0xe0 : address[0] === 0xff;
const isLinkLocalMulticast = (address: Address): boolean =>
  address.length === 4
    ? address[0] === 224 && address[1] === 0 && address[2] === 0
    : address[0] === 0xff && (address[1]! & 0x0f) === 0x02;
const isLinkLocalUnicast = (address: Address): boolean =>
  address.length === 4
    ? address[0] === 169 && address[1] === 254
    : address[0] === 0xfe && (address[1]! & 0xc0) === 0x80;
const isGlobalUnicast = (address: Address): boolean =>
  !(address.length === 4 && isAll(address, 255)) &&
  !isUnspecified(address) &&
  !isLoopback(address) &&
  !isMulticast(address) &&
  !isLinkLocalUnicast(address);
const ipTest = (name: string, test: (address: Address) => boolean): Declaration => [
  name,
  `ip_${name}: net.IP.() -> bool`,
  (_run, a) => test((a as IpValue).address),
];

/** Twice the address, and once more for what must be parsed first. */
const comparing =
  (extra: number): CallCost =>
  (_a, b) =>
    extra + (typeof b === "string" ? Math.ceil(b.length * 0.1) : 0);
const contains = (outer: Network, inner: Network): boolean =>
  outer.bits <= inner.bits && containsAddress(outer, inner.address);

const addresses: readonly Declaration[] = [
  ["ip", "string_to_ip: (string) -> net.IP", (_run, a) => readIp(a as string), scan],
  ["ip", "cidr_ip: net.CIDR.() -> net.IP", (_run, a) => new IpValue((a as CidrValue).network.address)],
  [
    "isIP",
    "is_ip: (string) -> bool",
    (_run, a) => ipProblem(a as string, parseAddress(a as string)) === undefined,
    scan,
  ],
  [
    "ip.isCanonical",
    "ip_is_canonical: (string) -> bool",
    (_run, a) => formatAddress(readIp(a as string).address) === a,
    scanTwice,
  ],
  ["family", "ip_family: net.IP.() -> int", (_run, a) => ((a as IpValue).address.length === 4 ? 4 : 6)],
  ipTest("isUnspecified", isUnspecified),
  ipTest("isLoopback", isLoopback),
  ipTest("isLinkLocalMulticast", isLinkLocalMulticast),
  ipTest("isLinkLocalUnicast", isLinkLocalUnicast),
  ipTest("isGlobalUnicast", isGlobalUnicast),
  ["string", "ip_to_string: (net.IP) -> string", (_run, a) => formatAddress((a as IpValue).address)],
  ["cidr", "string_to_cidr: (string) -> net.CIDR", (_run, a) => readCidr(a as string), scan],
  [
    "isCIDR",
    "is_cidr: (string) -> bool",
    (_run, a) => cidrProblem(a as string, parseNetwork(a as string)) === undefined,
    scan,
  ],
  [
    "containsIP",
    ["cidr_contains_ip_string: net.CIDR.(string) -> bool", "cidr_contains_ip_ip: net.CIDR.(net.IP) -> bool"],
    (_run, a, b) => {
      const { address } = typeof b === "string" ? readIp(b) : (b as IpValue);
      return containsAddress((a as CidrValue).network, address);
    },
    comparing(1),
  ],
  [
    "containsCIDR",
    ["cidr_contains_cidr_string: net.CIDR.(string) -> bool", "cidr_contains_cidr: net.CIDR.(net.CIDR) -> bool"],
    (_run, a, b) => {
      const { network } = typeof b === "string" ? readCidr(b) : (b as CidrValue);
      return contains((a as CidrValue).network, network);
    },
    comparing(3),
  ],
  ["prefixLength", "cidr_prefix_length: net.CIDR.() -> int", (_run, a) => (a as CidrValue).network.bits],
  ["masked", "cidr_masked: net.CIDR.() -> net.CIDR", (_run, a) => new CidrValue(maskOf((a as CidrValue).network))],
  [
    "string",
    "cidr_to_string: (net.CIDR) -> string",
    (_run, a) => {
      const { address, bits } = (a as CidrValue).network;
      return `${formatAddress(address)}/${bits}`;
    },
  ],
];

// Quantities

const nanoPerUnit = 1_000_000_000n;
/** Where parsing caps what it reads; the true value is not known there. */
const cap = (2n ** 63n - 1n) * nanoPerUnit;
const readQuantity = (text: string): QuantityValue => {
  try {
    return new QuantityValue(parseQuantity(text));
  } catch (error) {
    throw new Failure(messageOf(error));
  }
};
const operand = (value: Value): Quantity =>
  isInt(value) ? parseQuantity(String(value as Int)) : (value as QuantityValue).quantity;
const quantityOf = (value: Value): Quantity => (value as QuantityValue).quantity;
const isWhole = ({ nano }: Quantity): boolean => nano % nanoPerUnit === 0n && nano < cap && nano > -cap;
const order = (a: Value, b: Value): number => compareQuantities(quantityOf(a), quantityOf(b));

const quantities: readonly Declaration[] = [
  ["quantity", "string_to_quantity: (string) -> kubernetes.Quantity", (_run, a) => readQuantity(a as string), scan],
  ["isQuantity", "is_quantity_string: (string) -> bool", (_run, a) => isQuantity(a as string), scan],
  ["sign", "quantity_sign: kubernetes.Quantity.() -> int", (_run, a) => Math.sign(Number(quantityOf(a).nano))],
  [
    "isGreaterThan",
    "quantity_is_greater_than: kubernetes.Quantity.(kubernetes.Quantity) -> bool",
    (_run, a, b) => order(a, b) > 0,
  ],
  [
    "isLessThan",
    "quantity_is_less_than: kubernetes.Quantity.(kubernetes.Quantity) -> bool",
    (_run, a, b) => order(a, b) < 0,
  ],
  ["compareTo", "quantity_compare_to: kubernetes.Quantity.(kubernetes.Quantity) -> int", (_run, a, b) => order(a, b)],
  [
    "asApproximateFloat",
    "quantity_get_float: kubernetes.Quantity.() -> double",
    (_run, a) => new Double(Number(quantityOf(a).nano) / 1e9),
  ],
  [
    "asInteger",
    "quantity_get_int: kubernetes.Quantity.() -> int",
    (_run, a) => {
      const quantity = quantityOf(a);
      if (!isWhole(quantity)) throw new Failure("cannot convert value to integer");
      return intOf(quantity.nano / nanoPerUnit);
    },
  ],
  ["isInteger", "quantity_is_integer: kubernetes.Quantity.() -> bool", (_run, a) => isWhole(quantityOf(a))],
  [
    "add",
    [
      "quantity_add: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity",
      "quantity_add_int: kubernetes.Quantity.(int) -> kubernetes.Quantity",
    ],
    (_run, a, b) => new QuantityValue(addQuantities(quantityOf(a), operand(b))),
  ],
  [
    "sub",
    [
      "quantity_sub: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity",
      "quantity_sub_int: kubernetes.Quantity.(int) -> kubernetes.Quantity",
    ],
    (_run, a, b) => new QuantityValue(subtractQuantities(quantityOf(a), operand(b))),
  ],
];

// Formats

interface NamedFormat {
  readonly check: Check;
  /** How large upstream estimates its expression to be. */
  readonly regexSize: number;
}
const whenNot =
  (test: (text: string) => boolean, problem: string): Check =>
  (text) =>
    test(text) ? [] : [problem];
/** A prefix may end in a dash: what is generated goes on. */
const asPrefix =
  (check: Check): Check =>
  (text) =>
    check(text.length > 1 && text.endsWith("-") ? `${text.slice(0, -2)}a` : text);
const uuid = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

const formats: Readonly<Record<string, NamedFormat>> = {
  dns1123Label: { check: dns1123Label, regexSize: 30 },
  dns1123Subdomain: { check: dns1123Subdomain, regexSize: 60 },
  dns1035Label: { check: dns1035Label, regexSize: 30 },
  qualifiedName: { check: qualifiedName, regexSize: 60 },
  dns1123LabelPrefix: { check: asPrefix(dns1123Label), regexSize: 30 },
  dns1123SubdomainPrefix: { check: asPrefix(dns1123Subdomain), regexSize: 60 },
  dns1035LabelPrefix: { check: asPrefix(dns1035Label), regexSize: 30 },
  labelValue: { check: labelValue, regexSize: 40 },
  uri: {
    check: (text) => {
      const parsed = parseUrl(text);
      return typeof parsed === "string" ? [parsed] : [];
    },
    regexSize: 1200,
  },
  uuid: { check: whenNot((text) => uuid.test(text), "does not match the UUID format"), regexSize: 70 },
  byte: { check: whenNot((text) => base64.test(text), "invalid base64"), regexSize: 90 },
  date: { check: whenNot(isDay, "invalid date"), regexSize: 130 },
  datetime: { check: whenNot((text) => parseTimestamp(text) !== undefined, "invalid datetime"), regexSize: 130 },
};
const formatValues = new Map(Object.entries(formats).map(([name, format]) => [name, new FormatValue(format)]));

const formatting: readonly Declaration[] = [
  ...[...formatValues].map(
    ([name, value]): Declaration => [`format.${name}`, `format.${name}: () -> kubernetes.NamedFormat`, () => value],
  ),
  [
    "format.named",
    "format_named: (string) -> optional(kubernetes.NamedFormat)",
    (_run, a) => {
      const found = formatValues.get(a as string);
      return found ? new Optional(found) : Optional.none;
    },
  ],
  [
    "validate",
    "format_validate: kubernetes.NamedFormat.(string) -> optional(list(string))",
    (_run, a, b) => {
      const problems = (a as FormatValue).format.check(b as string);
      return problems.length === 0 ? Optional.none : new Optional(new NativeList(problems));
    },
    (a, b) => Math.ceil(((b as string).length + 1) * 0.1) * Math.ceil((a as FormatValue).format.regexSize * 0.25),
  ],
];

export const kubernetesLibrary: readonly Declaration[] = [...urls, ...addresses, ...quantities, ...formatting];
