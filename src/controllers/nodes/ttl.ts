// Tells every node how long what it has read of secrets and config maps may be used before it asks again: nothing in a
// small cluster, minutes in a huge one. Upstream counterpart: pkg/controller/ttl.
import type { Service } from "#base/service.ts";
import { nameOf } from "#model/object.ts";
import { nodes } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { ttlAnnotation, ttlSecondsOf, ttlStep } from "./plan.ts";

export function createTtlController(deps: ControllerDeps): Service {
  const store = deps.informers.informer(nodes);
  let step = 0;
  return createController(
    {
      name: "ttl-controller",
      workers: 1,
      triggers: [
        on(store, (node, how) => {
          const next = ttlStep(step, store.size);
          if (next !== step) {
            step = next;
            return store.list().map(nameOf);
          }
          return how === "delete" ? [] : [nameOf(node)];
        }),
      ],
      async sync(name) {
        const node = store.get(name);
        const value = String(ttlSecondsOf(step));
        if (!node || node.metadata.annotations?.[ttlAnnotation] === value) return;
        try {
          await deps.client.patch(nodes, { name }, { metadata: { annotations: { [ttlAnnotation]: value } } });
        } catch (error) {
          if (!isNotFound(error)) throw error;
        }
      },
    },
    deps,
  );
}
