// ResourceQuota: what would go beyond a quota of its namespace is refused; what fits is charged to the quota's status
// before it is written, guarded by the quota's revision, so that two writers never share the last slot. What is deleted,
// and what was charged but never written, is given back by the controller (controllers/quota).
// Upstream: staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota.
import type { Pod, ResourceQuota } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { addQuantities, compareQuantities } from "#model/quantity.ts";
import { countsTowards } from "#model/quota/resources.ts";
import { listAmounts, missingAmounts, quotaCovers, type Usage, usageChange, usageOf } from "#model/quota/usage.ts";
import { conflict, forbidden, staleUpdate } from "#model/status.ts";
import type { StrategyContext } from "../strategy.ts";
import type { AdmissionPlugin, AdmissionRequest } from "./plugin.ts";

/** Kinds whose cost can change after they were made, and the subresource by which. */
const chargedOnUpdate: ReadonlyMap<string, string> = new Map([
  ["persistentvolumeclaims", ""],
  ["pods", "resize"],
  ["services", ""],
]);
const quotaResource = "resourcequotas";
/** Somebody else may write the same quota meanwhile: the controller, or another server. Upstream: 3. */
const attempts = 4;

export function createResourceQuota(): AdmissionPlugin {
  const turns = new Turns();
  return {
    name: "ResourceQuota",
    handles: ({ operation, resource: { group, plural, namespaced }, subresource }) =>
      namespaced &&
      // Events expire by themselves and must not fill a quota.
      plural !== "events" &&
      ((operation === "CREATE" && subresource === "") ||
        (operation === "UPDATE" && group === "" && chargedOnUpdate.get(plural) === subresource)),
    async validate(request, context) {
      const quotas = await context.list<ResourceQuota>(quotaResource, request.namespace);
      if (!quotas.some((quota) => isAbout(quota, request))) return;
      await turns.take(request.namespace, () => charge(request, context));
    },
  };
}

const isAbout = (quota: ResourceQuota, { resource, object }: AdmissionRequest): boolean =>
  quotaCovers(quota, quota.status?.hard ?? {}, resource, object!);

async function charge(request: AdmissionRequest, context: StrategyContext): Promise<void> {
  const charged = new Set<string>();
  for (let attempt = 1; ; attempt++) {
    const quotas = await context.list<ResourceQuota>(quotaResource, request.namespace);
    const due = quotas.filter((quota) => isAbout(quota, request) && !charged.has(quota.metadata.uid ?? ""));
    const next = planCharges(request, due, context.clock.now());
    if (context.dryRun) return;
    let stale: ResourceQuota | undefined;
    for (const { from, to } of next) {
      if (await context.replace(quotaResource, from, to)) charged.add(from.metadata.uid ?? "");
      else stale = from;
    }
    if (!stale) return;
    if (attempt >= attempts) {
      throw conflict({ group: "", resource: quotaResource }, stale.metadata.name ?? "", staleUpdate);
    }
  }
}

/** The quotas as they are once this request has been charged; throws where it does not fit. */
export function planCharges(
  request: Pick<AdmissionRequest, "operation" | "resource" | "name" | "object" | "oldObject">,
  quotas: readonly ResourceQuota[],
  nowMs: number,
): { readonly from: ResourceQuota; readonly to: ResourceQuota }[] {
  const { resource } = request;
  const object = request.object as ApiObject;
  const refuse = (why: string) => forbidden({ group: resource.group, resource: resource.plural }, request.name, why);
  for (const quota of quotas) {
    const name = quota.metadata.name ?? "";
    const limited = Object.keys(quota.status?.hard ?? {})
      .filter((each) => countsTowards(resource, each))
      .sort();
    const isPod = resource.group === "" && resource.plural === "pods";
    const missing = isPod ? missingAmounts(object as Pod, limited) : undefined;
    if (missing !== undefined) throw refuse(`failed quota: ${name}: ${missing}`);
    if (limited.some((each) => quota.status?.used?.[each] === undefined)) {
      throw refuse(`status unknown for quota: ${name}, resources: ${limited.join(",")}`);
    }
  }
  const usage = usageOf(resource, object, nowMs);
  const negative = [...usage].filter(([, amount]) => amount.nano < 0n);
  if (negative.length > 0) {
    throw refuse(`quota usage is negative for resource(s): ${negative.map(([each]) => each).join(",")}`);
  }
  const change = request.oldObject ? usageChange(usage, usageOf(resource, request.oldObject, nowMs)) : usage;
  const out: { from: ResourceQuota; to: ResourceQuota }[] = [];
  for (const quota of quotas) {
    const to = chargedQuota(quota, change, refuse);
    if (to) out.push({ from: quota, to });
  }
  return out;
}

function chargedQuota(quota: ResourceQuota, change: Usage, refuse: (why: string) => Error): ResourceQuota | undefined {
  const hard = quota.status?.hard ?? {};
  const used = quota.status?.used ?? {};
  const requested = [...change].filter(([name, amount]) => Object.hasOwn(hard, name) && amount.nano !== 0n);
  if (requested.length === 0) return undefined;
  const next = requested.map(([name, amount]) => [name, addQuantities(used[name] ?? "0", amount)] as const);
  // Whoever asks for less may do so, however full the quota is.
  const exceeded = new Set(
    next
      .filter(([name, sum], i) => requested[i]![1].nano > 0n && compareQuantities(sum, hard[name]!) > 0)
      .map(([n]) => n),
  );
  if (exceeded.size > 0) {
    const list = (amounts: Iterable<readonly [string, { toString(): string }]>) =>
      listAmounts([...amounts].filter(([name]) => exceeded.has(name)));
    throw refuse(
      `exceeded quota: ${quota.metadata.name}, requested: ${list(requested)}, used: ${list(Object.entries(used))}, limited: ${list(Object.entries(hard))}`,
    );
  }
  const sums = Object.fromEntries(next.map(([name, sum]) => [name, sum.toString()]));
  return { ...quota, status: { ...quota.status, used: { ...used, ...sums } } };
}

/** One after the other per name; so writers of this process do not race for the same quota. As many entries as writes under way. */
class Turns {
  readonly #last = new Map<string, Promise<void>>();

  async take(name: string, act: () => Promise<void>): Promise<void> {
    const before = this.#last.get(name) ?? Promise.resolve();
    const mine = before.then(act);
    // Who comes next waits for the end, whatever it was; the error goes to `mine`'s own caller.
    const settled = mine.catch(() => {});
    this.#last.set(name, settled);
    try {
      await mine;
    } finally {
      if (this.#last.get(name) === settled) this.#last.delete(name);
    }
  }
}
