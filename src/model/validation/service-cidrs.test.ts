import { expect, test } from "vitest";
import type { ParentReference } from "../gen/networking-v1beta1.ts";
import type { ApiObject } from "../object.ts";
import { ipAddresses, serviceCidrs } from "../resources.ts";
import { validateObject, validateObjectUpdate } from "../validate.ts";

const said = (errors: readonly { field: string; message: string }[]) =>
  errors.map(({ field, message }) => `${field}: ${message}`);
const rangeOf = (...cidrs: string[]) => ({ metadata: { name: "more" }, spec: { cidrs } }) as ApiObject;

const wrongNetwork = "wrong CIDR format, IP doesn't match network IP address";
const notCanonical = "CIDR not in RFC 5952 canonical format";
const oneOfEach = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";

test.each<[readonly string[], string | undefined]>([
  [["10.44.0.0/24"], undefined],
  [["fd00:44::/112"], undefined],
  [["10.44.0.0/24", "fd00:44::/112"], undefined],
  [["fd00:44::/112", "10.44.0.0/24"], undefined],
  [[], "spec.cidrs: Required value: at least one CIDR required"],
  [["10.44.0.0/24", "fd00:44::/112", "10.45.0.0/24"], "may only hold up to 2 values"],
  [["10.44.0.0/24", "10.45.0.0/24"], oneOfEach],
  [["10.44.0.0/24", "what"], oneOfEach],
  [["10.44.0.0"], 'spec.cidrs[0]: Invalid value: "10.44.0.0": must be a valid CIDR value'],
  [["10.44.0.0/33"], "must be a valid CIDR value"],
  [["10.44.0.0/024"], "must be a valid CIDR value"],
  [["10.44.0.1/24"], `spec.cidrs[0]: Invalid value: "10.44.0.1/24": ${wrongNetwork}`],
  [["fd00:44::1/112"], wrongNetwork],
  [["fd00:0044::/112"], `spec.cidrs[0]: Invalid value: "fd00:0044::/112": ${notCanonical}`],
  [["FD00:44::/112"], notCanonical],
  [["10.44.0.0/24", "fd00:44:0::/112"], `spec.cidrs[1]: Invalid value: "fd00:44:0::/112": ${notCanonical}`],
])("a range of %j", (cidrs, wrong) => {
  const errors = said(validateObject(serviceCidrs, rangeOf(...cidrs)));
  if (wrong === undefined) expect(errors).toEqual([]);
  else expect(errors.join("\n")).toContain(wrong);
});

test("what a range holds stays", () => {
  const old = rangeOf("10.44.0.0/24");
  const labelled = { ...old, metadata: { name: "more", labels: { a: "b" } } };
  expect(validateObjectUpdate(serviceCidrs, labelled, old)).toEqual([]);
  expect(said(validateObjectUpdate(serviceCidrs, rangeOf("10.44.0.0/24", "fd00:44::/112"), old))).toEqual([
    'spec.cidrs: Invalid value: []string{"10.44.0.0/24", "fd00:44::/112"}: field is immutable',
  ]);
});

const parent: ParentReference = { group: "", resource: "services", namespace: "shop", name: "web" };
const address = (name: string, parentRef: ParentReference | undefined = parent) =>
  ({ metadata: { name }, spec: parentRef ? { parentRef } : {} }) as ApiObject;

test.each<[string, ParentReference | null, string | undefined]>([
  ["10.44.0.7", parent, undefined],
  ["fd00:44::7", parent, undefined],
  ["fd00:44::7", { group: "gateway.example.com", resource: "gateways", name: "front" }, undefined],
  ["web", parent, 'metadata.name: Invalid value: "web": must be a valid IP address'],
  ["10.44.0.007", parent, "must be a valid IP address"],
  ["fd00:44:0::7", parent, 'metadata.name: Invalid value: "fd00:44:0::7": must be a canonical format IP address'],
  ["FD00:44::7", parent, "must be a canonical format IP address"],
  ["10.44.0.7", null, "spec.parentRef: Required value"],
  ["10.44.0.7", { name: "web" }, "spec.parentRef.resource: Required value"],
  ["10.44.0.7", { resource: "services" }, "spec.parentRef.name: Required value"],
  ["10.44.0.7", { ...parent, group: "A_b" }, 'spec.parentRef.group: Invalid value: "A_b"'],
  ["10.44.0.7", { ...parent, resource: "a/b" }, "may not contain '/'"],
  ["10.44.0.7", { ...parent, name: ".." }, "may not be '..'"],
  ["10.44.0.7", { ...parent, namespace: "a%b" }, "may not contain '%'"],
])("an address %s of %j", (name, parentRef, wrong) => {
  const object = parentRef ? address(name, parentRef) : ({ metadata: { name }, spec: {} } as ApiObject);
  const errors = said(validateObject(ipAddresses, object));
  if (wrong === undefined) expect(errors).toEqual([]);
  else expect(errors.join("\n")).toContain(wrong);
});

test("whose an address is stays", () => {
  const old = address("10.44.0.7");
  expect(validateObjectUpdate(ipAddresses, address("10.44.0.7"), old)).toEqual([]);
  const moved = address("10.44.0.7", { ...parent, name: "other" });
  expect(said(validateObjectUpdate(ipAddresses, moved, old))[0]).toMatch(/^spec.parentRef: .*: field is immutable$/);
});
