// The forms that names, keys and values may have, with upstream's words for what is wrong (apimachinery
// util/validation). Every expression is linear: a name of a megabyte costs a megabyte of looking.
import { canonicalIp } from "#base/ip-range.ts";

/** What is wrong with a text; empty when nothing is. */
export type Check = (text: string) => string[];

export interface NameRule {
  readonly check: Check;
}

const labelForm = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;
const label1035Form = /^[a-z](?:[-a-z0-9]*[a-z0-9])?$/;
const qualifiedForm = /^[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const keyForm = /^[-._a-zA-Z0-9]+$/;

const tooLong = (max: number): string => `must be no more than ${max} characters`;
/** Upstream counts bytes. */
const sizeOf = (text: string): number => Buffer.byteLength(text, "utf8");
const form = (sentence: string, expression: string, ...examples: string[]): string => {
  const shown = examples.map((example) => `'${example}'`).join(",  or ");
  const forExample = examples.length === 0 ? "" : `e.g. ${shown}, `;
  return `${sentence} (${forExample}regex used for validation is '${expression}')`;
};

const isDotted = (text: string): boolean => text.split(".").every((part) => labelForm.test(part));

export const dns1123Label: Check = (text) => {
  const problems = sizeOf(text) > 63 ? [tooLong(63)] : [];
  if (labelForm.test(text)) return problems;
  if (isDotted(text)) return [...problems, "must not contain dots"];
  return [
    ...problems,
    form(
      "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
      "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
      "my-name",
      "123-abc",
    ),
  ];
};

export const dns1123Subdomain: Check = (text) => {
  const problems = sizeOf(text) > 253 ? [tooLong(253)] : [];
  if (isDotted(text)) return problems;
  return [
    ...problems,
    form(
      "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
      "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
      "example.com",
    ),
  ];
};

export const dns1035Label: Check = (text) => {
  const problems = sizeOf(text) > 63 ? [tooLong(63)] : [];
  if (label1035Form.test(text)) return problems;
  return [
    ...problems,
    form(
      "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
      "[a-z]([-a-z0-9]*[a-z0-9])?",
      "my-name",
      "abc-123",
    ),
  ];
};

export const wildcardSubdomain: Check = (text) =>
  text.startsWith("*.") && dns1123Subdomain(text.slice(2)).length === 0
    ? []
    : [
        form(
          "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
          "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
          "*.example.com",
        ),
      ];

/** A label or annotation key, a resource name: `[prefix/]name`. */
export const qualifiedName: Check = (text) => {
  const parts = text.split("/");
  const problems: string[] = [];
  const sentence =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
  const expression = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
  if (parts.length > 2) {
    return [
      `a qualified name ${form(sentence, expression, "MyName", "my.name", "123-abc")} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
    ];
  }
  const name = parts.at(-1) ?? "";
  if (parts.length === 2) {
    const prefix = parts[0] ?? "";
    if (prefix === "") problems.push("prefix part must be non-empty");
    else problems.push(...dns1123Subdomain(prefix).map((problem) => `prefix part ${problem}`));
  }
  if (name === "") problems.push("name part must be non-empty");
  else if (sizeOf(name) > 63) problems.push(`name part ${tooLong(63)}`);
  if (!qualifiedForm.test(name))
    problems.push(`name part ${form(sentence, expression, "MyName", "my.name", "123-abc")}`);
  return problems;
};

export const labelValue: Check = (text) => {
  const problems = sizeOf(text) > 63 ? [tooLong(63)] : [];
  if (text === "" || qualifiedForm.test(text)) return problems;
  return [
    ...problems,
    form(
      "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
      "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
      "MyValue",
      "my_value",
      "12345",
    ),
  ];
};

/** A key of a config map or secret. */
export const dataKey: Check = (text) => {
  const problems = sizeOf(text) > 253 ? [tooLong(253)] : [];
  if (!keyForm.test(text)) {
    problems.push(
      form(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
        "[-._a-zA-Z0-9]+",
        "key.name",
        "KEY_NAME",
        "key-name",
      ),
    );
  }
  if (text === ".") problems.push("must not be '.'");
  else if (text === "..") problems.push("must not be '..'");
  else if (text.startsWith("..")) problems.push("must not start with '..'");
  return problems;
};

/** Since 1.30 any printable ASCII but `=`. */
export const environmentName: Check = (text) => {
  if (text === "") return ["environment variable name must be non-empty"];
  return /^[ -<>-~]+$/.test(text)
    ? []
    : ["a valid environment variable name must consist only of printable ASCII characters other than '='"];
};

/** The name of a port: a service name of RFC 6335. */
export const portName: Check = (text) => {
  const problems: string[] = [];
  if (sizeOf(text) > 15) problems.push("must be no more than 15 characters");
  if (!/^[-a-z0-9]*$/.test(text))
    problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
  if (!/[a-z]/.test(text)) problems.push("must contain at least one letter (a-z)");
  if (text.includes("--")) problems.push("must not contain consecutive hyphens");
  if (text.startsWith("-") || text.endsWith("-")) problems.push("must not begin or end with a hyphen");
  return problems;
};

/** RBAC names may be anything that fits a path. */
export const pathSegment: Check = (text) => {
  if (text === "." || text === "..") return [`may not be '${text}'`];
  return ["/", "%"].filter((part) => text.includes(part)).map((part) => `may not contain '${part}'`);
};

export const ipAddress: Check = (text) =>
  isIp(text) ? [] : ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"];

/** IPv6 addresses have many forms and only one name. */
const canonicalAddress: Check = (text) => {
  const problems = ipAddress(text);
  if (problems.length > 0) return problems;
  return canonicalIp(text) === text ? [] : ["must be a canonical format IP address"];
};

export const isIp = (text: string): boolean => isIpv4(text) || isIpv6(text);

export function isIpv4(text: string): boolean {
  const parts = text.split(".");
  return parts.length === 4 && parts.every((part) => /^(?:0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255);
}

export function isIpv6(text: string): boolean {
  if (!text.includes(":") || text.length > 45) return false;
  const halves = text.split("::");
  if (halves.length > 2) return false;
  let groups = 0;
  for (const [index, half] of halves.entries()) {
    if (half === "") continue;
    const parts = half.split(":");
    for (const [position, part] of parts.entries()) {
      const isLast = index === halves.length - 1 && position === parts.length - 1;
      if (isLast && part.includes(".") && isIpv4(part)) groups += 2;
      else if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups++;
      else return false;
    }
  }
  return halves.length === 2 ? groups < 8 : groups === 8;
}

export function isCidr(text: string): boolean {
  const slash = text.indexOf("/");
  if (slash < 0) return false;
  const address = text.slice(0, slash);
  const bits = text.slice(slash + 1);
  if (!/^(?:0|[1-9][0-9]{0,2})$/.test(bits)) return false;
  return isIpv4(address) ? Number(bits) <= 32 : isIpv6(address) && Number(bits) <= 128;
}

export const nameRules = {
  subdomain: { check: dns1123Subdomain },
  label: { check: dns1123Label },
  service: { check: dns1035Label },
  pathSegment: { check: pathSegment },
  address: { check: canonicalAddress },
} as const satisfies Record<string, NameRule>;
