// The codec and the decoder against upstream's own test objects: one .pb and one .json per kind of every API version,
// read in place from the pinned Debian package. With CI=true missing packages fail the test; elsewhere it is skipped.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { decodeObject } from "#model/decode.ts";
import { createFacts, type Facts } from "#model/facts.ts";
import { createMessageCodec, decodeProtobuf, encodeProtobuf } from "#model/protobuf.ts";
import { knownResources } from "#model/resources.ts";
import { parseYaml, stringifyYaml } from "#wire/yaml.ts";
import { allPackages, printFacts, readPackages } from "./kubernetes.ts";
import { sourceFolder } from "./packages.ts";

async function load() {
  try {
    const roots = {
      api: await sourceFolder("golang-k8s-api-dev"),
      apimachinery: await sourceFolder("golang-k8s-apimachinery-dev"),
    };
    const facts = createFacts(printFacts(await readPackages(roots, await allPackages(roots))));
    return { facts, folder: join(roots.api, "k8s.io/api/testdata/HEAD") };
  } catch (error) {
    if (process.env["CI"] === "true") throw error;
    return undefined;
  }
}
const loaded = await load();

function typeOf(facts: Facts, file: string): string {
  const [, group = "", version = "", kind = ""] = /^(.*)\.(v\w+)\.(\w+)\.pb$/.exec(file) ?? [];
  const names = facts.packageNames.filter((name) => name.endsWith(`/${version}`));
  const own = names.find((name) => (facts.package(name).group || "core") === group && facts.find(`${name}.${kind}`));
  if (own && own !== "meta/v1") return `${own}.${kind}`;
  if (facts.find(`core/v1.${kind}`)) return `core/v1.${kind}`;
  return `meta/v1.${kind}`;
}

describe.skipIf(!loaded)("upstream's golden objects", () => {
  const { facts, folder } = loaded ?? { facts: createFacts(""), folder: "" };
  const codec = createMessageCodec(facts);
  const files = loaded ? readdirSync(folder).filter((name) => name.endsWith(".pb")) : [];

  test("are all there", () => expect(files.length).toBe(171));

  test.each(files)("%s decodes to its JSON twin and encodes back to the same bytes", (file) => {
    const bytes = readFileSync(join(folder, file));
    const json = JSON.parse(readFileSync(join(folder, file.replace(/\.pb$/, ".json")), "utf8")) as object;
    const type = typeOf(facts, file);
    const decoded = decodeProtobuf(bytes, type, codec);
    expect(decoded.object).toEqual(json);
    expect(Buffer.from(encodeProtobuf(json, type, codec)).toString("hex")).toBe(bytes.toString("hex"));
  });

  test.each(files)("%s reads from its YAML twin, which is what we print", (file) => {
    const text = readFileSync(join(folder, file.replace(/\.pb$/, ".yaml")), "utf8");
    const json = JSON.parse(readFileSync(join(folder, file.replace(/\.pb$/, ".json")), "utf8")) as object;
    const read = parseYaml(text);
    expect(read).toEqual(json);
    // What was read keeps the text's order of members, which is Go's.
    expect(stringifyYaml(read)).toBe(text);
  });

  // Definitions and APIServices come from packages of their own, without golden objects.
  const elsewhere = new Set(["apiextensions.k8s.io", "apiregistration.k8s.io"]);
  const ours = knownResources.filter(({ group }) => !elsewhere.has(group));
  test.each(ours.map((info) => [info.type, info] as const))("%s passes strict decoding unchanged", (_, info) => {
    const group = info.group === "" ? "core" : info.group;
    const text = readFileSync(join(folder, `${group}.${info.version}.${info.kind}.json`), "utf8");
    const { object, warnings } = decodeObject(Buffer.from(text), info, { fieldValidation: "Strict" });
    expect(warnings).toEqual([]);
    expect(object).toEqual(JSON.parse(text));
  });
});
