import { describe, expect, test } from "vitest";
import { decodeObject, type FieldValidation } from "./decode.ts";
import { encodeProtobuf } from "./protobuf.ts";
import { configMaps, deployments, horizontalPodAutoscalersV1, leases, pods, secrets } from "./resources.ts";
import { ApiError } from "./status.ts";

const encode = (value: unknown) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
const pod = (spec: object, rest: object = {}) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "x" },
  spec,
  ...rest,
});
function failure(work: () => unknown): ApiError {
  try {
    work();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error("did not fail");
}

describe("bad bodies get upstream's answers", () => {
  const cases: [string, typeof pods | typeof deployments | typeof horizontalPodAutoscalersV1, unknown, string][] = [
    [
      "malformed",
      pods,
      "{a",
      "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: invalid character 'a' looking for beginning of object key string ({a)",
    ],
    [
      "empty",
      pods,
      "",
      "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
    ],
    [
      "wrong scalar",
      pods,
      pod({ activeDeadlineSeconds: "1" }),
      'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64',
    ],
    [
      "in a nested list",
      deployments,
      {
        kind: "Deployment",
        apiVersion: "apps/v1",
        spec: { template: { spec: { containers: [{ env: [{ name: "A", value: 1 }] }] } } },
      },
      'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string',
    ],
    [
      "fraction",
      deployments,
      { spec: { replicas: 1.5 } },
      'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32',
    ],
    [
      "object for list",
      pods,
      pod({ containers: {} }),
      'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container',
    ],
    [
      "map value",
      pods,
      pod({}, { metadata: { labels: { a: 1 } } }),
      'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string',
    ],
    [
      "named type",
      pods,
      pod({ restartPolicy: 1 }),
      'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy',
    ],
    [
      "quantity",
      pods,
      pod({ containers: [{ name: "a", resources: { limits: { cpu: "1x1" } } }] }),
      "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    ],
    [
      "unknown kind",
      pods,
      { apiVersion: "v1", kind: "Foo" },
      'Foo in version "v1" cannot be handled as a Pod: no kind "Foo" is registered for version "v1" in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"',
    ],
    [
      "other kind",
      pods,
      { apiVersion: "v1", kind: "Service" },
      'Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion',
    ],
    [
      "other version",
      horizontalPodAutoscalersV1,
      { apiVersion: "autoscaling/v2", kind: "HorizontalPodAutoscaler" },
      "the API version in the data (autoscaling/v2) does not match the expected API version (autoscaling/v1)",
    ],
  ];
  test.each(cases)("%s", (_, info, body, message) => {
    const error = failure(() => decodeObject(encode(body), info));
    expect({ code: error.code, reason: error.reason, message: error.message }).toEqual({
      code: 400,
      reason: "BadRequest",
      message,
    });
  });
});

describe("field validation", () => {
  const body =
    '{"kind":"Pod","metadata":{"name":"a","name":"b"},"spec":{"foo":1,"containers":[{"name":"c","bar":{}}]},"extra":0}';
  const texts = [
    'duplicate field "metadata.name"',
    'unknown field "spec.foo"',
    'unknown field "spec.containers[0].bar"',
    'unknown field "extra"',
  ];
  const decode = (fieldValidation: FieldValidation) => decodeObject(encode(body), pods, { fieldValidation });
  const clean = { apiVersion: "v1", kind: "Pod", metadata: { name: "b" }, spec: { containers: [{ name: "c" }] } };

  test("Ignore drops in silence", () => expect(decode("Ignore")).toEqual({ object: clean, warnings: [] }));
  test("Warn says so", () => expect(decode("Warn")).toEqual({ object: clean, warnings: texts }));
  test("Strict refuses", () =>
    expect(failure(() => decode("Strict")).message).toBe(
      `Pod in version "v1" cannot be handled as a Pod: strict decoding error: ${texts.join(", ")}`,
    ));
});

test("strict errors stand in the order of the text", () => {
  const body =
    '{"metadata":{"labels":{"a":"b","a":"c"},"unknownMeta":1},"spec":{"unknown1":1,"twice":1,"twice":2,"hostNetwork":true,' +
    '"hostNetwork":false,"containers":[{"name":"c","nested":{"x":1,"x":2},"image":"a","image":"b"}]}}';
  expect(decodeObject(encode(body), pods).warnings).toEqual([
    'duplicate field "metadata.labels.a"',
    'unknown field "metadata.unknownMeta"',
    'unknown field "spec.unknown1"',
    'unknown field "spec.twice"',
    'duplicate field "spec.hostNetwork"',
    'unknown field "spec.containers[0].nested"',
    'duplicate field "spec.containers[0].image"',
  ]);
});

test("objects come out as Go would have written them", () => {
  const { object } = decodeObject(
    encode(
      pod(
        {
          containers: [{ name: "a", command: [], resources: { requests: { cpu: "0.5", memory: 1024 } }, image: "" }],
          hostNetwork: false,
          terminationGracePeriodSeconds: 0,
          nodeSelector: null,
          volumes: [{ name: "v", emptyDir: {} }],
        },
        { metadata: { name: "x", creationTimestamp: null, labels: { a: null }, finalizers: [] }, status: {} },
      ),
    ),
    pods,
  );
  expect(object).toEqual({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "x", labels: { a: "" } },
    spec: {
      containers: [{ name: "a", resources: { requests: { cpu: "500m", memory: "1024" } } }],
      terminationGracePeriodSeconds: 0,
      volumes: [{ name: "v", emptyDir: {} }],
    },
    status: {},
  });
});

test("times are canonical and bytes are checked", () => {
  const lease = {
    spec: { renewTime: "2024-01-02T04:04:05.5+01:00" },
    metadata: { deletionTimestamp: "2024-01-02T03:04:05.9Z" },
  };
  expect(decodeObject(encode(lease), leases).object).toMatchObject({
    spec: { renewTime: "2024-01-02T03:04:05.500000Z" },
    metadata: { deletionTimestamp: "2024-01-02T03:04:05Z" },
  });
  expect(failure(() => decodeObject(encode({ data: { a: "%%" } }), secrets)).message).toContain(
    "illegal base64 data at input byte 0",
  );
});

test("YAML and protobuf bodies give the same object as JSON", () => {
  const json = decodeObject(encode(pod({ containers: [{ name: "a", ports: [{ containerPort: 80 }] }] })), pods).object;
  const yaml = "kind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: a\n    ports: [{containerPort: 80}]\n";
  expect(decodeObject(encode(yaml), pods, { contentType: "yaml" }).object).toEqual(json);
  const bytes = encodeProtobuf(json, pods.type);
  const { object } = decodeObject(bytes, pods, { contentType: "protobuf" });
  expect(object["spec"]).toMatchObject(json["spec"] as object);
});

test("numbers beyond 2^53 come out as numbers from every format", () => {
  const bytes = encodeProtobuf(pod({ terminationGracePeriodSeconds: 2n ** 60n, containers: [] }), pods.type);
  const yaml = "kind: Pod\nspec: {terminationGracePeriodSeconds: 1152921504606846976}\n";
  for (const [body, contentType] of [
    [bytes, "protobuf"],
    [encode(yaml), "yaml"],
  ] as const) {
    const { object } = decodeObject(body, pods, { contentType });
    expect(object["spec"]).toMatchObject({ terminationGracePeriodSeconds: 2 ** 60 });
  }
});

test("hostile keys stay data", () => {
  const { object } = decodeObject(encode('{"data":{"__proto__":"x"},"__proto__":{"a":1}}'), configMaps);
  expect(Object.keys(object["data"] as object)).toEqual(["__proto__"]);
  expect(Object.getPrototypeOf(object)).toBe(Object.prototype);
  expect((object as { a?: unknown }).a).toBeUndefined();
});

test("keys that come twice in YAML are told of by line, and the last counts", () => {
  const body = new TextEncoder().encode("kind: ConfigMap\ndata:\n  a: '1'\n  a: '2'\n  b: x\n  b: z\nmore: 1\n");
  const decode = (fieldValidation: "Strict" | "Warn" | "Ignore") =>
    decodeObject(body, configMaps, { contentType: "yaml", fieldValidation });
  expect(decode("Ignore")).toMatchObject({ object: { data: { a: "2", b: "z" } }, warnings: [] });
  expect(decode("Warn").warnings).toEqual([
    'line 4: key "a" already set in map',
    'line 6: key "b" already set in map',
    'unknown field "more"',
  ]);
  expect(() => decode("Strict")).toThrow(
    'strict decoding error: yaml: unmarshal errors:\n  line 4: key "a" already set in map\n  line 6: key "b" already set in map, unknown field "more"',
  );
});
