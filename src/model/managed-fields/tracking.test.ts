import { describe, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { facts } from "../facts.ts";
import type { ManagedFieldsEntry } from "../gen/meta-v1.ts";
import type { UnknownObject } from "../object.ts";
import type { JsonObject } from "../patch/json-value.ts";
import { emptySet, equalSets, pathsOf, setOfPaths } from "./field-set.ts";
import { createBuiltInSchemas, type MapSchema } from "./schema.ts";
import { type Target, trackApply, trackUpdate } from "./tracking.ts";
import { compareValues, fieldsOf, mergeValues, removeFields } from "./typed.ts";

const schemas = createBuiltInSchemas(facts);
const target = (type: string, apiVersion: string, options: Partial<Target> = {}): Target => ({
  apiVersion,
  kind: type.slice(type.indexOf(".") + 1),
  schema: schemas(type),
  subresource: "",
  resets: emptySet,
  other: () => undefined,
  ...options,
});
const deployments = target("apps/v1.Deployment", "apps/v1", { resets: setOfPaths([["f:status"]]) });
const configMaps = target("core/v1.ConfigMap", "v1");
const services = target("core/v1.Service", "v1", { resets: setOfPaths([["f:status"]]) });

/** A history of writes to one object, one second apart. */
class History {
  object: UnknownObject | undefined;
  #seconds = 0;
  readonly #target: Target;
  constructor(of: Target) {
    this.#target = of;
  }

  get now(): string {
    return `2026-01-01T00:00:${String(this.#seconds).padStart(2, "0")}Z`;
  }

  apply(manager: string, fields: JsonObject, force = false): this {
    this.#seconds++;
    const config = this.#whole(fields);
    this.object = trackApply(this.#target, this.object, config, { manager, force, now: this.now });
    return this;
  }

  /** `change` sees a copy without managedFields, as a client that does not know them. */
  update(manager: string, change: (object: Writable) => void, of: Target = this.#target): this {
    this.#seconds++;
    const next = structuredClone(this.object ?? this.#whole({})) as unknown as Writable;
    delete next.metadata["managedFields"];
    change(next);
    this.object = trackUpdate(of, this.object, next as unknown as UnknownObject, { manager, now: this.now });
    return this;
  }

  #whole(fields: JsonObject): JsonObject {
    const { apiVersion, kind } = this.#target;
    const metadata = { name: "x", namespace: "default", ...(fields["metadata"] as object | undefined) };
    return { apiVersion, kind, ...fields, metadata };
  }

  get entries(): readonly ManagedFieldsEntry[] {
    return this.object?.metadata.managedFields ?? [];
  }

  /** `manager operation: paths`. */
  get owners(): Record<string, string[]> {
    return Object.fromEntries(
      this.entries.map((entry) => [
        `${entry.manager} ${entry.operation}${entry.subresource ? ` ${entry.subresource}` : ""}`,
        pathsOf(entry.fieldsV1 as never),
      ]),
    );
  }
}
// biome-ignore lint/suspicious/noExplicitAny: tests reach deep into objects of any kind.
type Writable = any;

const data = (values: Record<string, string>): JsonObject => ({ data: values });

describe("apply", () => {
  test("owns what it says, and another applier may say the same", () => {
    const history = new History(configMaps).apply("a", data({ x: "1", y: "1" })).apply("b", data({ x: "1" }));
    expect(history.owners).toEqual({ "a Apply": [".data.x", ".data.y"], "b Apply": [".data.x"] });
  });

  test("what is no longer said goes, unless somebody else owns it", () => {
    const history = new History(configMaps)
      .apply("a", data({ x: "1", y: "1", z: "1" }))
      .apply("b", data({ x: "1" }))
      .update("c", (object) => {
        object.data.own = "kept";
      })
      .apply("a", data({ z: "1" }));
    expect(history.object?.["data"]).toEqual({ x: "1", z: "1", own: "kept" });
    expect(history.owners).toEqual({ "a Apply": [".data.z"], "b Apply": [".data.x"], "c Update": [".data.own"] });
  });

  test("a manager that says nothing more owns nothing and is gone", () => {
    const history = new History(configMaps)
      .apply("a", data({ x: "1" }))
      .apply("b", data({ y: "1" }))
      .apply("a", {});
    expect(history.object?.["data"]).toEqual({ y: "1" });
    expect(Object.keys(history.owners)).toEqual(["b Apply"]);
  });

  test("the same again changes nothing, not even the time", () => {
    const history = new History(configMaps).apply("a", data({ x: "1" })).update("b", (object) => {
      object.data.y = "1";
    });
    const before = history.object;
    history.apply("a", data({ x: "1" }));
    expect(history.object).toEqual(before);
  });

  test("the time moves with the values and with the set", () => {
    const history = new History(configMaps).apply("a", data({ x: "1" }));
    expect(history.entries[0]?.time).toBe("2026-01-01T00:00:01Z");
    history.apply("a", data({ x: "2" }));
    expect(history.entries[0]?.time).toBe("2026-01-01T00:00:02Z");
    // Takes part in what is there already: only the set grows.
    history.update("b", (object) => {
      object.data.y = "1";
    });
    history.apply("a", data({ x: "2", y: "1" }));
    expect(history.entries[0]?.time).toBe("2026-01-01T00:00:04Z");
  });

  test("an object nobody tracked belongs to before-first-apply", () => {
    const history = new History(configMaps);
    history.object = {
      ...({ apiVersion: "v1", kind: "ConfigMap" } as const),
      metadata: { name: "x", uid: "u" },
      data: { x: "1", y: "1" },
    };
    history.update("c", (object) => {
      object.data.y = "2";
    });
    expect(history.owners).toEqual({});
    history.apply("a", data({ x: "1" }));
    expect(history.owners).toEqual({
      "a Apply": [".data.x"],
      "before-first-apply Update": [".data", ".data.x", ".data.y"],
    });
    expect(() => history.apply("a", data({ y: "3" }))).toThrow(
      'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.y',
    );
  });

  test("null takes a value away and owns that", () => {
    const history = new History(deployments)
      .apply("a", { spec: { replicas: 3, paused: true } })
      .apply("a", { spec: { replicas: 3, paused: null } });
    expect((history.object as Writable).spec.paused).toBe(null);
    expect(history.owners["a Apply"]).toEqual([".spec.paused", ".spec.replicas"]);
  });
});

const container = (name: string, image: string, more: JsonObject = {}): JsonObject => ({ name, image, ...more });
const podSpec = (spec: JsonObject): JsonObject => ({ spec: { template: { spec } } });
const containersIn = (history: History): JsonObject[] => (history.object as Writable).spec.template.spec.containers;

describe("lists", () => {
  test("items of keyed lists are owned one by one, members in them too", () => {
    const history = new History(deployments)
      .apply("a", podSpec({ containers: [container("main", "one")] }))
      .apply("b", podSpec({ containers: [container("side", "two")] }))
      .apply("c", podSpec({ containers: [{ name: "main", tty: true }] }));
    expect(containersIn(history)).toEqual([{ name: "main", image: "one", tty: true }, container("side", "two")]);
    history.apply("b", {}).apply("c", {});
    expect(containersIn(history)).toEqual([container("main", "one")]);
  });

  test.each<[string, string[], string[], string[]]>([
    ["what both have is in the order of what is applied", ["a", "b", "c"], ["c", "a"], ["b", "c", "a"]],
    ["others keep their place", ["x", "a", "y", "b"], ["a", "b"], ["x", "a", "y", "b"]],
    ["new ones stand before what they are applied before", ["x", "b"], ["a", "b"], ["x", "a", "b"]],
    ["new ones at the end", ["a", "x"], ["a", "b"], ["a", "x", "b"]],
    ["nothing in common", ["x"], ["a"], ["x", "a"]],
    ["turned round", ["a", "b", "c"], ["c", "b", "a"], ["c", "b", "a"]],
  ])("merge: %s", (_name, live, config, wanted) => {
    const spec = (names: string[]): JsonObject => ({ containers: names.map((name) => ({ name })) });
    const merged = mergeValues(schemas("core/v1.PodSpec"), spec(live), spec(config));
    expect((merged["containers"] as JsonObject[]).map((item) => item["name"])).toEqual(wanted);
  });

  test("a key that is left out is its default", () => {
    const history = new History(services)
      .apply("a", { spec: { ports: [{ port: 80 }, { port: 80, protocol: "UDP" }] } })
      .update("b", (object) => {
        object.spec.ports[0].protocol = "TCP";
        object.spec.ports[0].nodePort = 30000;
      });
    expect(history.owners).toEqual({
      "a Apply": [
        '.spec.ports[port=80,protocol="TCP"]',
        '.spec.ports[port=80,protocol="UDP"]',
        '.spec.ports[port=80,protocol="TCP"].port',
        '.spec.ports[port=80,protocol="UDP"].port',
        '.spec.ports[port=80,protocol="UDP"].protocol',
      ],
      "b Update": ['.spec.ports[port=80,protocol="TCP"].nodePort', '.spec.ports[port=80,protocol="TCP"].protocol'],
    });
  });

  test("sets are owned by value, atomic lists and maps whole", () => {
    const history = new History(services)
      .apply("a", {
        metadata: { finalizers: ["example.com/a"] },
        spec: { externalIPs: ["192.0.2.1"], selector: { app: "x" } },
      })
      .apply("b", { metadata: { finalizers: ["example.com/b"] } });
    expect(history.owners).toEqual({
      "a Apply": ['.metadata.finalizers[="example.com/a"]', ".spec.externalIPs", ".spec.selector"],
      "b Apply": ['.metadata.finalizers[="example.com/b"]'],
    });
    expect(() => history.apply("b", { spec: { selector: { app: "x", tier: "y" } } })).toThrow(
      'Apply failed with 1 conflict: conflict with "a": .spec.selector',
    );
    history.apply("a", {});
    expect(history.object?.metadata.finalizers).toEqual(["example.com/b"]);
    expect(history.object?.["spec"]).toBeUndefined();
  });

  test("of stored items that share a key the applied one takes the place", () => {
    const history = new History(deployments).update("a", (object) => {
      object.spec = {
        template: { spec: { containers: [{ name: "m", env: ["1", "2"].map((value) => ({ name: "A", value })) }] } },
      };
    });
    history.apply("b", podSpec({ containers: [{ name: "m", env: [{ name: "A", value: "3" }] }] }), true);
    expect(containersIn(history)[0]?.["env"]).toEqual([{ name: "A", value: "3" }]);
  });
});

describe("conflicts", () => {
  const history = () =>
    new History(deployments).apply("a", { spec: { replicas: 1, paused: true } }).update("kubectl-edit", (object) => {
      object.spec.minReadySeconds = 5;
    });

  test("one is said in a line, several in a list, each is a cause", () => {
    const one = caught(() => history().apply("b", { spec: { replicas: 2, paused: true } }));
    expect(one).toMatchObject({
      message: 'Apply failed with 1 conflict: conflict with "a": .spec.replicas',
      status: {
        code: 409,
        reason: "Conflict",
        details: {
          causes: [{ reason: "FieldManagerConflict", message: 'conflict with "a"', field: ".spec.replicas" }],
        },
      },
    });
    const many = caught(() => history().apply("b", { spec: { replicas: 2, paused: false, minReadySeconds: 6 } }));
    expect(many).toMatchObject({
      message: [
        'Apply failed with 3 conflicts: conflicts with "a":',
        "- .spec.paused",
        "- .spec.replicas",
        'conflicts with "kubectl-edit" using apps/v1:',
        "- .spec.minReadySeconds",
      ].join("\n"),
    });
  });

  test("force takes the fields", () => {
    const forced = history().apply("b", { spec: { replicas: 2 } }, true);
    expect(forced.owners).toEqual({
      "a Apply": [".spec.paused"],
      "b Apply": [".spec.replicas"],
      "kubectl-edit Update": [".spec.minReadySeconds"],
    });
  });

  test("an update takes the fields from appliers, and they conflict then", () => {
    const updated = history().update("c", (object) => {
      object.spec.replicas = 9;
    });
    expect(updated.owners["a Apply"]).toEqual([".spec.paused"]);
    expect(() => updated.apply("a", { spec: { replicas: 1, paused: true } })).toThrow(
      'Apply failed with 1 conflict: conflict with "c" using apps/v1: .spec.replicas',
    );
    // Giving up the field solves it without taking it out.
    updated.apply("a", { spec: { paused: true } });
    expect(updated.object?.["spec"]).toEqual({ replicas: 9, paused: true, minReadySeconds: 5 });
  });
});

describe("update", () => {
  test("owns what it added and changed; what is left out is nobody's", () => {
    const history = new History(configMaps)
      .update("a", (object) => {
        object.metadata.labels = { one: "1", two: "2" };
        object.data = { x: "1" };
      })
      .update("b", (object) => {
        delete object.metadata.labels.one;
        object.data.x = "2";
        object.metadata.resourceVersion = "5";
        object.metadata.generation = 7;
      });
    expect(history.owners).toEqual({
      "a Update": [".data", ".metadata.labels", ".metadata.labels.two"],
      "b Update": [".data.x"],
    });
    expect(history.entries.map((entry) => entry.time)).toEqual(["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]);
  });

  test("fields a write resets are nobody's; a subresource is a manager of its own", () => {
    const status = { ...deployments, subresource: "status", resets: setOfPaths([["f:spec"]]) };
    const history = new History(deployments)
      .update("a", (object) => {
        object.spec = { replicas: 1 };
        object.status = { replicas: 4 };
      })
      .update(
        "a",
        (object) => {
          object.spec.replicas = 2;
          object.status.observedGeneration = 1;
        },
        status,
      );
    expect(history.owners).toEqual({
      "a Update": [".spec.replicas"],
      "a Update status": [".status.observedGeneration"],
    });
  });

  test.each<[string, unknown, string[]]>([
    ["an entry reset", [{}], []],
    ["nonsense", [{ manager: "m", operation: "Eat", apiVersion: "v1" }], ["a Update", "b Update"]],
    ["an empty list", [], ["a Update", "b Update"]],
    [
      "a table of its own",
      [{ manager: "m", operation: "Apply", apiVersion: "v1", fieldsType: "FieldsV1", fieldsV1: { "f:data": {} } }],
      ["b Update", "m Apply"],
    ],
  ])("managedFields sent by a client: %s", (_name, sent, owners) => {
    const history = new History(configMaps)
      .update("a", (object) => {
        object.data = { x: "1" };
      })
      .update("b", (object) => {
        object.metadata.managedFields = sent;
        object.data.y = "1";
      });
    expect(Object.keys(history.owners).sort()).toEqual(owners);
  });

  test("an object remembers ten updaters and the rest as ancient", () => {
    const history = new History(configMaps).update("m0", (object) => {
      object.data = { k0: "1" };
    });
    for (let index = 1; index < 14; index++) {
      history.update(`m${index}`, (object) => {
        object.data[`k${index}`] = "1";
      });
    }
    expect(history.entries).toHaveLength(10);
    expect(history.owners["ancient-changes Update"]).toEqual([
      ".data",
      ...[0, 1, 2, 3, 4].map((index) => `.data.k${index}`),
    ]);
    expect(history.owners["m13 Update"]).toEqual([".data.k13"]);
  });

  test("who wrote in a version that is gone owns nothing", () => {
    const entry = {
      manager: "old",
      operation: "Update",
      fieldsType: "FieldsV1",
      fieldsV1: { "f:data": { "f:x": {} } },
    };
    const history = new History(configMaps).update("a", (object) => {
      object.data = { x: "1" };
    });
    history.object!.metadata.managedFields = [...history.entries, { ...entry, apiVersion: "v1beta1" }];
    history.update("b", (object) => {
      object.data.y = "1";
    });
    expect(Object.keys(history.owners)).toEqual(["a Update", "b Update"]);
  });
});

describe("kubectl", () => {
  const annotation = "kubectl.kubernetes.io/last-applied-configuration";
  const clientSide = (replicas: number): History =>
    new History(deployments).update("kubectl-client-side-apply", (object) => {
      object.spec = { replicas, paused: false };
      const last = { apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "x" }, spec: { replicas } };
      object.metadata.annotations = { [annotation]: JSON.stringify(last) };
    });

  test("takes over what its last client-side apply said, without force", () => {
    const history = clientSide(1).apply("kubectl", { spec: { replicas: 2 } });
    expect(history.owners["kubectl Apply"]).toEqual([".spec.replicas"]);
    expect(history.object?.metadata.annotations?.[annotation]).toBe(
      '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","namespace":"default"},"spec":{"replicas":2}}\n',
    );
  });

  test.each<[string, string, JsonObject, (history: History) => void]>([
    ["other managers", "helm", { spec: { replicas: 2 } }, () => {}],
    [
      "what was changed since",
      "kubectl",
      { spec: { replicas: 2 } },
      (history) => {
        history.update("edit", (object) => {
          object.spec.replicas = 5;
        });
      },
    ],
    ["what it did not say", "kubectl", { spec: { paused: true } }, () => {}],
  ])("but conflicts remain: %s", (_name, manager, config, before) => {
    const history = clientSide(1);
    before(history);
    expect(() => history.apply(manager, config)).toThrow("Apply failed with 1 conflict");
  });
});

test.each<[string, JsonObject, number, string]>([
  ["an unknown field", { spec: { repl: 1 } }, 500, ".spec.repl: field not declared in schema"],
  ["a list's place", { spec: { template: { spec: { containers: {} } } } }, 500, "expected list"],
  ["a number's place", { spec: { replicas: "1" } }, 500, ".spec.replicas: expected numeric"],
  [
    "an item twice",
    podSpec({ containers: [{ name: "x" }, { name: "x" }] }),
    500,
    'duplicate entries for key [name="x"]',
  ],
  ["another kind", { kind: "DaemonSet" }, 400, "invalid object type: apps/v1, Kind=DaemonSet"],
  ["another version", { apiVersion: "apps/v1beta1" }, 400, "invalid object type: apps/v1beta1, Kind=Deployment"],
  ["managedFields", { metadata: { managedFields: [] } }, 400, "metadata.managedFields must be nil"],
])("apply refuses %s", (_name, config, code, message) => {
  expect(caught(() => new History(deployments).apply("a", config))).toMatchObject({
    status: { code, message: expect.stringContaining(message) },
  });
});

test("an item may leave out a key that has a default, and no other", () => {
  const history = new History(deployments).apply("a", podSpec({ containers: [{ image: "x" }] }));
  expect(history.owners["a Apply"]).toContain('.spec.template.spec.containers[name=""]');
  const accounts = new History(target("core/v1.ServiceAccount", "v1"));
  expect(caught(() => accounts.apply("a", { secrets: [{ namespace: "x" }] }))).toMatchObject({
    message: expect.stringContaining(
      '.secrets: element 0: associative list with keys has an element that omits key field "name"',
    ),
  });
});

function caught(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  return undefined;
}

// Properties, on made-up pod specs.

const podSpecSchema: MapSchema = schemas("core/v1.PodSpec");
function* specs(seed: number, count: number): Generator<[JsonObject, JsonObject]> {
  const random = seededRandom(seed);
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random.float() * values.length)]!;
  const maybe = (name: string, value: () => unknown): JsonObject => (random.float() < 0.5 ? { [name]: value() } : {});
  const names = (all: readonly string[]) =>
    all.filter(() => random.float() < 0.6).sort(() => (random.float() < 0.5 ? 1 : -1));
  // Never empty: an empty struct that is owned goes when what others had in it goes, as upstream.
  const spec = (): JsonObject => ({
    restartPolicy: "Always",
    ...maybe("nodeName", () => pick(["n1", "n2"])),
    ...maybe("hostNetwork", () => pick([true, false])),
    ...maybe("nodeSelector", () => ({ [pick(["a", "b"])]: "1" })),
    ...maybe("securityContext", () => ({ runAsUser: pick([1, 2]), ...maybe("runAsNonRoot", () => true) })),
    ...maybe("tolerations", () => [{ key: pick(["a", "b"]) }]),
    ...maybe("containers", () =>
      names(["a", "b", "c"]).map((name) => ({
        name,
        ...maybe("image", () => pick(["x", "y"])),
        ...maybe("env", () =>
          names(["A", "B"]).map((key) => ({ name: key, ...maybe("value", () => pick(["1", "2"])) })),
        ),
        ...maybe("resources", () => ({ limits: { cpu: pick(["1", "2"]) } })),
      })),
    ),
  });
  for (let round = 0; round < count; round++) yield [spec(), spec()];
}

test("what is merged in is what can be read out again", () => {
  for (const [live, config] of specs(5, 300)) {
    const merged = mergeValues(podSpecSchema, live, config);
    const said = fieldsOf(podSpecSchema, config);
    const inMerged = fieldsOf(podSpecSchema, merged);
    for (const path of pathsOf(said)) expect(pathsOf(inMerged)).toContain(path);
    // Merging again changes nothing, and only what was said or is new differs from before.
    expect(mergeValues(podSpecSchema, merged, config)).toEqual(merged);
    const { removed } = compareValues(podSpecSchema, live, merged);
    expect(pathsOf(removed)).toEqual([]);
  }
});

test("differences and fields agree: nothing differs from itself, everything from nothing", () => {
  for (const [a, b] of specs(6, 300)) {
    const same = compareValues(podSpecSchema, a, structuredClone(a));
    expect([pathsOf(same.changed), pathsOf(same.removed)]).toEqual([[], []]);
    const there = compareValues(podSpecSchema, a, b);
    const back = compareValues(podSpecSchema, b, a);
    // What one way adds the other way removes; what is modified is so both ways.
    for (const path of pathsOf(there.removed)) expect(pathsOf(back.changed)).toContain(path);
    const taken = removeFields(podSpecSchema, b, there.changed);
    for (const path of pathsOf(fieldsOf(podSpecSchema, taken)))
      expect(pathsOf(fieldsOf(podSpecSchema, a))).toContain(path);
  }
});

test("two appliers: applying again is idle, and what one said goes with it", () => {
  let conflicts = 0;
  for (const [one, two] of specs(7, 200)) {
    const history = new History(deployments).apply("a", podSpec(one));
    const conflict = caught(() => history.apply("b", podSpec(two)));
    if (conflict) {
      expect(conflict).toMatchObject({ status: { code: 409 } });
      conflicts++;
      history.apply("b", podSpec(two), true);
    }
    const settled = history.object;
    history.apply("b", podSpec(two));
    expect(history.object).toEqual(settled);
    history.apply("a", {});
    const { spec, ...rest } = history.object!;
    expect(Object.keys(history.owners)).toEqual(
      pathsOf(fieldsOf(deployments.schema, podSpec(two))).length > 0 ? ["b Apply"] : [],
    );
    const left = fieldsOf(deployments.schema, { ...rest, metadata: {}, ...(spec === undefined ? {} : { spec }) });
    const said = fieldsOf(deployments.schema, { apiVersion: "", kind: "", ...podSpec(two) });
    for (const path of pathsOf(said)) {
      if (path !== ".apiVersion" && path !== ".kind") expect(pathsOf(left)).toContain(path);
    }
    if (!conflict)
      expect(pathsOf(left).filter((path) => path.includes("nodeName")).length).toBe(two["nodeName"] ? 1 : 0);
  }
  expect(conflicts).toBeGreaterThan(20);
});

test("parts that are the same object are not looked at: a status update costs what status costs", () => {
  const looked: string[] = [];
  const spec = new Proxy({ replicas: 1 } as JsonObject, {
    ownKeys(object) {
      looked.push("spec");
      return Reflect.ownKeys(object);
    },
  });
  const live = { apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "x", uid: "u" }, spec };
  const compare = (next: JsonObject) => compareValues(deployments.schema, live, next);
  expect(pathsOf(compare({ ...live, status: { replicas: 1 } }).changed)).toEqual([".status.replicas"]);
  expect(looked).toEqual([]);
  // The control: another spec is looked at.
  compare({ ...live, spec: { replicas: 1 } });
  expect(looked).toEqual(["spec"]);
});

test("equalSets tells sets apart", () => {
  expect(equalSets(setOfPaths([["f:a"]]), setOfPaths([["f:a"], ["f:a", "f:b"]]))).toBe(false);
});
