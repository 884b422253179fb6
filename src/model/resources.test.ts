import { expect, test } from "vitest";
import { facts } from "./facts.ts";
import { groupVersion } from "./resource-info.ts";
import { allResources, findResource, knownResources, resourceOfKind, resourcesWith } from "./resources.ts";

test.each(knownResources.map((info) => [`${groupVersion(info)} ${info.plural}`, info] as const))(
  "%s is in the facts table",
  (_, info) => {
    const message = facts.message(info.type);
    expect(message.isKind).toBe(true);
    expect(facts.package(message.package)).toMatchObject({ group: info.group, version: info.version });
    expect(Object.hasOwn(info.subresources, "status")).toBe(
      hasStatusSubresource(info.kind) && message.members.has("status"),
    );
    if (info.verbs.includes("list")) expect(facts.find(`${info.type}List`)?.members.has("items")).toBe(true);
  },
);
/** Reviews answer in their status and PodTemplate-like kinds have none. */
const hasStatusSubresource = (kind: string): boolean => !/Review$/.test(kind);

test("rows are found by plural and by kind, and names are unique", () => {
  expect(findResource("apps", "v1", "deployments")?.kind).toBe("Deployment");
  expect(resourceOfKind("", "v1", "Pod")?.plural).toBe("pods");
  expect(findResource("", "v1", "nothing")).toBeUndefined();
  expect(new Set(knownResources.map((i) => `${groupVersion(i)}/${i.plural}`)).size).toBe(knownResources.length);
});

test("what is off by default is served where it is turned on", () => {
  const served = (versions: readonly string[]) =>
    resourcesWith(versions).filter(({ version }) => version === "v1beta1");
  expect(served([])).toEqual([]);
  expect(served(["constructor", "apps/v1beta1"])).toEqual([]);
  expect(served(["networking.k8s.io/v1beta1"]).map(({ plural }) => plural)).toEqual(["ipaddresses", "servicecidrs"]);
  expect(resourcesWith([])).toEqual(allResources);
});
