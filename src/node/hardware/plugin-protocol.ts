// The device plugin protocol v1beta1: messages, paths, and one plugin's side of a connection. Counterpart:
// staging/src/k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1.
import { createGrpcClient, type GrpcClient } from "#platform/grpc-client.ts";
import { createWireCodec } from "#wire/protobuf.ts";

export const apiVersion = "v1beta1";
export const registerPath = "/v1beta1.Registration/Register";
const service = "/v1beta1.DevicePlugin";

const table = `DevicePluginOptions
 preStartRequired 1 bool
 getPreferredAllocationAvailable 2 bool
RegisterRequest
 version 1 string
 endpoint 2 string
 resourceName 3 string
 options 4 DevicePluginOptions
Empty
ListAndWatchResponse
 devices 1 []Device
TopologyInfo
 nodes 1 []NUMANode
NUMANode
 ID 1 int64
Device
 ID 1 string
 health 2 string
 topology 3 TopologyInfo
PreStartContainerRequest
 devicesIDs 1 []string
PreferredAllocationRequest
 containerRequests 1 []ContainerPreferredAllocationRequest
ContainerPreferredAllocationRequest
 availableDeviceIDs 1 []string
 mustIncludeDeviceIDs 2 []string
 allocationSize 3 int32
PreferredAllocationResponse
 containerResponses 1 []ContainerPreferredAllocationResponse
ContainerPreferredAllocationResponse
 deviceIDs 1 []string
AllocateRequest
 containerRequests 1 []ContainerAllocateRequest
ContainerAllocateRequest
 devicesIDs 1 []string
AllocateResponse
 containerResponses 1 []ContainerAllocateResponse
ContainerAllocateResponse
 envs 1 {}string
 mounts 2 []Mount
 devices 3 []DeviceSpec
 annotations 4 {}string
 cdiDevices 5 []CDIDevice
CDIDevice
 name 1 string
Mount
 containerPath 1 string
 hostPath 2 string
 readOnly 3 bool
DeviceSpec
 containerPath 1 string
 hostPath 2 string
 permissions 3 string
`;
export const codec = createWireCodec(table);

export interface RegisterRequest {
  readonly version: string;
  readonly endpoint: string;
  readonly resourceName: string;
  readonly options?: { readonly preStartRequired: boolean; readonly getPreferredAllocationAvailable: boolean };
}
export interface PluginDevice {
  readonly ID: string;
  readonly health: string;
  readonly topology?: { readonly nodes: readonly { readonly ID: number | bigint }[] };
}
export interface Allocation {
  readonly envs: Readonly<Record<string, string>>;
  readonly mounts: readonly { readonly containerPath: string; readonly hostPath: string; readonly readOnly: boolean }[];
  readonly devices: readonly {
    readonly containerPath: string;
    readonly hostPath: string;
    readonly permissions: string;
  }[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly cdiDevices: readonly { readonly name: string }[];
}

/** Devices may have to be prepared: upstream's bound for PreStartContainer; the others are quick. */
const prepareMs = 30_000;
const askMs = 30_000;

export class PluginConnection {
  readonly #grpc: GrpcClient;

  constructor(socketPath: string) {
    this.#grpc = createGrpcClient({ target: { socketPath } });
  }

  /** The devices, again whenever they change. */
  async *devices(signal: AbortSignal): AsyncIterable<readonly PluginDevice[]> {
    for await (const bytes of this.#grpc.serverStream(`${service}/ListAndWatch`, new Uint8Array(), signal)) {
      yield codec.decode<{ devices: PluginDevice[] }>("ListAndWatchResponse", bytes).devices;
    }
  }

  async allocate(devicesIDs: readonly string[]): Promise<Allocation> {
    const answer = await this.#call<{ containerResponses: Allocation[] }>(
      "Allocate",
      "AllocateRequest",
      "AllocateResponse",
      {
        containerRequests: [{ devicesIDs }],
      },
    );
    const [first] = answer.containerResponses;
    if (!first) throw new Error("the device plugin answered for no container");
    return first;
  }

  async preferred(available: readonly string[], size: number): Promise<readonly string[]> {
    const answer = await this.#call<{ containerResponses: { deviceIDs: string[] }[] }>(
      "GetPreferredAllocation",
      "PreferredAllocationRequest",
      "PreferredAllocationResponse",
      { containerRequests: [{ availableDeviceIDs: available, mustIncludeDeviceIDs: [], allocationSize: size }] },
    );
    return answer.containerResponses[0]?.deviceIDs ?? [];
  }

  async preStart(devicesIDs: readonly string[]): Promise<void> {
    const message = codec.encode("PreStartContainerRequest", { devicesIDs });
    await this.#grpc.unary(`${service}/PreStartContainer`, message, { timeoutMs: prepareMs });
  }

  close(): void {
    this.#grpc.close();
  }

  async #call<T extends object>(method: string, request: string, response: string, value: object): Promise<T> {
    const bytes = await this.#grpc.unary(`${service}/${method}`, codec.encode(request, value), { timeoutMs: askMs });
    return codec.decode<T>(response, bytes);
  }
}
