// RuntimeClass: a pod that names a class gets what the class costs (overhead) and where it may run (node selector and
// tolerations); a class that does not exist is refused. Upstream: plugin/pkg/admission/runtimeclass.
import type { Pod, Toleration } from "#model/gen/core-v1.ts";
import type { RuntimeClass } from "#model/gen/node-v1.ts";
import { compareQuantities } from "#model/quantity.ts";
import { forbidden } from "#model/status.ts";
import type { StrategyContext } from "../strategy.ts";
import type { AdmissionPlugin, AdmissionRequest } from "./plugin.ts";

export function createRuntimeClass(): AdmissionPlugin {
  return {
    name: "RuntimeClass",
    handles: ({ operation, resource, subresource }) =>
      operation === "CREATE" && resource.group === "" && resource.plural === "pods" && subresource === "",
    async mutate(request, context) {
      const pod = request.object as Pod | undefined;
      const name = pod?.spec?.runtimeClassName;
      if (!pod || !name) return;
      const found = await classOf(request, context, name);
      const { overhead, scheduling } = found;
      if (overhead?.podFixed) {
        if (pod.spec.overhead && !isSame(pod.spec.overhead, overhead.podFixed)) {
          throw refusal(request, "Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        }
        pod.spec.overhead = { ...overhead.podFixed };
      }
      for (const [key, value] of Object.entries(scheduling?.nodeSelector ?? {})) {
        const own = pod.spec.nodeSelector?.[key];
        if (own !== undefined && own !== value) {
          const why = `conflict: runtimeClass.scheduling.nodeSelector[${key}] = ${value}; pod.spec.nodeSelector[${key}] = ${own}`;
          throw refusal(request, why);
        }
        pod.spec.nodeSelector = { ...pod.spec.nodeSelector, [key]: value };
      }
      const present = pod.spec.tolerations ?? [];
      const added = (scheduling?.tolerations ?? []).filter(
        (one) => !present.some((other) => isSameToleration(one, other)),
      );
      if (added.length > 0) pod.spec.tolerations = [...present, ...added.map((one) => ({ ...one }))];
    },
    async validate(request, context) {
      const pod = request.object as Pod | undefined;
      if (!pod?.spec?.overhead) return;
      const name = pod.spec.runtimeClassName;
      const defined = name ? (await classOf(request, context, name)).overhead?.podFixed : undefined;
      if (!defined) throw refusal(request, "Pod Overhead set without corresponding RuntimeClass defined Overhead");
      if (!isSame(pod.spec.overhead, defined)) {
        throw refusal(request, "Pod's Overhead doesn't match RuntimeClass's defined Overhead");
      }
    },
  };
}

async function classOf(request: AdmissionRequest, context: StrategyContext, name: string): Promise<RuntimeClass> {
  const found = await context.get<RuntimeClass>("runtimeclasses.node.k8s.io", "", name);
  if (!found) throw refusal(request, `RuntimeClass "${name}" not found`);
  return found;
}

const refusal = (request: AdmissionRequest, why: string) =>
  forbidden({ group: "", resource: "pods" }, request.name, `pod rejected: ${why}`);

type Amounts = Readonly<Record<string, string | number>>;
const isSame = (a: Amounts, b: Amounts): boolean =>
  Object.keys(a).length === Object.keys(b).length &&
  Object.entries(a).every(([name, amount]) => b[name] !== undefined && compareQuantities(amount, b[name]) === 0);

const isSameToleration = (a: Toleration, b: Toleration): boolean =>
  (["key", "operator", "value", "effect", "tolerationSeconds"] as const).every((field) => a[field] === b[field]);
