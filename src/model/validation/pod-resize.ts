// What pods/resize may change of a running pod: cpu and memory of its containers, and whether such changes need a restart.
// Upstream: ValidatePodResize in pkg/apis/core/validation of 1.32.
import type { Pod, ResourceRequirements } from "../gen/core-v1.ts";
import { qosClassOf } from "../pod-qos.ts";
import { type FieldError, fieldForbidden, fieldInvalid } from "../status.ts";
import { same } from "./checks.ts";
import { findings } from "./findings.ts";
import { validatePodSpec } from "./pod.ts";

const mirrorAnnotation = "kubernetes.io/config.mirror";
/** How upstream prints the path of an object as a whole. */
const wholeObject = "[]";

/** What is wrong with `pod` as a new size of `old`; they differ in resources and resize policies of containers only. */
export function validatePodResize(pod: Pod, old: Pod): FieldError[] {
  if (old.metadata.annotations?.[mirrorAnnotation] !== undefined) {
    return [fieldForbidden(wholeObject, "static pods cannot be resized")];
  }
  if (old.spec.os?.name === "windows") return [fieldForbidden(wholeObject, "windows pods cannot be resized")];
  const errors = findings(validatePodSpec("spec", pod.spec));
  const qosClass = old.status?.qosClass ?? qosClassOf(old);
  if (qosClass !== qosClassOf(pod)) {
    errors.push(fieldInvalid("spec", pod.status?.qosClass, "Pod QOS Class may not change as a result of resizing"));
  }
  if (!nodeCanResize(old)) {
    errors.push(fieldForbidden("spec", "Pod running on node without support for resize"));
  }
  const before = old.spec.containers;
  for (const [i, { resources }] of pod.spec.containers.entries()) {
    for (const which of ["requests", "limits"] as const) {
      const had = Object.keys(before[i]?.resources?.[which] ?? {});
      if (had.every((name) => resources?.[which]?.[name] !== undefined)) continue;
      const path = `spec.containers[${i}].resources.${which}`;
      errors.push(fieldForbidden(path, `resource ${which} cannot be removed`));
    }
  }
  if (pod.spec.containers.some(({ resources }, i) => !same(fixed(resources), fixed(before[i]?.resources)))) {
    errors.push(fieldForbidden("spec", "only cpu and memory resources are mutable"));
  }
  return errors;
}

/** Which nodes can is known by what they say of running containers; of a pod that does not run nobody knows. */
function nodeCanResize(pod: Pod): boolean {
  const running = pod.status?.containerStatuses?.find((status) => status.state?.running != null);
  return running?.resources != null;
}

/** What does not change: everything but cpu and memory. */
function fixed(resources: ResourceRequirements | undefined): ResourceRequirements {
  const others = ({ cpu: _cpu, memory: _memory, ...rest }: Readonly<Record<string, string>>) => rest;
  return { ...resources, requests: others(resources?.requests ?? {}), limits: others(resources?.limits ?? {}) };
}
