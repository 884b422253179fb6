import { expect, test } from "vitest";
import type { UnknownObject } from "#model/object.ts";
import * as resources from "#model/resources.ts";
import { configMaps, events, horizontalPodAutoscalers } from "#model/resources.ts";
import {
  DecodeCache,
  decodeStored,
  encodeStored,
  layoutOf,
  listHead,
  spliceItems,
  spliceList,
  spliceObject,
} from "./codec.ts";
import { fromStorage, toStorage } from "./convert.ts";
import { objectKey, resourcePrefix } from "./keys.ts";

const layout = layoutOf(configMaps);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const stored = (object: object, modRevision = 7) => ({
  key: "/registry/configmaps/default/x",
  value: encodeStored(configMaps, object as UnknownObject),
  modRevision,
});

test("values start with the fixed prefix and hold no revision", () => {
  const { value } = stored({ metadata: { name: "x", resourceVersion: "3" }, data: { é: "ü" }, kind: "Wrong" });
  expect(text(value)).toBe('{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"é":"ü"}}');
});

test.each([
  [{ metadata: { name: "x" }, data: { é: "ü" } }],
  [{ metadata: {} }],
  [JSON.parse('{"metadata":{"name":"x"},"data":{"__proto__":"p"}}') as object],
])("splicing is decoding: %o", (object) => {
  const item = stored(object);
  expect(JSON.parse(text(spliceObject(item, layout)))).toEqual(decodeStored(item));
  const list = JSON.parse(text(spliceList(listHead(configMaps, { resourceVersion: "9" }), [item, item], layout)));
  const { apiVersion: _a, kind: _k, ...bare } = decodeStored(item);
  expect(list).toEqual({
    kind: "ConfigMapList",
    apiVersion: "v1",
    metadata: { resourceVersion: "9" },
    items: [bare, bare],
  });
});

test.each([0, 1, 2, 7])("a list of %i in parts is the list", (count) => {
  const items = Array.from({ length: count }, (_, i) =>
    stored({ metadata: { name: `x${i}` }, data: { a: "ü".repeat(i) } }),
  );
  const head = listHead(configMaps, { resourceVersion: "9" });
  const whole = text(spliceList(head, items, layout));
  let made = "";
  for (let at = 0; at < items.length; at += 2) {
    made += text(spliceItems(at === 0 ? `${head}[` : ",", items.slice(at, at + 2), layout));
  }
  expect(`${made || `${head}[`}]}`).toBe(whole);
});

test("an empty list is complete", () => {
  expect(JSON.parse(text(spliceList(listHead(configMaps, { resourceVersion: "9" }), [], layout))).items).toEqual([]);
});

test("a value that somebody else wrote is parsed", () => {
  const value = new TextEncoder().encode('{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"}}');
  const item = { key: "k", value, modRevision: 5 };
  expect(JSON.parse(text(spliceObject(item, layout))).metadata).toEqual({ name: "x", resourceVersion: "5" });
});

test("one object per revision, frozen, and the newest stays", () => {
  const cache = new DecodeCache(true);
  const [old, now] = [stored({ metadata: { name: "x" } }, 5), stored({ metadata: { name: "x" } }, 6)];
  const object = cache.get(now);
  expect(cache.get({ ...now })).toBe(object);
  expect(cache.get(old)).not.toBe(object);
  expect(cache.get(now)).toBe(object);
  expect(Object.isFrozen(object.metadata)).toBe(true);
  expect(cache.get({ ...now, gone: true })).not.toBe(object);
});

test("keys are upstream's", () => {
  expect(objectKey(resources.pods, "default", "x")).toBe("/registry/pods/default/x");
  expect(objectKey(resources.services, "default", "x")).toBe("/registry/services/specs/default/x");
  expect(objectKey(resources.nodes, "", "n")).toBe("/registry/minions/n");
  expect(objectKey(resources.leases, "kube-node-lease", "n")).toBe("/registry/leases/kube-node-lease/n");
  const prefixes = resources.allResources
    .filter((info) => info.verbs.includes("watch") && info.group === info.storageGroup)
    .map((info) => resourcePrefix(info));
  const distinct = new Set(prefixes);
  for (const prefix of distinct) {
    for (const other of distinct)
      expect(prefix !== other && prefix.startsWith(other), `${prefix} lies in ${other}`).toBe(false);
  }
});

test("versions that share storage convert both ways", () => {
  const event = {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name: "e" },
    message: "m",
    involvedObject: { kind: "Pod" },
    count: 2,
  };
  const served = resources.allResources.find((info) => info.group === "events.k8s.io")!;
  const shown = fromStorage(served, event as UnknownObject);
  expect(shown).toMatchObject({
    apiVersion: "events.k8s.io/v1",
    note: "m",
    regarding: { kind: "Pod" },
    deprecatedCount: 2,
  });
  expect(toStorage(served, shown)).toEqual(event);
  expect(fromStorage(events, event as UnknownObject)).toBe(event);
  const old = resources.allResources.find((info) => info.kind === "HorizontalPodAutoscaler" && info.version === "v1")!;
  const scaler = {
    apiVersion: "autoscaling/v1",
    kind: old.kind,
    metadata: { name: "h" },
    spec: { maxReplicas: 3, targetCPUUtilizationPercentage: 50 },
  };
  const atRest = toStorage(old, scaler as UnknownObject);
  expect(atRest).toMatchObject({
    apiVersion: horizontalPodAutoscalers.storageVersion,
    spec: { metrics: [{ type: "Resource" }] },
  });
  expect(fromStorage(old, atRest)).toEqual(scaler);
});

test("what is being written is not parsed again, but for another revision's bytes it is", () => {
  const cache = new DecodeCache(true);
  const object = (): UnknownObject => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a" } });
  const value = encodeStored(configMaps, object());
  const written = object();
  cache.expect("/a", 5, value, written);
  // The same bytes were there before: a watcher that is behind.
  expect(cache.get({ key: "/a", value, modRevision: 4 })).not.toBe(written);
  expect(cache.get({ key: "/a", value, modRevision: 7 })).toBe(written);
  expect(written.metadata.resourceVersion).toBe("7");
  const late = object();
  cache.expect("/a", 7, value, late);
  cache.forget("/a", late);
  expect(cache.get({ key: "/a", value, modRevision: 9 })).not.toBe(late);
});
