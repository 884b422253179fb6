import { expect, test } from "vitest";
import { buildOpenApiV2, buildOpenApiV2Addition, buildOpenApiV3, type Json } from "#model/openapi.ts";
import { encodeOpenApiV2 } from "#model/openapi-v2-protobuf.ts";
import { configMaps, optionalApis } from "#model/resources.ts";
import { withOptional } from "./assets.ts";

const api = "networking.k8s.io/v1beta1";
const options = { version: "v1.32.3", describe: () => "" };
/** A build of one kind and of what is off by default. */
const base = buildOpenApiV2(options, [configMaps]);
const files = new Map<string, Uint8Array>([
  ["v2.json", Buffer.from(JSON.stringify(base))],
  ["v2.pb", encodeOpenApiV2(base)],
  ["v3/api/v1.json", Buffer.from("{}")],
  [`optional/${api}/v2.json`, Buffer.from(JSON.stringify(buildOpenApiV2Addition(options, optionalApis[api]!, base)))],
  [
    `optional/${api}/v3.json`,
    Buffer.from(JSON.stringify(buildOpenApiV3(options, optionalApis[api]).get(`apis/${api}`))),
  ],
]);
const built = {
  hashes: new Map([...files.keys()].map((name) => [name, `hash of ${name}`])),
  read: (name: string) => files.get(name),
};
const read = (assets: typeof built, name: string) => JSON.parse(Buffer.from(assets.read(name)!).toString()) as Json;

test("what is off is not shown", () => {
  const assets = withOptional(built, []) as typeof built;
  expect([...assets.hashes]).toEqual([
    ["v2.json", "hash of v2.json"],
    ["v2.pb", "hash of v2.pb"],
    ["v3/api/v1.json", "hash of v3/api/v1.json"],
  ]);
  expect(read(assets, "v2.json")).toEqual(base);
});

test("what is on has a document of its own and is in the old one", () => {
  const assets = withOptional(built, [api]) as typeof built;
  expect([...assets.hashes.keys()]).toEqual(["v2.json", "v2.pb", "v3/api/v1.json", `v3/apis/${api}.json`]);
  // Who has the document of before has to fetch it again.
  expect(assets.hashes.get("v2.json")).not.toBe("hash of v2.json");
  const merged = read(assets, "v2.json") as { paths: Json; definitions: Json };
  expect(Object.keys(merged.paths)).toContain(`/apis/${api}/servicecidrs/{name}/status`);
  expect(Object.keys(merged.definitions)).toContain("io.k8s.api.networking.v1beta1.IPAddressSpec");
  // What both use stands once.
  const text = Buffer.from(assets.read("v2.json")!).toString();
  expect(text.split('"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta":').length).toBe(2);
  expect(Buffer.from(assets.read("v2.pb")!).toString("latin1")).toContain(`/apis/${api}/ipaddresses/{name}`);
  const own = read(assets, `v3/apis/${api}.json`) as { components: { schemas: Json } };
  expect(Object.keys(own.components.schemas)).toContain("io.k8s.api.networking.v1beta1.ServiceCIDRStatus");
});
