// Writes the OpenAPI documents into build/dist/openapi/: v2.json.gz, v2.pb.gz, v3/<path>.json.gz, those of APIs that are off
// by default (optional/<group version>/v3.json.gz, and v2.json.gz with what the v2 document gets), and index.json with sizes
// and hashes of what is packed. Their sentences come from the Go sources of the pinned Debian packages when those can be had,
// else from the comments of @kubernetes/client-node (about three quarters of them), so that a build needs nothing but npm.
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { versions } from "#build.config.ts";
import { buildOpenApiV2, buildOpenApiV2Addition, buildOpenApiV3, type Describe, type Json } from "#model/openapi.ts";
import { encodeOpenApiV2 } from "#model/openapi-v2-protobuf.ts";
import { optionalApis } from "#model/resources.ts";
import { importPath, servedPackages } from "#scripts/gen/kubernetes.ts";
import { sourceFolder } from "#scripts/gen/packages.ts";

/** By `core/v1.Pod` and, for members, `core/v1.Pod.spec`. */
type Sentences = Map<string, string>;

export async function buildOpenapi(folder = join("build", "dist", "openapi")): Promise<void> {
  const sentences = await readSentences();
  const describe: Describe = (type, field) => sentences.get(field === "" ? type : `${type}.${field}`) ?? "";
  const options = { version: versions.kubernetes, describe };
  const files = new Map<string, Uint8Array>();
  const v2 = buildOpenApiV2(options);
  files.set("v2.json", Buffer.from(JSON.stringify(v2)));
  files.set("v2.pb", encodeOpenApiV2(v2));
  for (const [path, document] of buildOpenApiV3(options))
    files.set(`v3/${path}.json`, Buffer.from(JSON.stringify(document)));
  for (const [name, rows] of Object.entries(optionalApis)) {
    const addition = buildOpenApiV2Addition(options, rows, v2);
    files.set(`optional/${name}/v2.json`, Buffer.from(JSON.stringify(addition)));
    const document = buildOpenApiV3(options, rows).get(`apis/${name}`);
    files.set(`optional/${name}/v3.json`, Buffer.from(JSON.stringify(document)));
  }
  await fs.rm(folder, { recursive: true, force: true });
  const index: Json = {};
  for (const [name, bytes] of files) {
    const path = join(folder, name);
    await fs.mkdir(dirname(path), { recursive: true });
    const packed = gzipSync(bytes, { level: 9 });
    await fs.writeFile(`${path}.gz`, packed);
    index[name] = {
      bytes: bytes.length,
      packedBytes: packed.length,
      sha512: createHash("sha512").update(bytes).digest("hex").toUpperCase(),
    };
  }
  await fs.writeFile(join(folder, "index.json"), `${JSON.stringify(index, null, 2)}\n`);
}

export async function readSentences(): Promise<Sentences> {
  try {
    const sentences = await sentencesOfGo();
    // The packages lack these groups.
    for (const [name, text] of await sentencesOfClientNode()) {
      if (name.startsWith("apiextensions/") || name.startsWith("apiregistration/")) sentences.set(name, text);
    }
    return sentences;
  } catch (error) {
    if (process.env["CI"] === "true") throw error;
    const why = error instanceof Error ? error.message.split("\n")[0] : String(error);
    console.error(`Go sources cannot be had (${why}); taking descriptions from @kubernetes/client-node`);
    return sentencesOfClientNode();
  }
}

async function sentencesOfGo(): Promise<Sentences> {
  const api = await sourceFolder("golang-k8s-api-dev");
  const apimachinery = await sourceFolder("golang-k8s-apimachinery-dev");
  const sentences: Sentences = new Map();
  for (const name of servedPackages) {
    const root = name.startsWith("meta/") ? apimachinery : api;
    const text = await fs.readFile(join(root, importPath(name), "types_swagger_doc_generated.go"), "utf8");
    let type = "";
    for (const line of text.split("\n")) {
      const start = /^var map_(\w+) = /.exec(line);
      if (start) type = `${name}.${start[1]}`;
      const entry = /^\t("(?:[^"\\]|\\.)*"):\s*("(?:[^"\\]|\\.)*"),$/.exec(line);
      if (!entry || type === "") continue;
      const member = JSON.parse(entry[1]!) as string;
      sentences.set(member === "" ? type : `${type}.${member}`, unquoteGo(entry[2]!));
    }
  }
  // Types that have no generated documentation keep it as a comment.
  const others: readonly [file: string, type: string, name: string][] = [
    ["k8s.io/apimachinery/pkg/api/resource/quantity.go", "Quantity", "resource.Quantity"],
    ["k8s.io/apimachinery/pkg/util/intstr/intstr.go", "IntOrString", "intstr.IntOrString"],
    ["k8s.io/apimachinery/pkg/runtime/types.go", "RawExtension", "runtime.RawExtension"],
    ["k8s.io/apimachinery/pkg/apis/meta/v1/time.go", "Time", "meta/v1.Time"],
    ["k8s.io/apimachinery/pkg/apis/meta/v1/micro_time.go", "MicroTime", "meta/v1.MicroTime"],
    ["k8s.io/apimachinery/pkg/apis/meta/v1/duration.go", "Duration", "meta/v1.Duration"],
  ];
  for (const [file, type, name] of others) {
    const text = await fs.readFile(join(apimachinery, file), "utf8");
    const comment = new RegExp(`((?:^//.*\\n)+)type ${type} struct`, "m").exec(text)?.[1] ?? "";
    const lines = comment.split("\n").map((line) => line.replace(/^\/\/ ?/, ""));
    sentences.set(
      name,
      lines
        .filter((line) => !line.startsWith("+"))
        .join("\n")
        .trim(),
    );
  }
  return sentences;
}

/** Go escapes what JSON does not (`\'`, `\a`); none of it occurs in prose but as the character itself. */
const unquoteGo = (literal: string): string =>
  JSON.parse(
    literal.replace(/\\(.)/g, (sequence, letter: string) => (/["\\nrtbfu/]/.test(letter) ? sequence : letter)),
  ) as string;

async function sentencesOfClientNode(): Promise<Sentences> {
  const folder = join("node_modules", "@kubernetes", "client-node", "dist", "gen", "models");
  const sentences: Sentences = new Map();
  for (const file of (await fs.readdir(folder)).filter((name) => name.endsWith(".d.ts"))) {
    const match =
      /^(Core|Discovery|Events|Apps|Storage|Authentication|Flowcontrol|Admissionregistration|Rbac)?(V\d\w*?)([A-Z]\w*)\.d\.ts$/.exec(
        file,
      );
    if (!match) continue;
    const [, prefix = "", version = "", kind = ""] = match;
    const text = await fs.readFile(join(folder, file), "utf8");
    const about = /\/\*\*\n\* (.*)\n\*\/\nexport declare class/.exec(text)?.[1] ?? "";
    for (const pkg of [...servedPackages, "apiextensions/v1", "apiregistration/v1"]) {
      if (!pkg.endsWith(`/${version.toLowerCase()}`)) continue;
      if (prefix !== "" && pkg !== `${prefix.toLowerCase()}/${version.toLowerCase()}`) continue;
      const type = `${pkg}.${kind}`;
      if (about !== "") sentences.set(type, plain(about));
      for (const member of text.matchAll(/\/\*\*\n {4}\* (.*)\n {4}\*\/\n {4}'(\w+)'\??:/g)) {
        sentences.set(`${type}.${member[2]}`, plain(member[1]!));
      }
    }
  }
  return sentences;
}
const plain = (text: string): string => text.replace(/\\(['"])/g, "$1");

if (/scripts__build__openapi\.mjs$/.test(process.argv[1] ?? "")) await buildOpenapi();
