// Calls to the node service of one CSI driver, over its unix socket. Each call has upstream's deadline of two minutes.
import { createGrpcClient } from "#platform/grpc-client.ts";
import { type CsiMethods, csiMethods, csiTable, NodeServiceCapabilityRPCType } from "#wire/gen/csi.ts";
import { isGrpcError } from "#wire/grpc.ts";
import { createWireCodec, type WireInput } from "#wire/protobuf.ts";

const callMs = 120_000;

type Capability = keyof typeof NodeServiceCapabilityRPCType;

export interface CsiDriverClient {
  call<M extends keyof CsiMethods>(
    method: M,
    request: WireInput<CsiMethods[M]["request"]>,
  ): Promise<CsiMethods[M]["response"]>;
  /** What the driver can do on a node; asked once. */
  can(capability: Capability): Promise<boolean>;
  close(): void;
}

export function createCsiDriver(socketPath: string): CsiDriverClient {
  const codec = createWireCodec(csiTable);
  const grpc = createGrpcClient({ target: { socketPath } });
  let capabilities: Promise<ReadonlySet<number>> | undefined;

  const driver: CsiDriverClient = {
    async call<M extends keyof CsiMethods>(method: M, request: WireInput<CsiMethods[M]["request"]>) {
      const { path, request: input, response } = csiMethods[method];
      const bytes = await grpc.unary(path, codec.encode(input, request as object), { timeoutMs: callMs });
      return codec.decode<CsiMethods[M]["response"] & object>(response, bytes);
    },
    async can(capability) {
      capabilities ??= driver
        .call("Node/NodeGetCapabilities", {})
        .then((answer) => new Set<number>(answer.capabilities.map((one) => one.rpc?.type ?? 0)));
      try {
        return (await capabilities).has(NodeServiceCapabilityRPCType[capability]);
      } catch (error) {
        capabilities = undefined;
        throw error;
      }
    },
    close: () => grpc.close(),
  };
  return driver;
}

/** As Go's gRPC prints errors, which is how events have always shown them. */
export function csiErrorText(error: unknown): string {
  if (!isGrpcError(error)) return error instanceof Error ? error.message : String(error);
  const code = error.code
    .toLowerCase()
    .split("_")
    .map((word) => word[0]!.toUpperCase() + word.slice(1))
    .join("");
  return `rpc error: code = ${code} desc = ${error.message}`;
}
