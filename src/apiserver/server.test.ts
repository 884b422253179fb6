import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Client } from "#client/client.ts";
import type { ClientWatchEvent } from "#client/transport.ts";
import type { Backend } from "#datastore/backend.ts";
import type { Deployment } from "#model/gen/apps-v1.ts";
import type { ConfigMap, Namespace, Pod } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { type FakeClock, settle } from "#test/harness/fake-clock.ts";
import { loopback } from "./authn/user.ts";
import { openBareServer } from "./bare.fixture.ts";
import type { ApiServer } from "./server.ts";

let backend: Backend;
let server: ApiServer;
let client: Client;
let clock: FakeClock;
const user = { name: "ann", groups: ["system:masters", "system:authenticated"] };

beforeAll(async () => {
  ({ backend, server, clock } = await openBareServer(7));
  client = new Client(server.transport(user));
  await client.create(resources.namespaces, { metadata: { name: "default" } } as Namespace);
});
afterAll(async () => {
  await backend.close();
});

const configMap = (name: string, data: Record<string, string> = {}, labels?: Record<string, string>): ConfigMap => ({
  metadata: { name, namespace: "default", ...(labels ? { labels } : {}) },
  data,
});
const pod = (name: string, nodeName?: string): Pod =>
  ({
    metadata: { name, namespace: "default", labels: { app: "web" } },
    spec: { containers: [{ name: "main", image: "web" }], ...(nodeName ? { nodeName } : {}) },
  }) as Pod;

describe("verbs", () => {
  test("create fills what the server decides, get returns it", async () => {
    const made = await client.create(resources.configMaps, configMap("made", { a: "1" }));
    expect(made.metadata.uid).toMatch(/^[0-9a-f-]{36}$/);
    expect(made.metadata.creationTimestamp).toBe("2026-01-01T00:00:00Z");
    expect(Number(made.metadata.resourceVersion)).toBeGreaterThan(0);
    expect(await client.get(resources.configMaps, "made", "default")).toEqual(made);
  });

  test.each([
    ["missing", () => client.get(resources.configMaps, "nope", "default"), 404, 'configmaps "nope" not found'],
    [
      "missing in a group",
      () => client.get(resources.deployments, "nope", "default"),
      404,
      'deployments.apps "nope" not found',
    ],
    [
      "exists",
      async () => {
        await client.create(resources.configMaps, configMap("twice"));
        return client.create(resources.configMaps, configMap("twice"));
      },
      409,
      'configmaps "twice" already exists',
    ],
    [
      "no name",
      () => client.create(resources.configMaps, { metadata: { namespace: "default" } }),
      422,
      'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
    ],
    [
      "revision from the future",
      () => client.list(resources.configMaps, { namespace: "default", resourceVersion: "999999" }),
      504,
      /^Too large resource version: 999999, current: \d+$/,
    ],
    [
      "cluster path to a namespaced object",
      () => server.transport(user).request({ method: "GET", path: "/api/v1/configmaps/made" }),
      404,
      /could not find the requested resource/,
    ],
    [
      "namespaced path to a cluster object",
      () => server.transport(user).request({ method: "GET", path: "/api/v1/namespaces/default/nodes/x" }),
      404,
      /could not find the requested resource/,
    ],
    ["dots", () => server.transport(user).request({ method: "GET", path: "/api/v1/namespaces/../pods" }), 404, /./],
    [
      "encoded slash",
      () => server.transport(user).request({ method: "GET", path: "/api/v1/namespaces/a%2Fb/pods" }),
      404,
      /./,
    ],
    [
      "method",
      () => server.transport(user).request({ method: "PUT", path: "/api/v1/namespaces/default/pods", body: {} }),
      405,
      "the server does not allow this method on the requested resource",
    ],
    [
      "apply without a manager",
      () =>
        client.patch(
          resources.configMaps,
          { name: "made", namespace: "default" },
          {},
          { type: "application/apply-patch+yaml" },
        ),
      422,
      'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    ],
  ])("refuses: %s", async (_name, act, code, message) => {
    const error = await act().then(
      () => undefined,
      (e: unknown) => e as { code: number; message: string },
    );
    expect(error?.code).toBe(code);
    if (typeof message === "string") expect(error?.message).toBe(message);
    else expect(error?.message).toMatch(message);
  });

  test("generateName makes a name", async () => {
    const made: ConfigMap = await client.create(resources.configMaps, {
      metadata: { generateName: "gen-", namespace: "default" },
    } as ConfigMap);
    expect(made.metadata.name).toMatch(/^gen-[a-z0-9]{5}$/);
  });

  test("a stale update conflicts, a no-op writes nothing", async () => {
    const first = await client.create(resources.configMaps, configMap("lock", { a: "1" }));
    const second = await client.update(resources.configMaps, { ...first, data: { a: "2" } });
    await expect(client.update(resources.configMaps, { ...first, data: { a: "3" } })).rejects.toMatchObject({
      code: 409,
      message:
        'Operation cannot be fulfilled on configmaps "lock": the object has been modified; please apply your changes to the latest version and try again',
    });
    const before = backend.revision();
    const third = await client.update(resources.configMaps, { ...second });
    expect(third.metadata.resourceVersion).toBe(second.metadata.resourceVersion);
    expect(backend.revision()).toBe(before);
  });

  test("generation counts spec changes; status has a door of its own", async () => {
    const made = await client.create(resources.deployments, {
      metadata: { name: "web", namespace: "default" },
      spec: {
        selector: { matchLabels: { app: "web" } },
        template: {
          metadata: { labels: { app: "web" } },
          spec: { containers: [{ name: "main", image: "web" }] },
        },
      },
    } as unknown as Deployment);
    expect(made.metadata.generation).toBe(1);
    const status = await client.updateStatus(resources.deployments, {
      ...made,
      spec: { ...made.spec, replicas: 9 },
      status: { replicas: 1 },
    });
    expect(status.status).toEqual({ replicas: 1 });
    expect(status.spec.replicas).toBe(1);
    expect(status.metadata.generation).toBe(1);
    const scaled = await client.patch(
      resources.deployments,
      { name: "web", namespace: "default" },
      { spec: { replicas: 3 } },
      { subresource: "scale" },
    );
    expect(scaled).toMatchObject({
      kind: "Scale",
      spec: { replicas: 3 },
      status: { replicas: 1, selector: "app=web" },
    });
    const now = await client.get(resources.deployments, "web", "default");
    expect(now.spec.replicas).toBe(3);
    expect(now.metadata.generation).toBe(2);
  });

  test.each([
    ["application/merge-patch+json" as const, { data: { b: "2", a: null } }, { b: "2" }],
    ["application/json-patch+json" as const, [{ op: "replace", path: "/data/a", value: "x" }], { a: "x" }],
    ["application/strategic-merge-patch+json" as const, { data: { c: "3" } }, { a: "1", c: "3" }],
  ])("%s", async (type, patch, data) => {
    const name = `patch-${type.length}`;
    await client.create(resources.configMaps, configMap(name, { a: "1" }));
    const patched = await client.patch(resources.configMaps, { name, namespace: "default" }, patch, { type });
    expect(patched.data).toEqual(data);
  });

  test("dry run writes nothing", async () => {
    const before = backend.revision();
    const made = await client.create(resources.configMaps, configMap("dry"), { dryRun: true });
    expect(made.metadata.uid).toBeDefined();
    expect(made.metadata.resourceVersion).toBeUndefined();
    expect(backend.revision()).toBe(before);
  });
});

describe("lists", () => {
  test("pages of one snapshot", async () => {
    for (let i = 0; i < 7; i++)
      await client.create(resources.secrets, { metadata: { name: `p${i}`, namespace: "default" } });
    const first = await client.list(resources.secrets, { namespace: "default", limit: 3 });
    expect(first.metadata.remainingItemCount).toBe(4);
    await client.create(resources.secrets, { metadata: { name: "p9", namespace: "default" } });
    const names = first.items.map((item) => item.metadata.name);
    let token = first.metadata.continue;
    while (token) {
      const next = await client.list(resources.secrets, { namespace: "default", limit: 3, continue: token });
      expect(next.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
      names.push(...next.items.map((item) => item.metadata.name));
      token = next.metadata.continue;
    }
    expect(names).toEqual(["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
  });

  test.each([
    [{ labelSelector: "tier=front" }, ["sel-a"]],
    [{ labelSelector: "tier in (front,back)" }, ["sel-a", "sel-b"]],
    [{ labelSelector: "tier,tier!=front" }, ["sel-b"]],
    [{ fieldSelector: "metadata.name=sel-b" }, ["sel-b"]],
    [{ fieldSelector: "metadata.name!=sel-b", labelSelector: "tier" }, ["sel-a"]],
    [{ labelSelector: "tier", limit: 1 }, ["sel-a"]],
  ])("selects by %o", async (selector, names) => {
    for (const [name, tier] of [
      ["sel-a", "front"],
      ["sel-b", "back"],
    ] as const) {
      await client.create(resources.configMaps, configMap(name, {}, { tier })).catch(() => {});
    }
    const list = await client.list(resources.configMaps, { namespace: "default", ...selector });
    expect(list.items.map((item) => item.metadata.name)).toEqual(names);
  });

  test("an unknown field is refused", async () => {
    await expect(
      client.list(resources.pods, { namespace: "default", fieldSelector: "spec.colour=red" }),
    ).rejects.toMatchObject({ code: 400, message: "field label not supported: spec.colour" });
  });
});

describe("deletion", () => {
  test("grace in two phases", async () => {
    await client.create(resources.pods, pod("graceful", "node-1"));
    const marked = await client.delete(resources.pods, { name: "graceful", namespace: "default" });
    expect(marked.metadata).toMatchObject({ deletionGracePeriodSeconds: 30 });
    expect(marked.metadata.deletionTimestamp).toBeDefined();
    await client.delete(resources.pods, { name: "graceful", namespace: "default" }, { gracePeriodSeconds: 0 });
    await expect(client.get(resources.pods, "graceful", "default")).rejects.toMatchObject({ code: 404 });
  });

  test("a pod nobody runs goes at once", async () => {
    await client.create(resources.pods, pod("pending"));
    await client.delete(resources.pods, { name: "pending", namespace: "default" });
    await expect(client.get(resources.pods, "pending", "default")).rejects.toMatchObject({ code: 404 });
  });

  test("finalizers hold it until the last is gone", async () => {
    const made = await client.create(resources.configMaps, {
      metadata: { name: "held", namespace: "default", finalizers: ["example.com/a"] },
    } as ConfigMap);
    const marked = await client.delete(resources.configMaps, { name: "held", namespace: "default" });
    expect(marked.metadata.deletionTimestamp).toBeDefined();
    await expect(
      client.patch(
        resources.configMaps,
        { name: "held", namespace: "default" },
        { metadata: { finalizers: ["example.com/a", "b.c/d"] } },
      ),
    ).rejects.toMatchObject({ code: 422 });
    await client.patch(
      resources.configMaps,
      { name: "held", namespace: "default" },
      { metadata: { finalizers: null } },
    );
    await expect(client.get(resources.configMaps, "held", "default")).rejects.toMatchObject({ code: 404 });
    expect(made.metadata.uid).toBeDefined();
  });

  test.each([
    ["Foreground" as const, ["foregroundDeletion"]],
    ["Orphan" as const, ["orphan"]],
  ])("propagation %s waits with its finalizer", async (propagationPolicy, finalizers) => {
    const name = `prop-${propagationPolicy.toLowerCase()}`;
    await client.create(resources.configMaps, configMap(name));
    const marked = await client.delete(resources.configMaps, { name, namespace: "default" }, { propagationPolicy });
    expect(marked.metadata.finalizers).toEqual(finalizers);
  });

  test("preconditions", async () => {
    await client.create(resources.configMaps, configMap("pre"));
    await expect(
      client.delete(resources.configMaps, { name: "pre", namespace: "default" }, { preconditions: { uid: "other" } }),
    ).rejects.toMatchObject({ code: 409 });
  });

  test("a namespace ends when it is finalized", async () => {
    await client.create(resources.namespaces, { metadata: { name: "gone" } } as Namespace);
    const marked = (await client.delete(resources.namespaces, { name: "gone" })) as Namespace;
    expect(marked.status?.phase).toBe("Terminating");
    await expect(client.delete(resources.namespaces, { name: "gone" })).rejects.toMatchObject({ code: 409 });
    await client.update(resources.namespaces, { ...marked, spec: { finalizers: [] } }, { subresource: "finalize" });
    await expect(client.get(resources.namespaces, "gone")).rejects.toMatchObject({ code: 404 });
  });

  test("a collection", async () => {
    for (const name of ["col-a", "col-b", "col-c"])
      await client.create(resources.configMaps, configMap(name, {}, { col: "x" }));
    await client.deleteCollection(resources.configMaps, { namespace: "default", labelSelector: "col=x" });
    const left = await client.list(resources.configMaps, { namespace: "default", labelSelector: "col=x" });
    expect(left.items).toEqual([]);
  });
});

describe("watch", () => {
  const collect = (events: AsyncIterable<ClientWatchEvent>, stop: AbortController) => {
    const seen: [string, string | undefined][] = [];
    const done = (async () => {
      for await (const event of events) {
        seen.push([
          event.type,
          "metadata" in event.object ? (event.object.metadata as { name?: string }).name : undefined,
        ]);
      }
    })();
    return {
      seen,
      async until(length: number) {
        for (let i = 0; i < 200 && seen.length < length; i++) await settle(2);
        return seen;
      },
      async stop() {
        stop.abort();
        await done;
      },
    };
  };

  test("what enters and leaves the selection is ADDED and DELETED", async () => {
    const stop = new AbortController();
    const from = (await client.list(resources.configMaps, { namespace: "default" })).metadata.resourceVersion!;
    const watch = collect(
      client.watch(
        resources.configMaps,
        { namespace: "default", labelSelector: "w=1", resourceVersion: from },
        stop.signal,
      ),
      stop,
    );
    await client.create(resources.configMaps, configMap("w", {}));
    const target = { name: "w", namespace: "default" };
    await client.patch(resources.configMaps, target, { metadata: { labels: { w: "1" } } });
    await client.patch(resources.configMaps, target, { data: { a: "1" } });
    await client.patch(resources.configMaps, target, { metadata: { labels: { w: "2" } } });
    await client.patch(resources.configMaps, target, { metadata: { labels: { w: "1" } } });
    await client.delete(resources.configMaps, target);
    expect(await watch.until(5)).toEqual([
      ["ADDED", "w"],
      ["MODIFIED", "w"],
      ["DELETED", "w"],
      ["ADDED", "w"],
      ["DELETED", "w"],
    ]);
    await watch.stop();
  });

  test("initial events end with an annotated bookmark; bookmarks come once a minute", async () => {
    await client.create(resources.serviceAccounts, { metadata: { name: "sa", namespace: "default" } });
    const stop = new AbortController();
    const events: ClientWatchEvent[] = [];
    const transport = server.transport(user);
    const query = { sendInitialEvents: "true", resourceVersionMatch: "NotOlderThan", allowWatchBookmarks: "true" };
    const done = (async () => {
      const path = "/api/v1/namespaces/default/serviceaccounts";
      for await (const event of transport.watch({ method: "GET", path, query }, stop.signal)) events.push(event);
    })();
    for (let i = 0; i < 100 && events.length < 2; i++) await settle(2);
    expect(events.map((event) => event.type)).toEqual(["ADDED", "BOOKMARK"]);
    expect((events[1]!.object as { metadata: { annotations?: object } }).metadata.annotations).toEqual({
      "k8s.io/initial-events-end": "true",
    });
    await clock.advance(61_000);
    expect(events.map((event) => event.type)).toEqual(["ADDED", "BOOKMARK", "BOOKMARK"]);
    stop.abort();
    await done;
  });

  test("readers of one change share one object", async () => {
    const stop = new AbortController();
    const objects: unknown[] = [];
    const from = (await client.list(resources.configMaps, { namespace: "default" })).metadata.resourceVersion!;
    const read = async () => {
      for await (const event of client.watch(
        resources.configMaps,
        { namespace: "default", resourceVersion: from },
        stop.signal,
      )) {
        objects.push(event.object);
      }
    };
    const readers = [read(), read()];
    await settle();
    const made = await client.create(resources.configMaps, configMap("shared"));
    for (let i = 0; i < 100 && objects.length < 2; i++) await settle(2);
    expect(objects[0]).toBe(objects[1]);
    expect(objects[0]).toEqual(made);
    expect(Object.isFrozen(objects[0])).toBe(true);
    stop.abort();
    await Promise.all(readers);
  });

  test("a compacted revision is an ERROR event with 410", async () => {
    const old = backend.revision();
    for (let i = 0; i < 3; i++) await client.create(resources.configMaps, configMap(`compact-${i}`));
    await backend.compact(backend.revision());
    const stop = new AbortController();
    const events: ClientWatchEvent[] = [];
    for await (const event of client.watch(resources.configMaps, { resourceVersion: String(old - 1) }, stop.signal))
      events.push(event);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({ type: "ERROR", object: { code: 410, reason: "Expired" } });
  });
});

test("loopback is allowed without the authoriser, others are refused with upstream's words", async () => {
  expect(await server.transport(loopback).request({ method: "GET", path: "/api/v1/nodes" })).toMatchObject({
    kind: "NodeList",
  });
  const ann = server.transport({ name: "ann", groups: [] });
  await expect(ann.request({ method: "GET", path: "/api/v1/namespaces/default/pods" })).rejects.toMatchObject({
    code: 403,
    message: 'pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default"',
  });
  await expect(ann.request({ method: "GET", path: "/metrics" })).rejects.toMatchObject({
    code: 403,
    message: 'forbidden: User "ann" cannot get path "/metrics"',
  });
});
