// An operator's life with the official JavaScript client, over TLS: it installs its kind, watches it, writes status, and
// goes again.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ApiextensionsV1Api,
  CustomObjectsApi,
  KubeConfig,
  type KubernetesObject,
  makeInformer,
} from "@kubernetes/client-node";
import { expect, test } from "vitest";
import { createX509Authenticator } from "#apiserver/authn/x509.ts";
import { columnsFor } from "#apiserver/printers/tables.ts";
import { createStrategies } from "#apiserver/registry/strategies.ts";
import { createApiServer } from "#apiserver/server.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { ensurePki } from "#supervisor/pki.ts";
import { until } from "#test/harness/until.ts";

const base = { clock: systemClock, random: systemRandom, log: silentLogger };
const group = "example.com";
const version = "v1";
const plural = "boats";

test("the JavaScript client installs a kind, works with it and removes it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "mote-crd-js-"));
  const pki = await ensurePki({ folder, nodeName: "n", nodeIps: ["127.0.0.1"] }, base);
  const backend = await openDatastore({ endpoint: "memory://" }, base);
  const tls = { certificatePem: pki.servingApiserver.certificate, keyPem: pki.servingApiserver.key };
  const server = createApiServer(
    { host: "127.0.0.1", port: 0, tls: { ...tls, clientCaPem: pki.clientCa.certificate } },
    {
      ...{ ...base, backend, metrics: new Metrics(), columnsFor, admission: [] },
      authenticators: [createX509Authenticator({ clientCa: pki.clientCa.certificate }, base)],
      authorizer: { authorize: () => ({ verdict: "allow", reason: "" }) },
      strategies: createStrategies(base),
    },
  );
  const stop = new AbortController();
  let ended: Promise<void> = Promise.resolve();
  await new Promise<void>((resolve, reject) => {
    ended = server.service.run(stop.signal, resolve);
    ended.catch(reject);
  });
  const config = new KubeConfig();
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  config.loadFromClusterAndUser(
    {
      name: "c",
      server: `https://127.0.0.1:${server.port}`,
      caData: base64(pki.serverCa.certificate),
      skipTLSVerify: false,
    },
    { name: "u", certData: base64(pki.clientAdmin.certificate), keyData: base64(pki.clientAdmin.key) },
  );
  const definitions = config.makeApiClient(ApiextensionsV1Api);
  const objects = config.makeApiClient(CustomObjectsApi);
  const seen: string[] = [];
  const list = async () => {
    const found = (await objects.listClusterCustomObject({ group, version, plural })) as { items: KubernetesObject[] };
    return found as never;
  };
  const informer = makeInformer<KubernetesObject>(config, `/apis/${group}/${version}/${plural}`, list);
  for (const type of ["add", "update", "delete"] as const) {
    informer.on(type, (object) => void seen.push(`${type} ${object.metadata?.name}`));
  }
  try {
    await definitions.createCustomResourceDefinition({
      body: {
        metadata: { name: `${plural}.${group}` },
        spec: {
          group,
          scope: "Cluster",
          names: { plural, kind: "Boat" },
          versions: [
            {
              name: version,
              served: true,
              storage: true,
              subresources: { status: {} },
              schema: {
                openAPIV3Schema: {
                  type: "object",
                  properties: {
                    spec: { type: "object", properties: { sails: { type: "integer", minimum: 1, _default: 2 } } },
                    status: { type: "object", properties: { ready: { type: "boolean" } } },
                  },
                },
              },
            },
          ],
        },
      },
    });
    await until(async () => {
      const { status } = await definitions.readCustomResourceDefinition({ name: `${plural}.${group}` });
      return status?.conditions?.some(({ type, status: is }) => type === "Established" && is === "True") ?? false;
    });
    await informer.start();
    const body = { apiVersion: `${group}/${version}`, kind: "Boat", metadata: { name: "one" }, spec: {} };
    const made = (await objects.createClusterCustomObject({ group, version, plural, body })) as { spec: object };
    expect(made.spec).toEqual({ sails: 2 });
    const wrong = { ...body, metadata: { name: "two" }, spec: { sails: 0 } };
    await expect(objects.createClusterCustomObject({ group, version, plural, body: wrong })).rejects.toThrow(
      "spec.sails in body should be greater than or equal to 1",
    );
    const withStatus = { ...made, status: { ready: true } };
    await objects.replaceClusterCustomObjectStatus({ group, version, plural, name: "one", body: withStatus });
    await until(() => seen.includes("update one"));
    await definitions.deleteCustomResourceDefinition({ name: `${plural}.${group}` });
    await until(() => seen.includes("delete one"));
    expect(seen).toEqual(["add one", "update one", "delete one"]);
  } finally {
    await informer.stop();
    stop.abort();
    await ended;
    await backend.close();
    await rm(folder, { recursive: true });
  }
});
