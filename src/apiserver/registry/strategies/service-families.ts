// Which address families a service has: decided from what the client says, what was before, and what the cluster has, before
// any address is taken. Pure but for the spec at hand, which it fills.
// Upstream counterpart: initIPFamilyFields, normalizeClusterIPs, patchAllocatedValues of pkg/registry/core/service/storage.
import { familyOfIp, type IpFamily } from "#base/ip-range.ts";
import type { ServiceSpec } from "#model/gen/core-v1.ts";
import { type FieldError, fieldInvalid } from "#model/status.ts";
import { goStrings, invalidGo } from "#model/validation/go-syntax.ts";
import { validateAddressFields } from "#model/validation/service.ts";

export const isNamed = (spec: ServiceSpec): boolean => spec.type === "ExternalName";
export const isHeadless = (spec: ServiceSpec): boolean => (spec.clusterIPs?.[0] ?? spec.clusterIP) === "None";

/** clusterIP and clusterIPs[0] say the same; a client that knows only the first may have set or cleared only that. */
export function matchAddressFields(spec: ServiceSpec, old: ServiceSpec | undefined): void {
  if (!old) {
    if (spec.clusterIP && !some(spec.clusterIPs)) spec.clusterIPs = [spec.clusterIP];
    return;
  }
  if (!isNamed(spec) && !isNamed(old)) {
    // What is left out of an update stays as it was given.
    if (!spec.clusterIP && old.clusterIP) spec.clusterIP = old.clusterIP;
    if (!some(spec.clusterIPs) && old.clusterIPs) spec.clusterIPs = [...old.clusterIPs];
  }
  const isSame = (spec.clusterIP ?? "") === (old.clusterIP ?? "");
  if (isSame) {
    if (!some(spec.clusterIPs) && old.clusterIPs) spec.clusterIPs = [...old.clusterIPs];
  } else if (sameList(spec.clusterIPs, old.clusterIPs)) {
    if (spec.clusterIP) spec.clusterIPs = [spec.clusterIP, ...(spec.clusterIPs ?? []).slice(1)];
    else delete spec.clusterIPs;
  }
}

/**
 * Fills ipFamilyPolicy and ipFamilies. `cluster` is what the cluster has, the default first. Nothing but an explicit policy
 * turns one family into two or two into one.
 */
export function fillFamilies(
  spec: ServiceSpec,
  old: ServiceSpec | undefined,
  cluster: readonly IpFamily[],
): readonly FieldError[] {
  if (isNamed(spec) || (old && prefersAsBefore(spec, old))) return [];
  spec.ipFamilyPolicy ||= old?.ipFamilyPolicy || (isForeign(spec) ? "RequireDualStack" : "SingleStack");
  const wrong = validateAddressFields(spec);
  if (wrong.length > 0) return wrong;
  const errors = [...(old ? change(spec, old) : []), ...agree(spec), ...infer(spec, cluster)];
  if (errors.length > 0) return errors;
  const wantsBoth = spec.ipFamilyPolicy !== "SingleStack";
  const [first = "IPv4"] = cluster;
  const families = (): readonly string[] => spec.ipFamilies ?? [];
  if (isForeign(spec)) {
    // Its endpoints are somebody else's and may be of either family, whatever the cluster has.
    if (families().length === 0) spec.ipFamilies = [first];
    if (families().length === 1 && wantsBoth) spec.ipFamilies = [...families(), otherOf(families()[0]!)];
    return [];
  }
  if (spec.ipFamilyPolicy === "RequireDualStack" && cluster.length < 2) {
    const why = "this cluster is not configured for dual-stack services";
    errors.push(fieldInvalid("spec.ipFamilyPolicy", spec.ipFamilyPolicy, why));
  }
  for (const [i, family] of families().entries()) {
    if (cluster.includes(family as IpFamily)) continue;
    errors.push(fieldInvalid(`spec.ipFamilies[${i}]`, family, "not configured on this cluster"));
  }
  if (errors.length > 0) return errors;
  if (families().length === 0) spec.ipFamilies = [first];
  if (families().length === 1 && wantsBoth && cluster.length > 1) {
    spec.ipFamilies = [...families(), otherOf(families()[0]!)];
  }
  return [];
}

/** A service that takes what there is keeps what it got when the cluster's ranges have changed. */
function prefersAsBefore(spec: ServiceSpec, old: ServiceSpec): boolean {
  return (
    spec.type === old.type &&
    spec.ipFamilyPolicy === "PreferDualStack" &&
    (old.ipFamilyPolicy ?? "PreferDualStack") === "PreferDualStack" &&
    some(spec.ipFamilies) &&
    sameList(spec.clusterIPs, old.clusterIPs) &&
    sameList(spec.ipFamilies, old.ipFamilies)
  );
}

/** Two families become one by policy alone. */
function change(spec: ServiceSpec, old: ServiceSpec): FieldError[] {
  if (spec.ipFamilyPolicy === "SingleStack") {
    if (sameList(spec.clusterIPs, old.clusterIPs)) spec.clusterIPs = firstOf(spec.clusterIPs);
    if (sameList(spec.ipFamilies, old.ipFamilies)) spec.ipFamilies = firstOf(spec.ipFamilies);
    return [];
  }
  const say = (what: string) =>
    fieldInvalid("spec.ipFamilyPolicy", spec.ipFamilyPolicy, `must be 'SingleStack' to release the secondary ${what}`);
  return [
    ...(isShorter(spec.clusterIPs, old.clusterIPs) ? [say("cluster IP")] : []),
    ...(isShorter(spec.ipFamilies, old.ipFamilies) ? [say("IP family")] : []),
  ];
}

function agree(spec: ServiceSpec): FieldError[] {
  if (spec.ipFamilyPolicy !== "SingleStack") return [];
  const say = (what: string) =>
    fieldInvalid(
      "spec.ipFamilyPolicy",
      spec.ipFamilyPolicy,
      `must be 'RequireDualStack' or 'PreferDualStack' when multiple ${what} are specified`,
    );
  return [
    ...(spec.clusterIPs?.length === 2 ? [say("cluster IPs")] : []),
    ...(spec.ipFamilies?.length === 2 ? [say("IP families")] : []),
  ];
}

/** An address that was asked for says its family. */
function infer(spec: ServiceSpec, cluster: readonly IpFamily[]): FieldError[] {
  const errors: FieldError[] = [];
  const ips = spec.clusterIPs ?? [];
  for (const [i, ip] of ips.entries()) {
    if (ip === "None") break;
    if (i < (spec.ipFamilies ?? []).length) continue;
    const family = familyOfIp(ip);
    if (cluster.includes(family)) spec.ipFamilies = [...(spec.ipFamilies ?? []), family];
    else errors.push(invalidGo(`spec.clusterIPs[${i}]`, goStrings(ips), `${family} is not configured on this cluster`));
  }
  return errors;
}

/** Headless without selector. */
const isForeign = (spec: ServiceSpec): boolean => isHeadless(spec) && Object.keys(spec.selector ?? {}).length === 0;
const otherOf = (family: string): IpFamily => (family === "IPv4" ? "IPv6" : "IPv4");
const some = (list: readonly string[] | undefined): boolean => list !== undefined && list !== null && list.length > 0;
const firstOf = (list: readonly string[] = []): string[] => list.slice(0, 1);
const isShorter = (now: readonly string[] = [], before: readonly string[] = []): boolean =>
  now.length > 0 && now.length < before.length;

export const sameList = (a: readonly string[] | undefined, b: readonly string[] | undefined): boolean =>
  (a ?? []).length === (b ?? []).length && (a ?? []).every((value, index) => value === b?.[index]);
