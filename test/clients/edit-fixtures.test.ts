// Upstream's recordings of `kubectl edit`, read in place from the pinned Debian package: what kubectl was given, what it
// showed in the editor (YAML as Go prints it), what the person made of it, and the patch that kubectl sent.
//
//   answer of GET ──► .original ──(person)──► .edited        patch(.original) = .edited        patch(GET) ≈ answer of PATCH
//
// Held against them: our YAML reader and printer, and our patch code. With CI=true the package must be there.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { applyPatch, parsePatch, patchKind } from "#apiserver/patch/dispatch.ts";
import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { allResources, configMaps } from "#model/resources.ts";
import { sourceFolder } from "#scripts/gen/packages.ts";
import { parseYaml, parseYamlDocuments, stringifyYaml } from "#wire/yaml.ts";

const root = await sourceFolder("golang-k8s-kubectl-dev")
  .then((folder) => join(folder, "k8s.io/kubectl/pkg/cmd/edit/testdata"))
  .catch((error: unknown) => {
    if (process.env["CI"] === "true") throw error;
    return undefined;
  });

interface EditStep {
  readonly type: "edit" | "request";
  readonly expectedMethod?: string;
  readonly expectedPath?: string;
  readonly expectedContentType?: string;
  readonly expectedInput: string;
  readonly resultingStatusCode?: number;
  readonly resultingOutput: string;
}
interface EditCase {
  readonly mode: string;
  readonly steps: readonly EditStep[];
}

/** Edits that no parser takes: that is what they are about. */
const malformed = new Set([
  "testcase-apply-edit-last-applied-syntax-error/1.edited",
  "testcase-apply-edit-last-applied-syntax-error/2.original",
  "testcase-syntax-error/1.edited",
  "testcase-syntax-error/2.original",
]);
/** Answers that no server gave: somebody wrote them by hand. */
const inventedAnswers = new Set(["testcase-unknown-version-known-group-kind/2.response"]);
/** kubectl keeps these itself, whatever the person did. */
const ownAnnotations = ["kubectl.kubernetes.io/last-applied-configuration", "kubernetes.io/change-cause"];

const cases = root ? readdirSync(root).filter((name) => existsSync(join(root, name, "test.yaml"))) : [];
const read = (name: string, file: string) => readFileSync(join(root ?? "", name, file), "utf8");
const caseOf = (name: string) => parseYaml(read(name, "test.yaml")) as EditCase;
const filesOf = (ending: RegExp) =>
  cases.flatMap((name) =>
    readdirSync(join(root ?? "", name))
      .filter((file) => ending.test(file))
      .map((file) => `${name}/${file}`),
  );
const textOf = (path: string) => readFileSync(join(root ?? "", path), "utf8");

/** Remarks for the person stand in front. */
const withoutRemarks = (text: string) => text.replace(/^(?:#.*\n)+/, "");
/** Items of lists do not name what the list does. */
function itemsOf(object: UnknownObject): UnknownObject[] {
  if (!Array.isArray(object["items"])) return [object];
  const { apiVersion, kind } = object;
  const own = kind === "List" ? {} : { apiVersion, kind: String(kind).replace(/List$/, "") };
  return (object["items"] as UnknownObject[]).map((item) => ({ ...own, ...item }) as UnknownObject);
}
const keyOf = ({ kind, metadata }: UnknownObject) => `${String(kind)}/${metadata?.namespace ?? ""}/${metadata?.name}`;

/** The resource whose merge keys hold, whatever old group it was recorded in. */
function resourceOf(path: string): ResourceInfo {
  const plural = /\/(?:namespaces\/[^/]+\/)?([a-z]+)\/[^/]+(?:\/status)?$/.exec(path)?.[1] ?? "";
  const isOwn = !/^\/api(?:s\/[^/]*(?:k8s\.io|apps|extensions|batch|autoscaling)[^/]*)?\//.test(path);
  const found = allResources.find((info) => info.plural === plural);
  return found && !isOwn ? found : { ...configMaps, type: "" };
}

function withoutOwnAnnotations(object: UnknownObject): UnknownObject {
  const { annotations = {}, ...metadata } = object.metadata;
  const others = Object.entries(annotations).filter(([name]) => !ownAnnotations.includes(name));
  return { ...object, metadata: { ...metadata, annotations: Object.fromEntries(others) } } as UnknownObject;
}

/** Without what the server puts there by itself. */
function withoutServer(object: UnknownObject): UnknownObject {
  const { status: _status, ...rest } = withoutOwnAnnotations(object) as UnknownObject & { status?: unknown };
  const { generation: _generation, resourceVersion: _version, managedFields: _fields, ...metadata } = rest.metadata;
  return { ...rest, metadata } as UnknownObject;
}

describe.skipIf(!root)("recordings of kubectl edit", () => {
  test("are all there", () => {
    expect(cases.length).toBe(24);
    const beside = readdirSync(root ?? "").filter((name) => !cases.includes(name));
    expect(filesOf(/./).length + beside.length).toBe(218);
  });

  test.each(filesOf(/\.(?:original|edited)$/))("%s reads as Go read it, and prints as Go printed it", (path) => {
    const text = textOf(path);
    const [name, file] = path.split("/") as [string, string];
    if (malformed.has(path)) {
      expect(() => parseYamlDocuments(text)).toThrow();
      return;
    }
    const documents = parseYamlDocuments(text);
    expect(documents.length).toBeLessThanOrEqual(1);
    if (file.endsWith(".original") && documents.length === 1) {
      expect(stringifyYaml(documents[0])).toBe(withoutRemarks(text));
      expect(shownBefore(name, file, documents[0] as UnknownObject)).toEqual(itemsOf(documents[0] as UnknownObject));
    }
  });

  let compared = 0;
  afterAll(() => expect(compared).toBeGreaterThan(40));

  test.each(cases)("the patches of %s", (name) => {
    const { mode, steps } = caseOf(name);
    // After an error the editor shows the last attempt again; patches are still made from what was there first.
    const shown = new Map<string, UnknownObject>();
    let edited = new Map<string, UnknownObject>();
    const got = new Map<string, UnknownObject>();
    for (const step of steps) {
      if (step.type === "edit") {
        const collect = (file: string) => {
          const objects = malformed.has(`${name}/${file}`) ? [] : parseYamlDocuments(read(name, file));
          return new Map(objects.flatMap((one) => itemsOf(one as UnknownObject)).map((one) => [keyOf(one), one]));
        };
        for (const [key, object] of collect(step.expectedInput)) if (!shown.has(key)) shown.set(key, object);
        edited = collect(step.resultingOutput);
        continue;
      }
      const path = step.expectedPath ?? "";
      if (step.expectedMethod === "GET") {
        if (step.resultingStatusCode === 200) {
          const object = JSON.parse(read(name, step.resultingOutput)) as UnknownObject;
          got.set(path, object);
        }
        continue;
      }
      if (step.expectedMethod !== "PATCH") continue;
      const info = resourceOf(path);
      const kind = patchKind(step.expectedContentType, info, false);
      if (kind === "apply" || kind === "apply-cbor") throw new Error(kind);
      const patch = parsePatch(kind, Buffer.from(read(name, step.expectedInput)));
      const last = path
        .replace(/\/status$/, "")
        .split("/")
        .at(-1);
      const before = [...shown.values()].find((object) => object.metadata.name === last);
      const after = [...edited.values()].find((object) => object.metadata.name === last);
      const label = `${name}/${step.expectedInput}`;
      // The other mode shows a part of the object, its last-applied annotation.
      if (mode === "edit" && before && after) {
        const patched = applyPatch(kind, info, before, patch);
        expect(withoutOwnAnnotations(patched), label).toEqual(withoutOwnAnnotations(after));
        compared++;
      }
      const current = got.get(path);
      const isInvented = inventedAnswers.has(`${name}/${step.resultingOutput}`);
      if (current && step.resultingStatusCode === 200 && !isInvented) {
        const answered = JSON.parse(read(name, step.resultingOutput)) as UnknownObject;
        expect(withoutServer(applyPatch(kind, info, current, patch)), label).toEqual(withoutServer(answered));
        compared++;
      }
    }
  });
});

/** The objects that kubectl had from the server when it showed `file`; what it shows where it shows something else. */
function shownBefore(name: string, file: string, shown: UnknownObject): UnknownObject[] {
  const { mode, steps } = caseOf(name);
  const first = steps.find(({ type }) => type === "edit");
  if (mode !== "edit" || first?.expectedInput !== file) return itemsOf(shown);
  const had: UnknownObject[] = [];
  for (const step of steps) {
    if (step === first) break;
    if (step.resultingStatusCode === 200) had.push(JSON.parse(read(name, step.resultingOutput)) as UnknownObject);
  }
  return had.flatMap(itemsOf);
}
