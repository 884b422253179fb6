import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { JsonSchema } from "#model/custom-resources.ts";
import { customResourceDefinitions } from "#model/resources.ts";
import { settle } from "#test/harness/fake-clock.ts";
import { type CustomServer, definition, openCustomServer, version } from "./custom-resources.fixture.ts";

let server: CustomServer;
beforeAll(async () => {
  server = await openCustomServer();
});
afterAll(() => server.close());

const base = "/apis/example.com/v1/namespaces/default";
const object = (kind: string, name: string, spec: unknown = {}, more: object = {}) => ({
  apiVersion: "example.com/v1",
  kind,
  metadata: { name },
  spec,
  ...more,
});
const merge = { contentType: "application/merge-patch+json" };

describe("definitions", () => {
  test("are accepted, served, announced, and gone with their instances", async () => {
    const made = await server.define(definition("Widget", [version("v1", { type: "object" })]));
    expect(made.metadata.generation).toBe(1);
    expect(made.status?.storedVersions).toEqual(["v1"]);
    expect(made.status?.acceptedNames).toEqual({
      plural: "widgets",
      singular: "widget",
      kind: "Widget",
      listKind: "WidgetList",
      shortNames: ["wi"],
      categories: ["all"],
    });
    expect(made.status?.conditions?.map((c) => [c.type, c.status, c.reason])).toEqual([
      ["NamesAccepted", "True", "NoConflicts"],
      ["Established", "True", "InitialNamesAccepted"],
    ]);
    const list = await server.request("GET", "/apis/example.com/v1");
    expect(list["resources"]).toMatchObject([
      { name: "widgets", singularName: "widget", kind: "Widget", namespaced: true },
    ]);
    await server.request("POST", `${base}/widgets`, object("Widget", "one"));
    const read = await server.request("GET", `${base}/widgets/one`);
    expect(read).toMatchObject({ apiVersion: "example.com/v1", kind: "Widget", metadata: { generation: 1 } });
    const held = object("Widget", "held");
    (held.metadata as Record<string, unknown>)["finalizers"] = ["example.com/held", "finalizer.of.nobody"];
    await server.request("POST", `${base}/widgets`, held);
    const deleted = await server.client.delete(customResourceDefinitions, { name: "widgets.example.com" });
    expect(deleted.metadata.finalizers).toEqual(["customresourcecleanup.apiextensions.k8s.io"]);
    await settle();
    await settle();
    expect(await server.refusal("POST", `${base}/widgets`, object("Widget", "late"))).toBe(
      "create not allowed while custom resource definition is terminating",
    );
    expect(await server.refusal("GET", `${base}/widgets/one`)).toContain("not found");
    await server.request("PATCH", `${base}/widgets/held`, { metadata: { finalizers: null } }, merge);
    await server.clock.advance(1500);
    await settle();
    expect(
      await server.refusal("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"),
    ).toBe('customresourcedefinitions.apiextensions.k8s.io "widgets.example.com" not found');
    expect(await server.refusal("GET", `${base}/widgets`)).toBe("404 page not found");
  });

  test("by the name of a built-in resource change nothing about that", async () => {
    const made = definition("Lease", [version("v9", { type: "object" })]);
    made.spec.group = "coordination.k8s.io";
    made.metadata = {
      name: "leases.coordination.k8s.io",
      annotations: { "api-approved.kubernetes.io": "https://example.com/approved" },
    };
    const approved = await server.define(made);
    expect(approved.status?.conditions?.at(-1)).toMatchObject({
      type: "KubernetesAPIApprovalPolicyConformant",
      status: "True",
      message: "approved in https://example.com/approved",
    });
    const lease = { metadata: { name: "l", namespace: "default" }, spec: { holderIdentity: "x" } };
    const path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    expect((await server.request("POST", path, lease))["spec"]).toEqual({ holderIdentity: "x" });
    expect((await server.request("GET", path.replace("v1", "v9")))["items"]).toEqual([]);
    await server.client.delete(customResourceDefinitions, { name: "leases.coordination.k8s.io" });
    for (let i = 0; i < 6; i++) await settle();
    expect((await server.request("GET", `${path}/l`)).kind).toBe("Lease");
  });

  test("that take the names of others wait until they are free", async () => {
    await server.define(definition("Apple", [version("v1", { type: "object" })]));
    const other = definition("Pear", [version("v1", { type: "object" })]);
    Object.assign(other.spec.names, { kind: "Apple", listKind: "PearList" });
    const made = await server.define(other);
    expect(made.status?.conditions?.map((c) => [c.type, c.status, c.reason, c.message])).toEqual([
      ["NamesAccepted", "False", "KindConflict", '"Apple" is already in use'],
      ["Established", "False", "NotAccepted", "not all names are accepted"],
    ]);
    await server.client.delete(customResourceDefinitions, { name: "apples.example.com" });
    for (let i = 0; i < 6; i++) await settle();
    const now = await server.client.get(customResourceDefinitions, "pears.example.com");
    expect(now.status?.conditions?.map((c) => c.status)).toEqual(["True", "True"]);
  });

  const bad: readonly [string, (d: ReturnType<typeof definition>) => void, string][] = [
    [
      "name",
      (d) => {
        d.metadata.name = "x.example.com";
      },
      'metadata.name: Invalid value: "x.example.com": must be spec.names.plural+"."+spec.group',
    ],
    [
      "scope",
      (d) => {
        d.spec.scope = "Galaxy";
      },
      'spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"',
    ],
    [
      "no storage",
      (d) => {
        d.spec.versions[0]!.storage = false;
      },
      "must have exactly one version marked as storage version",
    ],
    [
      "no schema",
      (d) => void delete d.spec.versions[0]!.schema,
      "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
    ],
    [
      "no type",
      (d) => {
        spec(d).type = "";
      },
      "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
    ],
    [
      "rules in allOf",
      (d) => {
        spec(d).allOf = [{ "x-kubernetes-validations": [{ rule: "true" }] }];
      },
      "spec.validation.openAPIV3Schema.properties[spec].allOf[0].x-kubernetes-validations: Forbidden: must be empty to be structural",
    ],
    [
      "both",
      (d) =>
        Object.assign(spec(d), { properties: { a: { type: "string" } }, additionalProperties: { type: "string" } }),
      "properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
    ],
    [
      "type in anyOf",
      (d) => Object.assign(spec(d), { anyOf: [{ type: "object" }] }),
      "properties[spec].anyOf[0].type: Forbidden: must be empty to be structural",
    ],
    [
      "default",
      (d) => Object.assign(spec(d), { properties: { a: { type: "integer", default: "x" } } }),
      'properties[a].default: Invalid value: "string": default in body must be of type integer: "string"',
    ],
    [
      "map keys",
      (d) =>
        Object.assign(spec(d), {
          properties: {
            l: {
              type: "array",
              "x-kubernetes-list-type": "map",
              "x-kubernetes-list-map-keys": ["k"],
              items: { type: "object", properties: { k: { type: "string" } } },
            },
          },
        }),
      "items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
    ],
    [
      "column",
      (d) => {
        d.spec.versions[0]!.additionalPrinterColumns = [{ name: "A", type: "text", jsonPath: ".a" }];
      },
      'additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string',
    ],
    [
      "scale",
      (d) => {
        const scale = { specReplicasPath: ".replicas", statusReplicasPath: ".status.replicas" };
        d.spec.versions[0]!.subresources = { scale };
      },
      'specReplicasPath: Invalid value: ".replicas": should be a json path under .spec',
    ],
    [
      "approval",
      (d) => {
        d.spec.group = "x.k8s.io";
        d.metadata.name = "bads.x.k8s.io";
      },
      "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation",
    ],
  ];
  const spec = (d: ReturnType<typeof definition>): JsonSchema =>
    d.spec.versions[0]!.schema!.openAPIV3Schema!.properties!["spec"]!;
  test.each(bad)("are refused: %s", async (_, spoil, message) => {
    const made = definition("Bad", [version("v1", { type: "object" })]);
    spoil(made);
    expect(await server.refusal("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", made)).toContain(
      message,
    );
  });
});

describe("schemas", () => {
  const schema: JsonSchema = {
    type: "object",
    required: ["size"],
    properties: {
      size: { type: "integer", minimum: 1, maximum: 10 },
      color: { type: "string", enum: ["red", "green"], default: "red" },
      name: { type: "string", pattern: "^[a-z]+$", maxLength: 5 },
      port: { "x-kubernetes-int-or-string": true },
      when: { type: "string", format: "date-time" },
      note: { type: "string", nullable: true },
      plain: { type: "string" },
      deep: { type: "object", properties: { on: { type: "boolean", default: true } }, default: {} },
      set: { type: "array", "x-kubernetes-list-type": "set", items: { type: "string" } },
      map: {
        type: "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        items: { type: "object", required: ["name"], properties: { name: { type: "string" }, n: { type: "integer" } } },
      },
      labels: { type: "object", additionalProperties: { type: "string" } },
      any: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
      template: {
        type: "object",
        "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true,
      },
      one: {
        type: "object",
        properties: { a: { type: "string" }, b: { type: "string" } },
        oneOf: [{ required: ["a"] }, { required: ["b"] }],
      },
    },
  };
  beforeAll(async () => {
    await server.define(definition("Gadget", [version("v1", schema)]));
  });
  const post = (name: string, spec: unknown, query: Record<string, string> = {}) =>
    server.refusal("POST", `${base}/gadgets`, object("Gadget", name, spec), { query });

  test("prune, default and keep what they should", async () => {
    const made = await server.request(
      "POST",
      `${base}/gadgets`,
      object("Gadget", "pruned", {
        size: 3,
        extra: 1,
        deep: { off: 1 },
        note: null,
        plain: null,
        color: null,
        any: { x: { y: 1 } },
        labels: { k: "v" },
        template: { apiVersion: "v1", kind: "Pod", metadata: { name: "t", bogus: 1 }, spec: { free: true } },
      }),
    );
    expect(made["spec"]).toEqual({
      size: 3,
      color: "red",
      deep: { on: true },
      note: null,
      any: { x: { y: 1 } },
      labels: { k: "v" },
      template: { apiVersion: "v1", kind: "Pod", metadata: { name: "t" }, spec: { free: true } },
    });
  });

  const invalid: readonly [string, unknown, string][] = [
    ["type", { size: "x" }, 'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"'],
    ["missing", {}, "spec.size: Required value"],
    ["large", { size: 11 }, "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"],
    ["small", { size: 0 }, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"],
    ["enum", { size: 1, color: "blue" }, 'spec.color: Unsupported value: "blue": supported values: "red", "green"'],
    ["pattern", { size: 1, name: "A" }, "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"],
    ["long", { size: 1, name: "abcdef" }, "spec.name: Too long: may not be more than 5 bytes"],
    ["int or string", { size: 1, port: true }, 'spec.port in body must be of type integer,string: "boolean"'],
    [
      "format",
      { size: 1, when: "now" },
      'spec.when: Invalid value: "now": spec.when in body must be of type date-time: "now"',
    ],
    ["set", { size: 1, set: ["a", "b", "a"] }, 'spec.set[2]: Duplicate value: "a"'],
    [
      "map",
      { size: 1, map: [{ name: "a" }, { name: "a", n: 2 }] },
      'spec.map[1]: Duplicate value: map[string]interface {}{"name":"a"}',
    ],
    [
      "labels",
      { size: 1, labels: { k: 1 } },
      'spec.labels.k: Invalid value: "integer": spec.labels.k in body must be of type string: "integer"',
    ],
    ["embedded", { size: 1, template: { kind: "Pod" } }, "spec.template.apiVersion: Required value: must not be empty"],
    [
      "none of",
      { size: 1, one: {} },
      '<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found none valid',
    ],
    [
      "both of",
      { size: 1, one: { a: "", b: "" } },
      '"spec.one" must validate one and only one schema (oneOf). Found 2 valid alternatives',
    ],
  ];
  test.each(invalid)("refuse: %s", async (_, spec, message) => {
    expect(await post("refused", spec)).toContain(message);
  });

  test("tell of unknown fields as asked", async () => {
    const body = object("Gadget", "strict", {
      size: 1,
      extra: 1,
      template: { apiVersion: "v1", kind: "Pod", metadata: { bogus: 1 } },
    });
    expect(await server.refusal("POST", `${base}/gadgets`, body, { query: { fieldValidation: "Strict" } })).toBe(
      'Gadget in version "v1" cannot be handled as a Gadget: strict decoding error: unknown field "spec.template.metadata.bogus", unknown field "spec.extra"',
    );
    expect(await post("ignored", { size: 1, extra: 1 }, { fieldValidation: "Ignore" })).toContain('"uid"');
  });

  test("do not look again at what was let in once", async () => {
    await server.request("POST", `${base}/gadgets`, object("Gadget", "old", { size: 9 }));
    const current = await server.client.get(customResourceDefinitions, "gadgets.example.com");
    const stricter = structuredClone(current);
    const properties = stricter.spec.versions[0]!.schema!.openAPIV3Schema!.properties!["spec"]!.properties!;
    properties["size"]!.maximum = 5;
    properties["added"] = { type: "string", default: "later" };
    await server.update(stricter);
    expect((await server.request("GET", `${base}/gadgets/old`))["spec"]).toMatchObject({ size: 9, added: "later" });
    const patched = await server.request("PATCH", `${base}/gadgets/old`, { spec: { name: "ok" } }, merge);
    expect(patched).toMatchObject({ spec: { size: 9, name: "ok" }, metadata: { generation: 2 } });
    expect(await server.refusal("PATCH", `${base}/gadgets/old`, { spec: { size: 8 } }, merge)).toContain(
      "less than or equal to 5",
    );
  });
});

describe("rules", () => {
  const ruled: JsonSchema = {
    type: "object",
    properties: {
      min: { type: "integer" },
      max: { type: "integer" },
      name: {
        type: "string",
        maxLength: 20,
        "x-kubernetes-validations": [{ rule: "self == oldSelf", message: "is immutable" }],
      },
      items: {
        type: "array",
        maxItems: 10,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["key"],
        items: {
          type: "object",
          required: ["key"],
          properties: {
            key: { type: "string", maxLength: 10 },
            amount: { type: "string", maxLength: 10 },
          },
          "x-kubernetes-validations": [{ rule: "!has(self.amount) || isQuantity(self.amount)", fieldPath: ".amount" }],
        },
      },
    },
    "x-kubernetes-validations": [
      {
        rule: "!has(self.min) || !has(self.max) || self.min <= self.max",
        messageExpression: "self.min > self.max ? 'min is above max' : 'never'",
        reason: "FieldValueForbidden",
        fieldPath: ".min",
      },
    ],
  };
  beforeAll(async () => {
    await server.define(definition("Rule", [version("v1", ruled)]));
  });

  test("refuse with message, reason and path; transition rules only updates", async () => {
    const post = (name: string, spec: object) => server.refusal("POST", `${base}/rules`, object("Rule", name, spec));
    expect(await post("a", { min: 3, max: 2 })).toBe(
      'Rule.example.com "a" is invalid: spec.min: Forbidden: min is above max',
    );
    expect(await post("a", { items: [{ key: "x", amount: "much" }] })).toBe(
      'Rule.example.com "a" is invalid: spec.items[0].amount: Invalid value: "object": failed rule: !has(self.amount) || isQuantity(self.amount)',
    );
    expect(await post("a", { min: "x", max: 2 })).toContain("some validation rules were not checked");
    await server.request("POST", `${base}/rules`, object("Rule", "a", { name: "first", min: 1, max: 2 }));
    expect(await server.refusal("PATCH", `${base}/rules/a`, { spec: { name: "second" } }, merge)).toBe(
      'Rule.example.com "a" is invalid: spec.name: Invalid value: "string": is immutable',
    );
  });

  test.each([
    ["unknown field", "self.nothing > 1", "undefined field 'nothing'"],
    ["no boolean", "self.min", "must evaluate to a bool"],
    ["no expression", "self.min >", "compilation failed: ERROR: <input>:1:"],
  ])("that cannot be are refused with their definition: %s", async (_, rule, message) => {
    const made = definition("Unruly", [version("v1", structuredClone(ruled))]);
    made.spec.versions[0]!.schema!.openAPIV3Schema!.properties!["spec"]!["x-kubernetes-validations"] = [{ rule }];
    const refused = await server.refusal("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", made);
    expect(refused).toContain(
      "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value",
    );
    expect(refused).toContain(message);
  });

  test("that could take too long are refused with their definition", async () => {
    const made = definition("Endless", [
      version("v1", {
        type: "object",
        properties: { all: { type: "array", items: { type: "string" } } },
        "x-kubernetes-validations": [{ rule: "self.all.all(a, self.all.all(b, a != b))" }],
      }),
    ]);
    const refused = await server.refusal("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", made);
    expect(refused).toContain("estimated rule cost exceeds budget by factor of more than 100x");
  });
});

describe("subresources and versions", () => {
  const fields: JsonSchema = {
    type: "object",
    properties: { replicas: { type: "integer" }, color: { type: "string" } },
  };
  beforeAll(async () => {
    const sub = {
      subresources: {
        status: {},
        scale: {
          specReplicasPath: ".spec.replicas",
          statusReplicasPath: ".status.replicas",
          labelSelectorPath: ".status.selector",
        },
      },
      additionalPrinterColumns: [
        { name: "Replicas", type: "integer", jsonPath: ".spec.replicas" },
        { name: "Ready", type: "string", jsonPath: '.status.conditions[?(@.type=="Ready")].status' },
      ],
      selectableFields: [{ jsonPath: ".spec.color" }],
    };
    await server.define(
      definition("Tool", [version("v1", fields, sub), version("v2", fields, { ...sub, storage: false })]),
    );
  });

  test("status is apart and does not raise the generation", async () => {
    const made = await server.request(
      "POST",
      `${base}/tools`,
      object("Tool", "a", { replicas: 1 }, { status: { replicas: 9 } }),
    );
    expect(made["status"]).toBeUndefined();
    const status = await server.request(
      "PATCH",
      `${base}/tools/a/status`,
      {
        metadata: { labels: { no: "no" } },
        spec: { replicas: 7 },
        status: { replicas: 3, selector: "app=a", conditions: [{ type: "Ready", status: "True" }] },
      },
      merge,
    );
    expect(status).toMatchObject({ metadata: { generation: 1 }, spec: { replicas: 1 }, status: { replicas: 3 } });
    expect(status.metadata.labels).toBeUndefined();
  });

  test("a status may have defaults, which a new object shows at once", async () => {
    const made = definition("Waiter", [version("v1", { type: "object" }, { subresources: { status: {} } })]);
    const { properties } = made.spec.versions[0]!.schema!.openAPIV3Schema!;
    properties!["status"] = {
      type: "object",
      properties: { phase: { type: "string" } },
      default: { phase: "Waiting" },
    };
    await server.define(made);
    const body = object("Waiter", "w", {}, { status: { phase: "Mine" } });
    expect((await server.request("POST", `${base}/waiters`, body))["status"]).toEqual({ phase: "Waiting" });
    expect((await server.request("GET", `${base}/waiters/w`))["status"]).toEqual({ phase: "Waiting" });
  });

  test("who scales by another path owns that path", async () => {
    const scale = { specReplicasPath: ".spec.shards", statusReplicasPath: ".status.shards" };
    const sharded = version(
      "v1",
      { type: "object", properties: { shards: { type: "integer" } } },
      { subresources: { scale } },
    );
    await server.define(definition("Shard", [sharded]));
    await server.request("POST", `${base}/shards`, object("Shard", "s", { shards: 1 }));
    await server.request(
      "PATCH",
      `${base}/shards/s/scale`,
      { spec: { replicas: 4 } },
      { ...merge, query: { fieldManager: "scaler" } },
    );
    const { metadata } = await server.request("GET", `${base}/shards/s`);
    const entry = metadata.managedFields?.find(({ manager }) => manager === "scaler");
    expect(entry).toMatchObject({ subresource: "scale", fieldsV1: { "f:spec": { "f:shards": {} } } });
  });

  test("scale reads and writes by paths", async () => {
    const scale = await server.request("GET", `${base}/tools/a/scale`);
    expect(scale).toMatchObject({ kind: "Scale", spec: { replicas: 1 }, status: { replicas: 3, selector: "app=a" } });
    await server.request("PATCH", `${base}/tools/a/scale`, { spec: { replicas: 4 } }, merge);
    expect(await server.request("GET", `${base}/tools/a`)).toMatchObject({
      spec: { replicas: 4 },
      metadata: { generation: 2 },
    });
    expect(await server.refusal("PATCH", `${base}/tools/a/scale`, { spec: { replicas: -1 } }, merge)).toContain("-1");
  });

  test("selectable fields select, others do not", async () => {
    await server.request("POST", `${base}/tools`, object("Tool", "red", { color: "red" }));
    const found = await server.request("GET", `${base}/tools`, undefined, {
      query: { fieldSelector: "spec.color=red" },
    });
    expect((found["items"] as { metadata: { name: string } }[]).map((i) => i.metadata.name)).toEqual(["red"]);
    expect(await server.refusal("GET", `${base}/tools`, undefined, { query: { fieldSelector: "spec.size=1" } })).toBe(
      "field label not supported: spec.size",
    );
  });

  test("versions without conversion differ in their name, and a new storage version is written on the next write", async () => {
    const v2 = base.replace("v1", "v2");
    expect(await server.request("GET", `${v2}/tools/a`)).toMatchObject({
      apiVersion: "example.com/v2",
      spec: { replicas: 4 },
    });
    const current = await server.client.get(customResourceDefinitions, "tools.example.com");
    const next = structuredClone(current);
    next.spec.versions[0]!.storage = false;
    next.spec.versions[1]!.storage = true;
    const updated = await server.update(next);
    expect(updated.status?.storedVersions).toEqual(["v1", "v2"]);
    const before = await server.request("GET", `${base}/tools/a`);
    const after = await server.request("PUT", `${base}/tools/a`, before);
    expect(after.apiVersion).toBe("example.com/v1");
    expect(after.metadata.resourceVersion).not.toBe(before.metadata.resourceVersion);
    const again = await server.request("PUT", `${base}/tools/a`, after);
    expect(again.metadata.resourceVersion).toBe(after.metadata.resourceVersion);
    const without = structuredClone(updated);
    without.spec.versions.shift();
    expect(
      await server.refusal("PUT", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tools.example.com", without),
    ).toContain('status.storedVersions[0]: Invalid value: "v1": must appear in spec.versions');
  });

  test("watches speak the version asked for and end when the definition changes", async () => {
    const events: string[] = [];
    const watch = async () => {
      const stream = server.client.transport.watch(
        { method: "GET", path: `${base}/tools`, query: { watch: "true", fieldSelector: "spec.color=blue" } },
        new AbortController().signal,
      );
      for await (const { type, object: seen } of stream) {
        events.push(
          `${type} ${(seen as { apiVersion?: string }).apiVersion} ${(seen as { metadata: { name?: string } }).metadata.name}`,
        );
      }
      events.push("end");
    };
    const watching = watch();
    await settle();
    await server.request("POST", `${base.replace("v1", "v2")}/tools`, {
      ...object("Tool", "blue", { color: "blue" }),
      apiVersion: "example.com/v2",
    });
    await settle();
    await server.request("PATCH", `${base}/tools/blue`, { spec: { color: "red" } }, merge);
    for (let i = 0; i < 4; i++) await settle();
    expect(events).toEqual(["ADDED example.com/v1 blue", "DELETED example.com/v1 blue"]);
    const current = structuredClone(await server.client.get(customResourceDefinitions, "tools.example.com"));
    current.spec.versions[0]!.additionalPrinterColumns = [];
    await server.update(current);
    await watching;
    expect(events.at(-1)).toBe("end");
  });

  test("apply owns by the keys of the schema", async () => {
    const config = (value: number) => ({ ...object("Tool", "applied", { replicas: value }) });
    const apply = (manager: string, value: number) =>
      server.refusal("PATCH", `${base}/tools/applied`, config(value), {
        contentType: "application/apply-patch+yaml",
        query: { fieldManager: manager },
      });
    expect(JSON.parse(await apply("one", 1))).toMatchObject({ spec: { replicas: 1 } });
    expect(await apply("two", 2)).toContain('conflict with "one"');
  });
});
