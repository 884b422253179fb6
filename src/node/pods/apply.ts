// Does what plan.ts decided, for one pod: sandboxes, containers, hooks. Each function does one thing to the runtime and
// says in events and return values what came of it; when and in what order is the worker's business.

import { messageOf } from "#base/errors.ts";
import type { Container, EphemeralContainer, Lifecycle, Pod } from "#model/gen/core-v1.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import { pods, runtimeClasses } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { makeFolder, readFileIfExists } from "#platform/files.ts";
import { removeTree } from "#platform/folders.ts";
import type { Image } from "#wire/gen/cri.ts";
import { isGrpcError } from "#wire/grpc.ts";
import { applyPodCgroup } from "../cgroups.ts";
import type { SandboxConfig } from "../cri.ts";
import type { BackOff } from "./back-off.ts";
import type { PodContext } from "./context.ts";
import { containerConfig, podLogFolder, sandboxConfig } from "./cri-config.ts";
import { hostsFile, podDns, podHostname } from "./dns.ts";
import { buildEnv, ConfigError } from "./env.ts";
import { runHandler } from "./handlers.ts";
import { ensureImage } from "./images.ts";
import { containerDevices, containerMounts } from "./mounts.ts";
import { newestContainer, type ObservedContainer, type PodObservation, readySandbox } from "./observation.ts";
import { type Action, containerOf, mayBeUp, roleOf, type Waiting } from "./plan.ts";
import { podCgroup, podLimits } from "./resources.ts";

/** A start that did not come about: what the container waits with, and until when not to try again. */
export interface StartFailure {
  readonly waiting: Waiting;
  readonly retryAtMs: number;
  readonly isPull: boolean;
}

/** The kubelet's pace for configuration that is not there yet. */
const retryMs = 10_000;
/** SIGKILL never comes sooner than this after SIGTERM, so that a hook that ate the grace leaves time to react. */
const minGraceSeconds = 2;
/** Of HTTP hooks; exec hooks end with their program. */
const hookTimeoutSeconds = 30;

type EventType = "Normal" | "Warning";

export function podEvent(context: PodContext, pod: Pod, type: EventType, reason: string, message: string): void {
  context.events.record({ resource: pods, object: pod, type, reason, message });
}

export function containerEvent(
  context: PodContext,
  pod: Pod,
  name: string,
  type: EventType,
  reason: string,
  message: string,
): void {
  const container = containerOf(pod, name);
  const list = {
    init: "initContainers",
    sidecar: "initContainers",
    main: "containers",
    ephemeral: "ephemeralContainers",
  };
  const fieldPath = `spec.${container ? list[roleOf(pod, container)] : "containers"}{${name}}`;
  context.events.record({ resource: pods, object: pod, type, reason, message, fieldPath });
}

export async function configOfSandbox(context: PodContext, pod: Pod, attempt: number): Promise<SandboxConfig> {
  return sandboxConfig({
    pod,
    attempt,
    logFolder: podLogFolder(context.podLogFolder, pod),
    dns: podDns(pod, { ...context, host: await context.hostDns() }),
    nodeName: context.nodeName,
    clusterDomain: context.clusterDomain,
    seccompDefault: context.seccompDefault,
    podsCgroup: context.podsCgroup,
  });
}

export async function createSandbox(
  context: PodContext,
  pod: Pod,
  attempt: number,
  observed: PodObservation,
): Promise<void> {
  // The broken one must let go of the pod's address and name first.
  for (const old of observed.sandboxes) await context.cri.stopSandbox(old.id);
  await applyPodCgroup(podCgroup(pod, context.podsCgroup), podLimits(pod), context.maxPids);
  const config = await configOfSandbox(context, pod, attempt);
  await makeFolder(config.logDirectory ?? "", 0o755);
  await context.cri.runSandbox(config, await runtimeHandler(context, pod));
  // Containers of the older sandboxes stay for lastState; the sandboxes themselves go when nothing refers to them.
  for (const old of observed.sandboxes.slice(1)) await context.cri.removeSandbox(old.id);
}

/** How the runtime names what runs the pod's containers; empty for its default. */
async function runtimeHandler(context: PodContext, pod: Pod): Promise<string> {
  const name = pod.spec.runtimeClassName;
  if (!name) return "";
  try {
    return (await context.client.get(runtimeClasses, name)).handler;
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new Error(`failed to get sandbox runtime: RuntimeClass.node.k8s.io "${name}" not found`, { cause: error });
  }
}

export interface StartInput {
  readonly context: PodContext;
  readonly pod: Pod;
  readonly observed: PodObservation;
  readonly action: Extract<Action, { kind: "start" }>;
  readonly volumes: ReadonlyMap<string, string>;
  readonly pullBackOff: BackOff;
  readonly signal: AbortSignal;
}

export async function startContainer(input: StartInput): Promise<StartFailure | undefined> {
  const { context, pod, action } = input;
  const { cri, clock } = context;
  const { container } = action;
  const namespace = pod.metadata.namespace ?? "";
  const event = (type: EventType, reason: string, message: string) =>
    containerEvent(context, pod, container.name, type, reason, message);
  const failed = (reason: string, message: string): StartFailure => ({
    waiting: { reason, message },
    retryAtMs: clock.now() + retryMs,
    isPull: false,
  });

  const image = await ensureImage(pod, container, {
    cri: { ...cri, pullImage: (...what) => context.pullSlots.use(() => cri.pullImage(...what)) },
    clock,
    event,
    backOff: input.pullBackOff,
    secret: (name) => context.objects.secret(namespace, name),
    credentials: context.credentials,
    signal: input.signal,
  });
  if (!image.ok) return { waiting: image.waiting, retryAtMs: image.retryAtMs, isPull: true };
  input.signal.throwIfAborted();

  // Pulls before and hooks after may take long, and others need the slot. A pod that has begun is brought up before
  // another begins.
  const started = await context.slots.use(() => createAndStart({ ...input, image: image.image, event, failed }), {
    isUrgent: true,
  });
  if ("waiting" in started) return started;
  const { id, podIps } = started;
  const hook = container.lifecycle?.postStart;
  if (hook) {
    await seeStarted(context, pod);
    const result = await runHandler(
      hook,
      { containerId: id, container, ip: podIps[0] ?? context.nodeIp },
      hook.exec ? 0 : hookTimeoutSeconds,
      context,
      input.signal,
    );
    if (!result.ok) {
      // Cut short by the pod's own end, which stops the container with the grace that is due.
      input.signal.throwIfAborted();
      event("Warning", "FailedPostStartHook", `PostStartHook failed`);
      const grace = graceSecondsOf(pod);
      await stopContainer(
        context,
        pod,
        { id, name: container.name, ip: podIps[0] ?? "" },
        grace,
        "FailedPostStartHook",
      );
      return { ...failed("PostStartHookError", `PostStartHook failed: ${result.output}`), retryAtMs: 0 };
    }
  }
  return undefined;
}

interface CreateInput extends StartInput {
  readonly image: Image;
  readonly event: (type: EventType, reason: string, message: string) => void;
  readonly failed: (reason: string, message: string) => StartFailure;
}

async function createAndStart(
  input: CreateInput,
): Promise<{ readonly id: string; readonly podIps: readonly string[] } | StartFailure> {
  const { context, pod, observed, action, event, failed } = input;
  const { cri } = context;
  const { container } = action;
  const namespace = pod.metadata.namespace ?? "";
  input.signal.throwIfAborted();
  const sandbox = readySandbox(observed);
  if (!sandbox) return failed("ContainerCreating", "");
  const podIps = pod.spec.hostNetwork ? context.nodeIps : sandbox.ips;
  let id: string;
  try {
    const env = buildEnv({
      pod,
      container,
      ...(await objectsOfEnv(context, pod, container)),
      nodeName: context.nodeName,
      hostIps: context.nodeIps,
      podIps,
      capacity: context.capacity,
    });
    const { hostname, domain } = podHostname(pod, context);
    const hostFile = pod.spec.hostNetwork ? ((await readFileIfExists("/etc/hosts"))?.toString("utf8") ?? "") : "";
    const mounts = await containerMounts({
      pod,
      container,
      attempt: action.attempt,
      volumes: input.volumes,
      env,
      podFolder: context.volumes.podFolder(pod.metadata.uid ?? ""),
      bindSubPath: (request) => context.volumes.bindSubPath(request),
      hostsText: hostsFile(pod, { ips: podIps, hostname: hostname.split(".")[0] ?? hostname, domain, hostFile }),
    });
    const target = targetOf(pod, container, observed);
    const extras = await context.hardware.extras(pod, container);
    for (const allocation of extras.allocations) {
      for (const [name, value] of Object.entries(allocation.envs)) if (!env.has(name)) env.set(name, value);
      for (const { hostPath, containerPath, readOnly } of allocation.mounts) {
        mounts.push({ hostPath, containerPath, readonly: readOnly });
      }
    }
    const uid = input.image.uid === undefined ? undefined : Number(input.image.uid.value);
    const config = containerConfig({
      pod,
      container,
      attempt: action.attempt,
      env,
      mounts,
      devices: [
        ...containerDevices(pod, container, input.volumes),
        ...extras.allocations.flatMap((allocation) => allocation.devices),
      ],
      extras,
      imageRef: input.image.id,
      imageUser: { uid, name: input.image.username },
      memoryCapacityBytes: context.machineMemoryBytes,
      hasAppArmor: context.hasAppArmor,
      hugePageSizes: context.hugePageSizes,
      forbidsSwap: context.forbidsSwap,
      seccompDefault: context.seccompDefault,
      ...(target ? { targetContainerId: target } : {}),
    });
    id = await createOver(context, sandbox.id, config, await configOfSandbox(context, pod, sandbox.attempt), observed);
  } catch (error) {
    const isConfig = error instanceof ConfigError;
    event("Warning", "Failed", `Error: ${messageOf(error)}`);
    context.objects.forget(namespace);
    return failed(isConfig ? "CreateContainerConfigError" : "CreateContainerError", messageOf(error));
  }
  event("Normal", "Created", `Created container: ${container.name}`);
  try {
    await cri.startContainer(id);
  } catch (error) {
    event("Warning", "Failed", `Error: ${messageOf(error)}`);
    return { ...failed("RunContainerError", messageOf(error)), retryAtMs: 0 };
  }
  event("Normal", "Started", `Started container ${container.name}`);
  return { id, podIps };
}

/** A hook may take minutes, and whoever wants to look into the container does not wait for its end. */
async function seeStarted({ runtime, log }: PodContext, { metadata }: Pod): Promise<void> {
  try {
    await runtime.refresh(metadata.uid ?? "", metadata.namespace ?? "", metadata.name ?? "");
  } catch (error) {
    // The next list finds it.
    log.debug("cannot look at a container that was started", { pod: metadata.name, error: messageOf(error) });
  }
}

/** The container whose processes an ephemeral one wants to see. */
function targetOf(pod: Pod, container: Container, observed: PodObservation): string | undefined {
  const name = (container as EphemeralContainer).targetContainerName;
  if (!name || roleOf(pod, container) !== "ephemeral") return undefined;
  const target = newestContainer(observed, name);
  if (target?.state !== "running") throw new ConfigError(`unable to find target container ${name}`);
  return target.id;
}

/** Creates a container; the husk of an earlier try with the same name and attempt is removed first. */
async function createOver(
  context: PodContext,
  sandboxId: string,
  config: ReturnType<typeof containerConfig>,
  sandbox: SandboxConfig,
  observed: PodObservation,
): Promise<string> {
  const husk = observed.containers.find((c) => c.name === config.metadata?.name && c.state === "created");
  if (husk) await context.cri.removeContainer(husk.id);
  return context.cri.createContainer(sandboxId, config, sandbox);
}

async function objectsOfEnv(context: PodContext, pod: Pod, container: Container) {
  const namespace = pod.metadata.namespace ?? "";
  const configMapNames = new Set<string>();
  const secretNames = new Set<string>();
  for (const source of container.envFrom ?? []) {
    if (source.configMapRef?.name) configMapNames.add(source.configMapRef.name);
    if (source.secretRef?.name) secretNames.add(source.secretRef.name);
  }
  for (const { valueFrom } of container.env ?? []) {
    if (valueFrom?.configMapKeyRef?.name) configMapNames.add(valueFrom.configMapKeyRef.name);
    if (valueFrom?.secretKeyRef?.name) secretNames.add(valueFrom.secretKeyRef.name);
  }
  const configMaps = new Map(
    await Promise.all(
      [...configMapNames].map(async (n) => [n, await context.objects.configMap(namespace, n)] as const),
    ),
  );
  const secrets = new Map(
    await Promise.all([...secretNames].map(async (n) => [n, await context.objects.secret(namespace, n)] as const)),
  );
  return {
    configMap: (name: string) => configMaps.get(name),
    secret: (name: string) => secrets.get(name),
    services: await context.objects.services(namespace),
  };
}

/** preStop, SIGTERM, and SIGKILL after what is left of the grace. */
export async function stopContainer(
  context: PodContext,
  pod: Pod,
  target: { readonly id: string; readonly name: string; readonly ip: string },
  graceSeconds: number,
  message?: string,
): Promise<void> {
  const { cri, clock } = context;
  const container = containerOf(pod, target.name);
  containerEvent(context, pod, target.name, "Normal", "Killing", message ?? `Stopping container ${target.name}`);
  let leftSeconds = graceSeconds;
  const hook: Lifecycle["preStop"] = container?.lifecycle?.preStop;
  if (hook && container && graceSeconds > 0) {
    const startedMs = clock.monotonicMs();
    const limit = new AbortController();
    const cancel = clock.after(graceSeconds * 1000, () => limit.abort(new Error("grace period is over")));
    try {
      const handlerTarget = { containerId: target.id, container, ip: target.ip };
      const result = await runHandler(hook, handlerTarget, graceSeconds, context, limit.signal);
      if (!result.ok) containerEvent(context, pod, target.name, "Warning", "FailedPreStopHook", "PreStopHook failed");
    } finally {
      cancel();
    }
    leftSeconds -= Math.floor((clock.monotonicMs() - startedMs) / 1000);
    leftSeconds = Math.max(leftSeconds, minGraceSeconds);
  }
  try {
    await cri.stopContainer(target.id, leftSeconds);
  } catch (error) {
    if (!isGrpcError(error, "NOT_FOUND")) throw error;
  }
}

/** Main containers at once, then sidecars from the last to the first, then the sandboxes. */
export async function stopPod(
  context: PodContext,
  pod: Pod,
  observed: PodObservation,
  graceSeconds: number,
  message?: string,
): Promise<void> {
  const startedMs = context.clock.monotonicMs();
  const ip = pod.spec.hostNetwork ? context.nodeIp : (observed.sandboxes[0]?.ips[0] ?? "");
  const up = observed.containers.filter(mayBeUp);
  const sidecarOrder = (pod.spec.initContainers ?? []).filter((c) => roleOf(pod, c) === "sidecar").map((c) => c.name);
  const stop = (c: ObservedContainer, grace: number) =>
    stopContainer(context, pod, { id: c.id, name: c.name, ip }, grace, message);
  await Promise.all(up.filter((c) => !sidecarOrder.includes(c.name)).map((c) => stop(c, graceSeconds)));
  for (const name of sidecarOrder.reverse()) {
    const goneSeconds = Math.floor((context.clock.monotonicMs() - startedMs) / 1000);
    const left = graceSeconds === 0 ? 0 : Math.max(graceSeconds - goneSeconds, minGraceSeconds);
    for (const c of up) if (c.name === name) await stop(c, left);
  }
  await context.endSlots.use(async () => {
    for (const sandbox of observed.sandboxes) {
      try {
        await context.cri.stopSandbox(sandbox.id);
      } catch (error) {
        if (!isGrpcError(error, "NOT_FOUND")) throw error;
      }
    }
  });
}

/** Removes the runtime's records of a pod that has ended, and its logs. */
export async function removeRemains(context: PodContext, observed: PodObservation, logFolder: string): Promise<void> {
  for (const sandbox of observed.sandboxes) {
    try {
      await context.cri.removeSandbox(sandbox.id);
    } catch (error) {
      if (!isGrpcError(error, "NOT_FOUND")) throw error;
    }
  }
  // The runtime has taken those of a sandbox with it.
  const sandboxIds = new Set(observed.sandboxes.map((s) => s.id));
  for (const container of observed.containers) {
    if (sandboxIds.has(container.sandboxId)) continue;
    try {
      await context.cri.removeContainer(container.id);
    } catch (error) {
      if (!isGrpcError(error, "NOT_FOUND")) throw error;
    }
  }
  await removeTree(logFolder);
}
