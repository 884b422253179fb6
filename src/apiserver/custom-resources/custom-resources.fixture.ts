// An API server without HTTP that serves custom resources, and definitions to make some with.
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { Client } from "#client/client.ts";
import type { ApiRequest } from "#client/transport.ts";
import { openDatastore } from "#datastore/open.ts";
import type { CustomResourceDefinition, DefinitionVersion, JsonSchema } from "#model/custom-resources.ts";
import type { Namespace } from "#model/gen/core-v1.ts";
import type { UnknownObject } from "#model/object.ts";
import { customResourceDefinitions, namespaces } from "#model/resources.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { loopback } from "../authn/user.ts";
import type { OpenApiAssets } from "../openapi/serve.ts";
import { columnsFor } from "../printers/tables.ts";
import { createStrategies } from "../registry/strategies.ts";
import { createApiServer } from "../server.ts";

export interface CustomServer {
  readonly clock: FakeClock;
  readonly client: Client;
  request(method: string, path: string, body?: unknown, extra?: Partial<ApiRequest>): Promise<UnknownObject>;
  /** The message of a refusal, or the object as text. */
  refusal(method: string, path: string, body?: unknown, extra?: Partial<ApiRequest>): Promise<string>;
  /** The bytes of a document. */
  raw(path: string, accept: string): Promise<Uint8Array>;
  /** Makes the definition and waits until it is served. */
  define(definition: CustomResourceDefinition): Promise<CustomResourceDefinition>;
  update(definition: CustomResourceDefinition): Promise<CustomResourceDefinition>;
  close(): Promise<void>;
}

export async function openCustomServer(more: { readonly openapi?: OpenApiAssets } = {}): Promise<CustomServer> {
  const clock = new FakeClock();
  const random = seededRandom(11);
  const backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  const server = createApiServer(
    { freezeShared: true },
    {
      ...{ backend, clock, random, log: silentLogger, metrics: new Metrics(), columnsFor },
      authenticators: [],
      authorizer: { authorize: () => ({ verdict: "allow", reason: "" }) },
      strategies: createStrategies({ clock, random }),
      admission: [],
      ...more,
    },
  );
  const stop = new AbortController();
  let isReady = false;
  const running = server.definitions.run(stop.signal, () => {
    isReady = true;
  });
  while (!isReady) await settle();
  const transport = server.transport(loopback);
  const client = new Client(transport);
  await client.create(namespaces, { metadata: { name: "default" } } as Namespace);
  const request: CustomServer["request"] = (method, path, body, extra) =>
    transport.request({ method, path, ...(body === undefined ? {} : { body }), ...extra } as ApiRequest);
  const established = async (name: string): Promise<CustomResourceDefinition> => {
    for (let i = 0; i < 50; i++) {
      await settle();
      const found = await client.get(customResourceDefinitions, name);
      if (found.status?.conditions?.length) return found;
    }
    throw new Error(`${name} was never looked at`);
  };
  return {
    clock,
    client,
    request,
    async refusal(method, path, body, extra) {
      return request(method, path, body, extra).then(
        (object) => JSON.stringify(object),
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
    },
    async raw(path, accept) {
      const result = await server.handle({
        method: "GET",
        path,
        query: new URLSearchParams(),
        header: (name) => (name === "accept" ? accept : undefined),
        user: loopback,
        signal: new AbortController().signal,
        body: async () => new Uint8Array(),
        warn() {},
      });
      if (result.type !== "raw" || typeof result.body === "string") throw new Error(`${path} is no document`);
      return result.body;
    },
    async define(definition) {
      await client.create(customResourceDefinitions, definition);
      return established(definition.metadata.name!);
    },
    async update(definition) {
      const updated = await client.update(customResourceDefinitions, definition);
      await settle();
      await settle();
      return updated;
    },
    async close() {
      stop.abort(new Error("test is over"));
      for (let i = 0; i < 5; i++) await clock.advance(2000);
      await running;
      await backend.close();
    },
  };
}

export const version = (
  name: string,
  spec: JsonSchema,
  more: Partial<DefinitionVersion> & { readonly root?: JsonSchema } = {},
): DefinitionVersion => {
  const { root, ...rest } = more;
  const properties = { spec, status: { type: "object", "x-kubernetes-preserve-unknown-fields": true } };
  return {
    name,
    served: true,
    storage: true,
    schema: { openAPIV3Schema: { type: "object", properties, ...root } },
    ...rest,
  };
};

export const definition = (
  kind: string,
  versions: readonly DefinitionVersion[],
  more: Partial<CustomResourceDefinition["spec"]> = {},
): CustomResourceDefinition => {
  const plural = `${kind.toLowerCase()}s`;
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${plural}.example.com` },
    spec: {
      group: "example.com",
      scope: "Namespaced",
      names: { plural, kind, shortNames: [kind.toLowerCase().slice(0, 2)], categories: ["all"] },
      versions: [...versions],
      ...more,
    },
  } as CustomResourceDefinition;
};
