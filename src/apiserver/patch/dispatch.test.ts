import { expect, test } from "vitest";
import { decodeObject } from "#model/decode.ts";
import type { UnknownObject } from "#model/object.ts";
import { deployments } from "#model/resources.ts";
import { applyPatch, decodePatched, type PatchKind } from "./dispatch.ts";

const current = { apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "web" }, spec: { replicas: 1 } };

function patchWith(kind: PatchKind, patch: unknown, fieldValidation: "Strict" | "Warn" = "Warn"): UnknownObject {
  const patched = applyPatch(kind, deployments, current as UnknownObject, patch);
  return decodePatched(
    kind,
    patch,
    patched,
    (made) => decodeObject(Buffer.from(JSON.stringify(made)), deployments, { fieldValidation }).object,
  );
}

// kubectl prints `The request is invalid: patch: Invalid value: …` from the cause.
test.each<[string, PatchKind, unknown, "Strict" | "Warn", string]>([
  [
    "a number's place",
    "strategic",
    { spec: { replicas: "x" } },
    "Warn",
    '"map[spec:map[replicas:x]]": unrecognized type: int32',
  ],
  [
    "a list's place",
    "strategic",
    { spec: { template: { spec: { containers: "x" } } } },
    "Warn",
    '"map[spec:map[template:map[spec:map[containers:x]]]]": cannot restore slice from string',
  ],
  [
    "a merged object",
    "merge",
    { spec: { replicas: "x" } },
    "Warn",
    `${JSON.stringify(JSON.stringify({ ...current, spec: { replicas: "x" } }))}: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`,
  ],
  [
    "an unknown field",
    "strategic",
    { spec: { repl: 1 } },
    "Strict",
    '"map[spec:map[repl:1]]": strict decoding error: unknown field "spec.repl"',
  ],
])("a value that does not fit is the patch's mistake: %s", (_name, kind, patch, fieldValidation, message) => {
  expect(() => patchWith(kind, patch, fieldValidation)).toThrow(
    expect.objectContaining({
      message: ` "" is invalid: patch: Invalid value: ${message}`,
      status: expect.objectContaining({ code: 422, reason: "Invalid" }),
    }),
  );
});
