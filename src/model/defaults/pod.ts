// Defaults of pods and of the pod templates inside other kinds. Upstream: pkg/apis/core/v1/defaults.go; a template gets
// less than a pod there (no enableServiceLinks, no requests from limits, no host ports), and so it does here.
import type {
  Container,
  ContainerResizePolicy,
  HTTPGetAction,
  Pod,
  PodSpec,
  PodTemplateSpec,
  Probe,
  Volume,
} from "../gen/core-v1.ts";
import { fill, fillNumbers } from "./fill.ts";

export function defaultPod(pod: Pod): void {
  const spec = pod.spec;
  if (!spec) return;
  defaultPodSpec(spec);
  fill(spec, { enableServiceLinks: true });
  for (const container of [...(spec.initContainers ?? []), ...(spec.containers ?? [])]) {
    const limits = container.resources?.limits;
    if (limits && container.resources) container.resources.requests = { ...limits, ...container.resources.requests };
    if (spec.hostNetwork) for (const port of container.ports ?? []) fillNumbers(port, { hostPort: port.containerPort });
  }
}

const resizable = ["cpu", "memory"] as const;

/**
 * What is asked for changes without a restart, where nothing is said of it; undefined where nothing is said at all. Behind a
 * feature gate, so it is the strategy of pods that fills it in.
 */
export function resizePolicyOf(container: Container): ContainerResizePolicy[] | undefined {
  const said = container.resizePolicy;
  const amounts = { ...container.resources?.limits, ...container.resources?.requests };
  const missing = resizable.filter(
    (name) => amounts[name] !== undefined && !said?.some((policy) => policy.resourceName === name),
  );
  if (missing.length === 0) return said;
  return [...(said ?? []), ...missing.map((resourceName) => ({ resourceName, restartPolicy: "NotRequired" }))];
}

export function defaultPodTemplate(template: PodTemplateSpec | undefined): void {
  if (template?.spec) defaultPodSpec(template.spec);
}

export function defaultPodSpec(spec: PodSpec): void {
  fill(spec, {
    dnsPolicy: "ClusterFirst",
    restartPolicy: "Always",
    schedulerName: "default-scheduler",
    securityContext: {},
    terminationGracePeriodSeconds: 30,
  });
  // The old name of the field still travels with the new one.
  if (spec.serviceAccount) fill(spec, { serviceAccountName: spec.serviceAccount });
  if (spec.serviceAccountName) spec.serviceAccount = spec.serviceAccountName;
  for (const volume of spec.volumes ?? []) defaultVolume(volume);
  for (const container of spec.initContainers ?? []) defaultContainer(container);
  for (const container of spec.containers ?? []) defaultContainer(container);
  for (const container of spec.ephemeralContainers ?? []) defaultContainer(container as Container);
}

/** The pull policy that upstream derives from an image name: Always for the tag "latest", which is also the tag of none. */
export function pullPolicyOf(image: string): "Always" | "IfNotPresent" {
  const [name = "", digest] = image.split("@", 2);
  const last = name.slice(name.lastIndexOf("/") + 1);
  const colon = last.indexOf(":");
  const tag = colon < 0 ? "" : last.slice(colon + 1);
  return tag === "latest" || (tag === "" && digest === undefined) ? "Always" : "IfNotPresent";
}

function defaultContainer(container: Container): void {
  fill(container, {
    imagePullPolicy: pullPolicyOf(container.image ?? ""),
    resources: {},
    terminationMessagePath: "/dev/termination-log",
    terminationMessagePolicy: "File",
  });
  for (const port of container.ports ?? []) fill(port, { protocol: "TCP" });
  for (const variable of container.env ?? []) {
    if (variable.valueFrom?.fieldRef) fill(variable.valueFrom.fieldRef, { apiVersion: "v1" });
  }
  for (const probe of [container.livenessProbe, container.readinessProbe, container.startupProbe]) defaultProbe(probe);
  for (const hook of [container.lifecycle?.postStart, container.lifecycle?.preStop]) defaultHttpGet(hook?.httpGet);
}

function defaultProbe(probe: Probe | undefined): void {
  if (!probe) return;
  fillNumbers(probe, { timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 });
  defaultHttpGet(probe.httpGet);
  if (probe.grpc) probe.grpc.service ??= "";
}

function defaultHttpGet(action: HTTPGetAction | undefined): void {
  if (action) fill(action, { path: "/", scheme: "HTTP" });
}

/** 0644 in octal: what files from secrets, config maps and the downward API get. */
const fileMode = 0o644;

export function defaultVolume(volume: Volume): void {
  const sources = Object.entries(volume).filter(([field, value]) => field !== "name" && value != null);
  if (sources.length === 0) volume.emptyDir = {};
  for (const source of [volume.secret, volume.configMap, volume.downwardAPI, volume.projected]) {
    if (source) fill(source as { defaultMode?: number }, { defaultMode: fileMode });
  }
  if (volume.hostPath) volume.hostPath.type ??= "";
  for (const item of volume.downwardAPI?.items ?? []) if (item.fieldRef) fill(item.fieldRef, { apiVersion: "v1" });
  for (const source of volume.projected?.sources ?? []) {
    if (source.serviceAccountToken) fill(source.serviceAccountToken, { expirationSeconds: 3600 });
    for (const item of source.downwardAPI?.items ?? []) if (item.fieldRef) fill(item.fieldRef, { apiVersion: "v1" });
  }
  const claim = volume.ephemeral?.volumeClaimTemplate?.spec;
  if (claim) fill(claim, { volumeMode: "Filesystem" });
  if (volume.iscsi) fill(volume.iscsi, { iscsiInterface: "default" });
  if (volume.rbd) fill(volume.rbd, { pool: "rbd", user: "admin", keyring: "/etc/ceph/keyring" });
  if (volume.azureDisk) {
    volume.azureDisk.cachingMode ??= "ReadWrite";
    volume.azureDisk.kind ??= "Shared";
    volume.azureDisk.fsType ??= "ext4";
    volume.azureDisk.readOnly ??= false;
  }
  if (volume.scaleIO) fill(volume.scaleIO, { storageMode: "ThinProvisioned", fsType: "xfs" });
}
