import { describe, expect, test } from "vitest";
import type { ConfigMap, Container, Pod, Secret, Service } from "#model/gen/core-v1.ts";
import { buildEnv, ConfigError, expand, podField, resourceField, serviceVariables } from "./env.ts";

const pod = {
  metadata: { name: "p", namespace: "ns", uid: "u", labels: { b: "2", a: 'x"y' }, annotations: { k: "v" } },
  spec: { containers: [] },
} as unknown as Pod;
const context = { nodeName: "n", hostIps: ["192.0.2.1", "2001:db8::1"], podIps: ["10.0.0.1", "fd00::1"] };
const capacity = { milliCpu: 2000, memoryBytes: 1 << 30 };
const settings = { metadata: { name: "settings" }, data: { colour: "blue", "a-b": "dash" } } as ConfigMap;
const keys = { metadata: { name: "keys" }, data: { key: Buffer.from("s3cret").toString("base64") } } as Secret;
const env = (container: Partial<Container>, services: Service[] = []) =>
  buildEnv({
    pod,
    container: { name: "c", ...container } as Container,
    configMap: (name) => (name === "settings" ? settings : undefined),
    secret: (name) => (name === "keys" ? keys : undefined),
    services,
    ...context,
    capacity,
  });

test.each([
  ["status.hostIP", "192.0.2.1"],
  ["status.hostIPs", "192.0.2.1,2001:db8::1"],
  ["status.podIP", "10.0.0.1"],
  ["status.podIPs", "10.0.0.1,fd00::1"],
])("addresses: %s", (path, expected) => expect(podField(pod, path, context)).toBe(expected));

describe("expansion", () => {
  const known = (name: string) => ({ A: "1", EMPTY: "" })[name];
  const cases: [string, string][] = [
    ["$(A)", "1"],
    ["x$(A)y", "x1y"],
    ["$(EMPTY)", ""],
    ["$(MISSING)", "$(MISSING)"],
    ["$$(A)", "$(A)"],
    ["$$$(A)", "$1"],
    ["$A", "$A"],
    ["$(A", "$(A"],
    ["100$", "100$"],
  ];
  test.each(cases)("%s", (text, expected) => expect(expand(text, known)).toBe(expected));
});

test("later variables see earlier ones, in order", () => {
  const out = env({
    env: [
      { name: "A", value: "1" },
      { name: "B", value: "$(A)$(C)" },
      { name: "C", value: "3" },
    ],
  });
  expect(out.get("B")).toBe("1$(C)");
});
test("references and envFrom, env last", () => {
  const out = env({
    envFrom: [{ prefix: "P_", configMapRef: { name: "settings" } }, { secretRef: { name: "keys" } }],
    env: [
      { name: "key", value: "own" },
      { name: "C", valueFrom: { configMapKeyRef: { name: "settings", key: "colour" } } },
      { name: "S", valueFrom: { secretKeyRef: { name: "keys", key: "key" } } },
      { name: "NONE", valueFrom: { configMapKeyRef: { name: "gone", key: "x", optional: true } } },
    ],
  });
  expect(Object.fromEntries(out)).toEqual({ P_colour: "blue", "P_a-b": "dash", key: "own", C: "blue", S: "s3cret" });
});
test.each([
  [{ configMapKeyRef: { name: "gone", key: "x" } }, 'configmap "gone" not found'],
  [{ secretKeyRef: { name: "gone", key: "x" } }, 'secret "gone" not found'],
  [{ configMapKeyRef: { name: "settings", key: "x" } }, "couldn't find key x in ConfigMap ns/settings"],
])("what cannot be met is said: %o", (valueFrom, message) => {
  expect(() => env({ env: [{ name: "X", valueFrom }] })).toThrow(new ConfigError(message));
});

test("the downward API's fields", () => {
  const read = (path: string) => podField(pod, path, context);
  expect(read("metadata.labels['b']")).toBe("2");
  expect(read("metadata.labels")).toBe('a="x\\"y"\nb="2"');
  expect(read("status.podIPs")).toBe("10.0.0.1,fd00::1");
  expect(read("spec.nodeName")).toBe("n");
  expect(() => read("spec.restartPolicy")).toThrow(ConfigError);
});
test.each([
  ["limits.cpu", "1m", "500"],
  ["limits.cpu", undefined, "1"],
  ["requests.memory", "1Mi", "64"],
  ["limits.memory", "1Mi", "1024"],
])("resource field %s by %s", (resource, divisor, expected) => {
  const container = { resources: { limits: { cpu: "500m" }, requests: { memory: "64Mi" } } } as unknown as Container;
  expect(resourceField(container, resource, divisor, capacity)).toBe(expected);
});

test("service variables, and none for headless services", () => {
  const service = {
    metadata: { name: "my-db", namespace: "ns" },
    spec: { clusterIP: "10.43.0.7", ports: [{ name: "sql", port: 5432, protocol: "TCP" }] },
  } as unknown as Service;
  expect(serviceVariables(service)).toEqual([
    ["MY_DB_SERVICE_HOST", "10.43.0.7"],
    ["MY_DB_SERVICE_PORT", "5432"],
    ["MY_DB_SERVICE_PORT_SQL", "5432"],
    ["MY_DB_PORT", "tcp://10.43.0.7:5432"],
    ["MY_DB_PORT_5432_TCP", "tcp://10.43.0.7:5432"],
    ["MY_DB_PORT_5432_TCP_PROTO", "tcp"],
    ["MY_DB_PORT_5432_TCP_PORT", "5432"],
    ["MY_DB_PORT_5432_TCP_ADDR", "10.43.0.7"],
  ]);
  expect(serviceVariables({ ...service, spec: { ...service.spec, clusterIP: "None" } } as Service)).toEqual([]);
  expect(env({}, [service]).get("MY_DB_SERVICE_HOST")).toBe("10.43.0.7");
  const elsewhere = { ...service, metadata: { name: "x", namespace: "other" } } as Service;
  expect(env({}, [elsewhere]).size).toBe(0);
});
