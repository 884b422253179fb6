import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { type EnsureImagesDeps, ensureImages, readArchiveIndex } from "./shipped-images.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-images-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;

/** The first block of an archive is all that is looked at. */
async function archive(name: string, reference: string, hash: string): Promise<void> {
  const index = Buffer.from(
    JSON.stringify({ manifests: [{ digest: hash, annotations: { "io.containerd.image.name": reference } }] }),
  );
  const block = Buffer.alloc(512);
  block.write("index.json", 0);
  block.write(`${index.length.toString(8).padStart(11, "0")}\0`, 124);
  await writeFile(join(folder, name), Buffer.concat([block, index, Buffer.alloc(1024)]));
}

function fakes(pinned: readonly (readonly [string, string])[]): { deps: EnsureImagesDeps; calls: string[] } {
  const calls: string[] = [];
  return {
    calls,
    deps: {
      log: silentLogger,
      unpacking: {
        async during(reference, unpack) {
          calls.push(`mark ${reference}`);
          return unpack();
        },
      },
      commands: {
        async run(_program, args) {
          calls.push(args.slice(4).join(" "));
          return { code: 0, stdout: "", stderr: "" };
        },
      },
      store: {
        pinned: async () => new Map(pinned),
        async pin(reference) {
          calls.push(`pin ${reference}`);
        },
        close: () => {},
      },
    },
  };
}
const options = () => ({ containerdSocket: "/s", folder, architecture: "amd64" as const });

test.each([
  ["nothing there, or never labelled", [], true],
  ["the same digest, pinned", [["mote.local/a:1", digest("a")]], false],
  ["an older digest", [["mote.local/a:1", digest("b")]], true],
] as const)("%s", async (_name, pinned, imported) => {
  await archive("a-amd64.tar", "mote.local/a:1", digest("a"));
  await archive("a-arm.tar", "mote.local/a:1", digest("c"));
  const { deps, calls } = fakes(pinned);
  const images = await ensureImages(options(), deps);
  expect(images).toEqual([
    { reference: "mote.local/a:1", digest: digest("a"), path: join(folder, "a-amd64.tar"), imported },
  ]);
  expect(calls).toEqual(
    imported ? ["mark mote.local/a:1", `images import ${join(folder, "a-amd64.tar")}`, "pin mote.local/a:1"] : [],
  );
});

test("an empty folder and a foreign file are named in the error", async () => {
  await expect(ensureImages(options(), fakes([]).deps)).rejects.toMatchObject({
    code: "NODE_IMAGES_MISSING",
  });
  await writeFile(join(folder, "x-amd64.tar"), "no tar");
  await expect(readArchiveIndex(join(folder, "x-amd64.tar"))).rejects.toMatchObject({ code: "NODE_IMAGE_ARCHIVE" });
  await expect(readArchiveIndex(join(folder, "none.tar"))).rejects.toThrow("does not exist");
});
