// A CSI driver for tests: the gRPC services over unix sockets, with a list of what it was asked and folders in place of
// storage. It registers as drivers do, through a socket below plugins_registry.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { silentLogger } from "#base/log.ts";
import { type GrpcHandler, openGrpcServer } from "#platform/grpc-server.ts";
import { csiMethods, csiTable, NodeServiceCapabilityRPCType } from "#wire/gen/csi.ts";
import { registrationMethods, registrationTable } from "#wire/gen/plugin-registration.ts";
import { encodeFrame, GrpcError } from "#wire/grpc.ts";
import { createWireCodec } from "#wire/protobuf.ts";

export interface TestDriverOptions {
  readonly name: string;
  /** Of the sockets: `<kubelet>/plugins/<name>/csi.sock`, `<kubelet>/plugins_registry/<name>-reg.sock`. */
  readonly kubeletFolder: string;
  readonly capabilities?: readonly (keyof typeof NodeServiceCapabilityRPCType)[];
  readonly topology?: Readonly<Record<string, string>>;
  readonly maxVolumes?: number;
}

type Fields = Record<string, unknown>;

export interface TestDriver {
  /** `Method {request}` in order, without the questions. */
  readonly calls: { readonly method: string; readonly request: Fields }[];
  /** What was said to the last registration. */
  readonly statuses: { readonly pluginRegistered: boolean; readonly error: string }[];
  /** Methods that fail, with this text. */
  readonly failing: Map<string, string>;
  close(): Promise<void>;
}

export async function startTestDriver(options: TestDriverOptions): Promise<TestDriver> {
  const csi = createWireCodec(csiTable);
  const registration = createWireCodec(registrationTable);
  const endpoint = `${options.kubeletFolder}/plugins/${options.name}/csi.sock`;
  const registrar = `${options.kubeletFolder}/plugins_registry/${options.name}-reg.sock`;
  mkdirSync(dirname(endpoint), { recursive: true });
  mkdirSync(dirname(registrar), { recursive: true });
  const calls: { method: string; request: Fields }[] = [];
  const statuses: { pluginRegistered: boolean; error: string }[] = [];
  const failing = new Map<string, string>();

  const answers: Readonly<Record<string, (request: Fields) => Fields>> = {
    NodeGetCapabilities: () => ({
      capabilities: (options.capabilities ?? []).map((one) => ({ rpc: { type: NodeServiceCapabilityRPCType[one] } })),
    }),
    NodeGetInfo: () => ({
      nodeId: `id-of-${options.name}`,
      maxVolumesPerNode: options.maxVolumes ?? 0,
      ...(options.topology ? { accessibleTopology: { segments: options.topology } } : {}),
    }),
    NodePublishVolume: ({ targetPath, volumeCapability }) => {
      const isBlock = (volumeCapability as { block?: unknown }).block !== undefined;
      if (isBlock) writeFileSync(String(targetPath), "");
      else mkdirSync(String(targetPath), { recursive: true });
      return {};
    },
    NodeUnpublishVolume: ({ targetPath }) => {
      rmSync(String(targetPath), { recursive: true, force: true });
      return {};
    },
    NodeExpandVolume: ({ capacityRange }) => ({
      capacityBytes: (capacityRange as { requiredBytes: number }).requiredBytes,
    }),
  };
  const handlers = new Map<string, GrpcHandler>();
  for (const [key, row] of Object.entries(csiMethods)) {
    const method = key.split("/")[1]!;
    handlers.set(row.path, {
      kind: "unary",
      async handle(message) {
        const request = csi.decode<Fields>(row.request, message);
        if (!method.startsWith("NodeGet")) calls.push({ method, request });
        const failure = failing.get(method);
        if (failure !== undefined) throw new GrpcError("INTERNAL", failure);
        return encodeFrame(csi.encode(row.response, answers[method]?.(request) ?? {}));
      },
    });
  }
  const registrationHandlers = new Map<string, GrpcHandler>();
  const register = (key: keyof typeof registrationMethods, answer: (request: Fields) => Fields) => {
    const row = registrationMethods[key];
    registrationHandlers.set(row.path, {
      kind: "unary",
      handle: async (message) =>
        encodeFrame(registration.encode(row.response, answer(registration.decode<Fields>(row.request, message)))),
    });
  };
  register("Registration/GetInfo", () => ({
    type: "CSIPlugin",
    name: options.name,
    endpoint,
    supportedVersions: ["1.0.0"],
  }));
  register("Registration/NotifyRegistrationStatus", (status) => {
    statuses.push(status as { pluginRegistered: boolean; error: string });
    return {};
  });
  const open = (socketPath: string, table: Map<string, GrpcHandler>) =>
    openGrpcServer({ listen: { socketPath }, maxMessageBytes: 4 << 20, log: silentLogger }, table);
  const driver = await open(endpoint, handlers);
  const door = await open(registrar, registrationHandlers);
  return {
    calls,
    statuses,
    failing,
    async close() {
      await Promise.all([driver.close(100), door.close(100)]);
      rmSync(registrar, { force: true });
      rmSync(endpoint, { force: true });
    },
  };
}
