import { expect, test } from "vitest";
import { addZeroValues } from "./zero-values.ts";

test.each([
  ["batch/v1.Job", { spec: {} }, { metadata: {}, spec: { template: { metadata: {}, spec: { containers: [] } } } }],
  ["networking/v1.NetworkPolicy", {}, { metadata: {}, spec: { podSelector: {} } }],
  [
    "core/v1.Pod",
    { metadata: { name: "x" }, spec: { containers: [{ env: [{ value: "1" }] }] } },
    {
      metadata: { name: "x" },
      spec: { containers: [{ name: "", env: [{ name: "", value: "1" }], resources: undefined }] },
    },
  ],
  ["core/v1.ConfigMap", { data: { a: "1" } }, { metadata: {}, data: { a: "1" } }],
  ["", { a: 1 }, { a: 1 }],
])("%s", (type, object, filled) => {
  addZeroValues(object, type);
  expect(object).toEqual(filled);
});
