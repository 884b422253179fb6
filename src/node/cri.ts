// Calls of CRI v1, typed. Requests may leave out what is zero; answers have every field. Each call has a deadline of its
// own: what creates or pulls may take minutes on a slow card, questions may not.
import { createGrpcClient, type GrpcClient } from "#platform/grpc-client.ts";
import * as cri from "#wire/gen/cri.ts";
import { createWireCodec, type WireInput } from "#wire/protobuf.ts";
import type { ExecResult, StreamRequest, StreamRuntime } from "./lookup.ts";

export type SandboxConfig = WireInput<cri.PodSandboxConfig>;
export type ContainerConfig = WireInput<cri.ContainerConfig>;

const questionMs = 20_000;
/** Sandboxes run CNI plugins, containers unpack snapshots: minutes on a slow card under load. */
const changeMs = 4 * 60_000;
/** containerd ends pulls without progress itself; this only ends one that hangs. */
const pullMs = 60 * 60_000;
/** Programs without a time of their own: hooks, which end with their pod at the latest. */
const hookMs = 60 * 60_000;

type Method = keyof typeof cri.criMethods;

export interface Cri extends StreamRuntime {
  version(): Promise<cri.VersionResponse>;
  status(): Promise<readonly cri.RuntimeCondition[]>;
  updatePodCidr(podCidr: string): Promise<void>;
  listSandboxes(podUid?: string): Promise<readonly cri.PodSandbox[]>;
  listContainers(podUid?: string): Promise<readonly cri.Container[]>;
  sandboxStatus(id: string): Promise<cri.PodSandboxStatus | undefined>;
  containerStatus(id: string): Promise<cri.ContainerStatus | undefined>;
  runSandbox(config: SandboxConfig, runtimeHandler: string): Promise<string>;
  stopSandbox(id: string): Promise<void>;
  removeSandbox(id: string): Promise<void>;
  createContainer(sandboxId: string, config: ContainerConfig, sandboxConfig: SandboxConfig): Promise<string>;
  startContainer(id: string): Promise<void>;
  stopContainer(id: string, graceSeconds: number): Promise<void>;
  removeContainer(id: string): Promise<void>;
  reopenLog(id: string): Promise<void>;
  imageStatus(image: string): Promise<cri.Image | undefined>;
  listImages(): Promise<readonly cri.Image[]>;
  removeImage(id: string): Promise<void>;
  /** Writable layers of all containers, as the runtime last measured them. */
  containerStats(): Promise<readonly cri.ContainerStats[]>;
  updateResources(id: string, resources: WireInput<cri.LinuxContainerResources>): Promise<void>;
  pullImage(image: string, auth: WireInput<cri.AuthConfig> | undefined, signal: AbortSignal): Promise<string>;
  /** Ends of containers' main processes and lack of memory in containers, from containerd's own event service. */
  taskEvents(signal: AbortSignal): AsyncIterable<TaskEvent>;
  close(): void;
}

export interface TaskEvent {
  readonly kind: "exit" | "oom";
  readonly containerId: string;
}

export const podUidLabel = "io.kubernetes.pod.uid";

export function createCri(options: { readonly socketPath: string }): Cri {
  const codec = createWireCodec(cri.criTable);
  const grpc: GrpcClient = createGrpcClient({
    target: { socketPath: options.socketPath },
    headers: { "containerd-namespace": "k8s.io" },
  });

  async function call<Response extends object>(
    method: Method,
    request: object,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Response> {
    const row = cri.criMethods[method];
    const bytes = await grpc.unary(row.path, codec.encode(row.request, request), {
      timeoutMs,
      ...(signal ? { signal } : {}),
    });
    return codec.decode<Response>(row.response, bytes);
  }
  const byUid = (podUid: string | undefined) =>
    podUid === undefined ? {} : { labelSelector: { [podUidLabel]: podUid } };

  return {
    version: () => call("RuntimeService/Version", { version: "v1" }, questionMs),
    async status() {
      const answer = await call<cri.StatusResponse>("RuntimeService/Status", {}, questionMs);
      return answer.status?.conditions ?? [];
    },
    async updatePodCidr(podCidr) {
      await call("RuntimeService/UpdateRuntimeConfig", { runtimeConfig: { networkConfig: { podCidr } } }, questionMs);
    },
    async listSandboxes(podUid) {
      const request = { filter: byUid(podUid) };
      return (await call<cri.ListPodSandboxResponse>("RuntimeService/ListPodSandbox", request, questionMs)).items;
    },
    async listContainers(podUid) {
      const request = { filter: byUid(podUid) };
      return (await call<cri.ListContainersResponse>("RuntimeService/ListContainers", request, questionMs)).containers;
    },
    async sandboxStatus(podSandboxId) {
      return (await call<cri.PodSandboxStatusResponse>("RuntimeService/PodSandboxStatus", { podSandboxId }, questionMs))
        .status;
    },
    async containerStatus(containerId) {
      return (await call<cri.ContainerStatusResponse>("RuntimeService/ContainerStatus", { containerId }, questionMs))
        .status;
    },
    async runSandbox(config, runtimeHandler) {
      const answer = await call<cri.RunPodSandboxResponse>(
        "RuntimeService/RunPodSandbox",
        { config, runtimeHandler },
        changeMs,
      );
      return answer.podSandboxId;
    },
    async stopSandbox(podSandboxId) {
      await call("RuntimeService/StopPodSandbox", { podSandboxId }, changeMs);
    },
    async removeSandbox(podSandboxId) {
      await call("RuntimeService/RemovePodSandbox", { podSandboxId }, changeMs);
    },
    async createContainer(podSandboxId, config, sandboxConfig) {
      const request = { podSandboxId, config, sandboxConfig };
      return (await call<cri.CreateContainerResponse>("RuntimeService/CreateContainer", request, changeMs)).containerId;
    },
    async startContainer(containerId) {
      await call("RuntimeService/StartContainer", { containerId }, changeMs);
    },
    async stopContainer(containerId, graceSeconds) {
      await call(
        "RuntimeService/StopContainer",
        { containerId, timeout: graceSeconds },
        graceSeconds * 1000 + changeMs,
      );
    },
    async removeContainer(containerId) {
      await call("RuntimeService/RemoveContainer", { containerId }, changeMs);
    },
    async reopenLog(containerId) {
      await call("RuntimeService/ReopenContainerLog", { containerId }, questionMs);
    },
    async imageStatus(image) {
      return (await call<cri.ImageStatusResponse>("ImageService/ImageStatus", { image: { image } }, questionMs)).image;
    },
    async listImages() {
      return (await call<cri.ListImagesResponse>("ImageService/ListImages", {}, questionMs)).images;
    },
    async removeImage(image) {
      await call("ImageService/RemoveImage", { image: { image } }, changeMs);
    },
    async containerStats() {
      return (await call<cri.ListContainerStatsResponse>("RuntimeService/ListContainerStats", {}, questionMs)).stats;
    },
    async updateResources(containerId, linux) {
      await call("RuntimeService/UpdateContainerResources", { containerId, linux }, changeMs);
    },
    async pullImage(image, auth, signal) {
      const request = { image: { image }, ...(auth ? { auth } : {}) };
      return (await call<cri.PullImageResponse>("ImageService/PullImage", request, pullMs, signal)).imageRef;
    },
    async execSync(containerId, command, timeoutSeconds, signal): Promise<ExecResult> {
      const request = { containerId, cmd: [...command], timeout: timeoutSeconds };
      const answer = await call<cri.ExecSyncResponse>(
        "RuntimeService/ExecSync",
        request,
        timeoutSeconds === 0 ? hookMs : timeoutSeconds * 1000 + questionMs,
        signal,
      );
      return { stdout: answer.stdout, stderr: answer.stderr, exitCode: answer.exitCode };
    },
    async exec({ containerId, command, ...streams }: StreamRequest & { readonly command: readonly string[] }) {
      const request = { containerId, cmd: [...command], ...streams };
      return (await call<cri.ExecResponse>("RuntimeService/Exec", request, questionMs)).url;
    },
    async attach(request) {
      return (await call<cri.AttachResponse>("RuntimeService/Attach", request, questionMs)).url;
    },
    async portForward({ podSandboxId, ports }) {
      const request = { podSandboxId, port: [...ports] };
      return (await call<cri.PortForwardResponse>("RuntimeService/PortForward", request, questionMs)).url;
    },
    async *taskEvents(signal) {
      const filters = [`topic=="/tasks/exit"`, `topic=="/tasks/oom"`];
      const request = Buffer.concat(
        filters.flatMap((filter) => [Buffer.from([0x0a, filter.length]), Buffer.from(filter)]),
      );
      for await (const envelope of grpc.serverStream(
        "/containerd.services.events.v1.Events/Subscribe",
        request,
        signal,
      )) {
        const event = taskEvent(envelope);
        if (event !== undefined) yield event;
      }
    },
    close: () => grpc.close(),
  };
}

/**
 * What an envelope tells of a container; undefined for the end of an exec, whose id differs from the container's. Envelope:
 * 3 topic, 4 event Any{1 type_url, 2 value}; TaskExit: 1 container_id, 2 id; TaskOOM: 1 container_id.
 */
export function taskEvent(envelope: Uint8Array): TaskEvent | undefined {
  const event = field(envelope, 4);
  const value = event && field(event, 2);
  const container = value && field(value, 1);
  if (!container) return undefined;
  const containerId = Buffer.from(container).toString("utf8");
  if (Buffer.from(field(envelope, 3) ?? []).toString("latin1") === "/tasks/oom") return { kind: "oom", containerId };
  const id = field(value, 2);
  return id && Buffer.compare(container, id) === 0 ? { kind: "exit", containerId } : undefined;
}

/** The bytes of the first length-delimited field `number` of a protobuf message. */
function field(message: Uint8Array, number: number): Uint8Array | undefined {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; at < message.length; shift += 7) {
      const byte = message[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  while (at < message.length) {
    const key = varint();
    const wire = key & 7;
    if (wire === 2) {
      const length = varint();
      if (key >>> 3 === number) return message.subarray(at, at + length);
      at += length;
    } else if (wire === 0) varint();
    else at += wire === 1 ? 8 : 4;
  }
  return undefined;
}
