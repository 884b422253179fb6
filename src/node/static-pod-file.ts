// The pod that a file stands for on a node: read as the API would read it, with its defaults and its checks. A module of its own,
// loaded with the first such file: it brings along what every kind of object is made of, which an agent needs for nothing else.
// Counterpart: the kubelet's file source.
import { createHash } from "node:crypto";
import { rfc3339 } from "#base/clock.ts";
import { decodeObject } from "#model/decode.ts";
import { applyDefaults } from "#model/defaults.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { pods } from "#model/resources.ts";
import { validateObject } from "#model/validate.ts";
import { annotations } from "./mirror-pods.ts";

/** The pod a file stands for on this node; throws an Error that says what is wrong with it. Pure. */
export function staticPodOf(text: string, path: string, nodeName: string, seenMs: number): Pod {
  const isJson = text.trimStart().startsWith("{");
  const { object } = decodeObject(Buffer.from(text), pods, {
    contentType: isJson ? "json" : "yaml",
    fieldValidation: "Strict",
  });
  const pod = object as unknown as Pod;
  applyDefaults(pods, pod);
  const hash = createHash("md5").update(`${nodeName}\n${path}\n${text}`).digest("hex");
  const name = pod.metadata.name ?? "";
  if (name === "") throw new Error("metadata.name is missing");
  for (const [field, isUsed] of referencesOf(pod)) if (isUsed) throw new Error(`static pods may not use ${field}`);
  const result: Pod = {
    ...pod,
    metadata: {
      ...pod.metadata,
      name: `${name}-${nodeName}`,
      namespace: pod.metadata.namespace || "default",
      uid: hash,
      annotations: {
        ...pod.metadata.annotations,
        [annotations.hash]: hash,
        [annotations.seen]: rfc3339(seenMs),
        [annotations.source]: "file",
      },
    },
    spec: {
      ...pod.spec,
      nodeName,
      // Not to be evicted by taints: nobody else would run it.
      tolerations: [...(pod.spec.tolerations ?? []), { operator: "Exists", effect: "NoExecute" }],
    },
  };
  const errors = validateObject(pods, result);
  if (errors.length > 0) throw new Error(errors.map((e) => `${e.field}: ${e.message}`).join("; "));
  return result;
}

/** What only the API could give. */
function referencesOf(pod: Pod): [string, boolean][] {
  const volumes = pod.spec.volumes ?? [];
  const containers = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
  return [
    ["a service account", Boolean(pod.spec.serviceAccountName)],
    ["ephemeral containers", (pod.spec.ephemeralContainers ?? []).length > 0],
    [
      "config map, secret, projected or claim volumes",
      volumes.some((v) => v.configMap || v.secret || v.projected || v.persistentVolumeClaim || v.ephemeral),
    ],
    [
      "references to config maps or secrets",
      containers.some(
        (c) =>
          (c.envFrom ?? []).length > 0 ||
          (c.env ?? []).some((e) => e.valueFrom?.configMapKeyRef || e.valueFrom?.secretKeyRef),
      ),
    ],
  ];
}
