// DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or unreachable, unless it says
// otherwise. Upstream: plugin/pkg/admission/defaulttolerationseconds.
import type { Pod } from "#model/gen/core-v1.ts";
import type { AdmissionPlugin } from "./plugin.ts";

const taints = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const tolerationSeconds = 300;

export function createDefaultTolerationSeconds(): AdmissionPlugin {
  return {
    name: "DefaultTolerationSeconds",
    handles: ({ operation, resource, subresource }) =>
      (operation === "CREATE" || operation === "UPDATE") &&
      resource.group === "" &&
      resource.plural === "pods" &&
      subresource === "",
    async mutate(request) {
      const pod = request.object as Pod | undefined;
      if (!pod?.spec) return;
      const present = pod.spec.tolerations ?? [];
      const missing = taints.filter(
        (taint) => !present.some(({ key, effect }) => (!key || key === taint) && (!effect || effect === "NoExecute")),
      );
      if (missing.length === 0) return;
      const added = missing.map((key) => ({ key, operator: "Exists", effect: "NoExecute", tolerationSeconds }));
      pod.spec.tolerations = [...present, ...added];
    },
  };
}
