import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Commands } from "#platform/processes.ts";
import { ensureImages, parseImageList, readArchiveIndex } from "./shipped-images.ts";

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

function fakeCtr(table: string): { commands: Commands; calls: string[] } {
  const calls: string[] = [];
  return {
    calls,
    commands: {
      async run(_program, args) {
        calls.push(args.slice(4).join(" "));
        return { code: 0, stdout: args.includes("ls") ? table : "", stderr: "" };
      },
    },
  };
}
const options = () => ({ containerdSocket: "/s", folder, architecture: "amd64" as const });
const header = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n";
const row = (reference: string, hash: string, labels: string) =>
  `${reference} application/vnd.oci.image.manifest.v1+json ${hash} 2.1 MiB linux/amd64 ${labels}\n`;

test.each([
  ["nothing there", "", true],
  ["the same digest, pinned", row("mote.local/a:1", digest("a"), "io.cri-containerd.pinned=pinned"), false],
  ["the same digest, never labelled", row("mote.local/a:1", digest("a"), "-"), true],
  ["an older digest", row("mote.local/a:1", digest("b"), "io.cri-containerd.pinned=pinned"), true],
])("%s", async (_name, rows, imported) => {
  await archive("a-amd64.tar", "mote.local/a:1", digest("a"));
  await archive("a-arm.tar", "mote.local/a:1", digest("c"));
  const { commands, calls } = fakeCtr(header + rows);
  const images = await ensureImages(options(), { commands, log: silentLogger });
  expect(images).toEqual([
    { reference: "mote.local/a:1", digest: digest("a"), path: join(folder, "a-amd64.tar"), imported },
  ]);
  expect(calls.slice(1)).toEqual(
    imported
      ? [`images import ${join(folder, "a-amd64.tar")}`, "images label mote.local/a:1 io.cri-containerd.pinned=pinned"]
      : [],
  );
});

test("an empty folder and a foreign file are named in the error", async () => {
  const { commands } = fakeCtr(header);
  await expect(ensureImages(options(), { commands, log: silentLogger })).rejects.toMatchObject({
    code: "NODE_IMAGES_MISSING",
  });
  await writeFile(join(folder, "x-amd64.tar"), "no tar");
  await expect(readArchiveIndex(join(folder, "x-amd64.tar"))).rejects.toMatchObject({ code: "NODE_IMAGE_ARCHIVE" });
  await expect(readArchiveIndex(join(folder, "none.tar"))).rejects.toThrow("does not exist");
});

test("the table of ctr", () => {
  const table = `${header}${row("a:1", digest("a"), "x=y,io.cri-containerd.pinned=pinned")}${row("b:1", digest("b"), "-")}\n`;
  expect([...parseImageList(table)]).toEqual([["a:1", digest("a")]]);
});
