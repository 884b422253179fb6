import { expect, test } from "vitest";
import { bodyFormat, isPretty, negotiate } from "./negotiation.ts";

const all = { protobuf: true, transforms: true };

test.each([
  [undefined, "json", "object"],
  ["", "json", "object"],
  ["*/*", "json", "object"],
  ["application/json, */*;q=0.8", "json", "object"],
  ["application/yaml", "yaml", "object"],
  ["application/vnd.kubernetes.protobuf,application/json", "protobuf", "object"],
  ["application/json;q=0.5,application/yaml", "yaml", "object"],
  ["application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "json", "table"],
  ["application/json;as=Table;v=v9;g=meta.k8s.io,application/json", "json", "object"],
  ["application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json", "json", "object"],
  ["application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "protobuf", "metadata"],
  ["text/html, application/json;q=0.1", "json", "object"],
])("%s", (accept, format, shape) => {
  expect(negotiate(accept, all, false)).toMatchObject({ format, shape });
});

test.each(["text/html", "application/json;q=0", "application/json;as=Nope;v=v1;g=meta.k8s.io"])(
  "%s is refused",
  (accept) => {
    expect(() => negotiate(accept, all, false)).toThrow(/only the following media types are accepted/);
  },
);

test("a kind without a message is not offered as protobuf", () => {
  const offer = { protobuf: false, transforms: true };
  expect(negotiate("application/vnd.kubernetes.protobuf,application/json", offer, false).format).toBe("json");
  expect(() => negotiate("application/vnd.kubernetes.protobuf", offer, false)).toThrow();
});

test("body formats", () => {
  const formats = { cbor: false };
  expect(bodyFormat("application/json; charset=utf-8", formats)).toBe("json");
  expect(bodyFormat(undefined, formats)).toBe("json");
  expect(() => bodyFormat("text/plain", formats)).toThrow(/unknown format/);
});

test("CBOR is offered behind its gate only", () => {
  expect(negotiate("application/cbor", { ...all, cbor: true }, false).format).toBe("cbor");
  expect(negotiate("application/cbor;as=Table;v=v1;g=meta.k8s.io", { ...all, cbor: true }, false).shape).toBe("table");
  expect(negotiate("application/cbor, application/json", all, false).format).toBe("json");
  expect(() => negotiate("application/cbor", all, false)).toThrow(/protobuf$/);
  expect(() => negotiate("text/html", { ...all, cbor: true }, false)).toThrow(/protobuf, application\/cbor$/);
  expect(bodyFormat("application/cbor", { cbor: true })).toBe("cbor");
  expect(() => bodyFormat("application/cbor", { cbor: false })).toThrow(/protobuf$/);
});

test("people get indented JSON", () => {
  expect(isPretty(new URLSearchParams(), "curl/8")).toBe(true);
  expect(isPretty(new URLSearchParams(), "kubectl/v1.32")).toBe(false);
  expect(isPretty(new URLSearchParams("pretty=true"), undefined)).toBe(true);
});
