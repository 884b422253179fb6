// Priority: resolves a pod's priorityClassName to a number, and lets only one class be the default. Upstream:
// plugin/pkg/admission/priority.
import type { Pod } from "#model/gen/core-v1.ts";
import type { PriorityClass } from "#model/gen/scheduling-v1.ts";
import { forbidden } from "#model/status.ts";
import type { StrategyContext } from "../strategy.ts";
import type { AdmissionPlugin } from "./plugin.ts";

const resource = "priorityclasses.scheduling.k8s.io";

export function createPriority(): AdmissionPlugin {
  return {
    name: "Priority",
    handles: ({ operation, resource: { group, plural }, subresource }) =>
      subresource === "" &&
      ((operation === "CREATE" && group === "" && plural === "pods") ||
        ((operation === "CREATE" || operation === "UPDATE") &&
          group === "scheduling.k8s.io" &&
          plural === "priorityclasses")),
    async mutate(request, context) {
      const pod = request.object as Pod | undefined;
      if (request.resource.plural !== "pods" || !pod?.spec) return;
      const name = pod.spec.priorityClassName ?? "";
      const found = name === "" ? await defaultClass(context) : await context.get<PriorityClass>(resource, "", name);
      if (name !== "" && !found) {
        const why = `no PriorityClass with name ${name} was found`;
        throw forbidden({ group: "", resource: "pods" }, request.name, why);
      }
      const value = found?.value ?? 0;
      if (pod.spec.priority != null && pod.spec.priority !== value) {
        const why = `the integer value of priority (${pod.spec.priority}) must not be provided in pod spec; priority admission controller computed ${value} from the given PriorityClass name`;
        throw forbidden({ group: "", resource: "pods" }, request.name, why);
      }
      const policy = found?.preemptionPolicy ?? "PreemptLowerPriority";
      if (pod.spec.preemptionPolicy && pod.spec.preemptionPolicy !== policy) {
        const why = `the string value of PreemptionPolicy (${pod.spec.preemptionPolicy}) must not be provided in pod spec; priority admission controller computed ${policy} from the given PriorityClass name`;
        throw forbidden({ group: "", resource: "pods" }, request.name, why);
      }
      if (found?.metadata.name && name === "") pod.spec.priorityClassName = found.metadata.name;
      pod.spec.priority = value;
      pod.spec.preemptionPolicy = policy;
    },
    async validate(request, context) {
      const created = request.object as PriorityClass | undefined;
      if (request.resource.plural !== "priorityclasses" || created?.globalDefault !== true) return;
      const other = await defaultClass(context);
      if (other && other.metadata.name !== created.metadata.name) {
        const why = `PriorityClass ${other.metadata.name} is already marked as default. Only one default can exist`;
        throw forbidden({ group: "scheduling.k8s.io", resource: "priorityclasses" }, request.name, why);
      }
    },
  };
}

/** Two are possible after a race; the lower one counts, as upstream. */
async function defaultClass(context: StrategyContext): Promise<PriorityClass | undefined> {
  const classes = (await context.list<PriorityClass>(resource)).filter((entry) => entry.globalDefault);
  return classes.sort((a, b) => a.value - b.value)[0];
}
