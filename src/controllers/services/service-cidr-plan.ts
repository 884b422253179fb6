// What is to be done about a ServiceCIDR: protected and called ready; or, when it is to go, kept as long as addresses lie in
// it that would lie nowhere else. Pure. Upstream counterpart: pkg/controller/servicecidrs.
import { holdsRange, type IpRange, offsetIn } from "#base/ip-range.ts";
import type { Condition } from "#model/gen/meta-v1.ts";
import type { IPAddress, ServiceCIDR } from "#model/gen/networking-v1beta1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { isOurs, rangesOf, readyOf } from "#model/service-addresses.ts";

export const serviceCidrFinalizer = "networking.k8s.io/service-cidr-finalizer";
/** Upstream's: writers of services may have looked at the range just before it was to go. */
export const graceMs = 10_000;

export interface ServiceCidrFacts {
  readonly object: ServiceCIDR;
  readonly all: readonly ServiceCIDR[];
  /** Asked only where it is to go. */
  addresses(): readonly IPAddress[];
  readonly nowMs: number;
}

type Said = Pick<Condition, "status" | "reason" | "message">;

export type ServiceCidrStep =
  | { readonly do: "nothing" }
  | { readonly do: "protect" }
  | { readonly do: "say"; readonly condition: Said }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "let go" };

const ready: Said = { status: "True", reason: "", message: "Kubernetes Service CIDR is ready" };
const inUse: Said = {
  status: "False",
  reason: "Terminating",
  message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
};

export function planServiceCidr({ object, all, addresses, nowMs }: ServiceCidrFacts): ServiceCidrStep {
  const isProtected = object.metadata.finalizers?.includes(serviceCidrFinalizer) ?? false;
  if (!isDeleting(object)) return isProtected ? say(object, ready) : { do: "protect" };
  if (!isProtected) return { do: "nothing" };
  const others = all.filter((other) => nameOf(other) !== nameOf(object) && !isDeleting(other)).flatMap(rangesOf);
  if (isNeeded(object, others, addresses)) return say(object, inUse);
  const ms = Date.parse(object.metadata.deletionTimestamp ?? "") + graceMs - nowMs;
  return ms > 0 ? { do: "wait", ms } : { do: "let go" };
}

function say(object: ServiceCIDR, condition: Said): ServiceCidrStep {
  const now = readyOf(object);
  const isSaid = now?.status === condition.status && (now.reason ?? "") === condition.reason;
  return isSaid ? { do: "nothing" } : { do: "say", condition };
}

/** Whether addresses of ours would be in no range at all without it. */
function isNeeded(object: ServiceCIDR, others: readonly IpRange[], addresses: () => readonly IPAddress[]): boolean {
  const alone = rangesOf(object).filter((range) => !others.some((other) => holdsRange(other, range)));
  if (alone.length === 0) return false;
  const holds = (ranges: readonly IpRange[], ip: string) => ranges.some((range) => offsetIn(range, ip) !== undefined);
  return addresses().some(
    (address) => isOurs(address) && holds(alone, nameOf(address)) && !holds(others, nameOf(address)),
  );
}
