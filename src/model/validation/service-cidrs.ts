// Ranges of service addresses and the addresses themselves. Upstream: ValidateServiceCIDR, ValidateIPAddress of
// pkg/apis/networking.
import { canonicalIp, canonicalRange, type IpRange, parseIpRange } from "#base/ip-range.ts";
import type { IPAddress, ServiceCIDR } from "../gen/networking-v1beta1.ts";
import { type FieldError, fieldInvalid, fieldRequired } from "../status.ts";
import { checked, requiredName, same, unchanged } from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { goStrings, invalidGo } from "./go-syntax.ts";
import { dns1123Subdomain, pathSegment } from "./names.ts";

const cidrsField = "spec.cidrs";
const parentField = "spec.parentRef";

export function validateServiceCidr({ spec }: ServiceCIDR): FieldError[] {
  const cidrs = spec?.cidrs ?? [];
  if (cidrs.length === 0) return [fieldRequired(cidrsField, "at least one CIDR required")];
  if (cidrs.length > 2) return [fieldInvalid(cidrsField, spec, "may only hold up to 2 values")];
  const ranges = cidrs.map(parseIpRange);
  if (cidrs.length === 2 && (ranges.includes(undefined) || ranges[0]?.family === ranges[1]?.family)) {
    const why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
    return [fieldInvalid(cidrsField, spec, why)];
  }
  return eachOf(cidrs, (cidr, i) => validateCidr(`${cidrsField}[${i}]`, cidr, ranges[i]));
}

function validateCidr(path: string, cidr: string, range: IpRange | undefined): FieldError[] {
  if (!range) {
    return [fieldInvalid(path, cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")];
  }
  const canonical = canonicalRange(range);
  const [address = "", bits = ""] = cidr.split("/");
  const own = canonicalIp(address);
  const errors = findings();
  if (`${own}/${bits}` !== canonical) {
    errors.push(fieldInvalid(path, cidr, "wrong CIDR format, IP doesn't match network IP address"));
  }
  if (own !== address) errors.push(fieldInvalid(path, cidr, "CIDR not in RFC 5952 canonical format"));
  return errors;
}

export function validateServiceCidrUpdate({ spec }: ServiceCIDR, old: ServiceCIDR): FieldError[] {
  if (same(spec?.cidrs, old.spec?.cidrs)) return [];
  return [invalidGo(cidrsField, goStrings(spec?.cidrs), "field is immutable")];
}

export function validateIpAddress({ spec }: IPAddress): FieldError[] {
  const parent = spec?.parentRef;
  if (!parent) return [fieldRequired(parentField)];
  return findings([
    // The group of services has no name.
    ...(parent.group ? checked(`${parentField}.group`, parent.group, dns1123Subdomain) : []),
    ...requiredName(`${parentField}.resource`, parent.resource, pathSegment),
    ...requiredName(`${parentField}.name`, parent.name, pathSegment),
    ...(parent.namespace ? checked(`${parentField}.namespace`, parent.namespace, pathSegment) : []),
  ]);
}

export const validateIpAddressUpdate = ({ spec }: IPAddress, old: IPAddress): FieldError[] =>
  unchanged(parentField, spec?.parentRef, old.spec?.parentRef);
