import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { busyboxApplets } from "../images.ts";
import { buildImage, file, folder, link } from "./image.ts";
import { tarArchive } from "./tar.ts";

const listing = (archive: Uint8Array) =>
  execFileSync("tar", ["--utc", "--numeric-owner", "-tvf", "-"], { input: archive, encoding: "utf8" });

test("GNU tar reads what we write, sorted and without a time", () => {
  const long = `${"a".repeat(90)}/${"b".repeat(90)}`;
  const archive = tarArchive(
    [
      file("b/x", "hello", 0o755),
      folder("b", 0o1777),
      link("a", "b/x"),
      { ...file(long, "deep"), uid: 65534, gid: 65533 },
    ],
    { sorted: true },
  );
  expect(archive.length % 512).toBe(0);
  const lines = listing(archive)
    .trimEnd()
    .split("\n")
    .map((line) => line.replace(/\s+/g, " "));
  expect(lines).toEqual([
    "lrwxrwxrwx 0/0 0 1970-01-01 00:00 a -> b/x",
    `-rw-r--r-- 65534/65533 4 1970-01-01 00:00 ${long}`,
    "drwxrwxrwt 0/0 0 1970-01-01 00:00 b/",
    "-rwxr-xr-x 0/0 5 1970-01-01 00:00 b/x",
  ]);
  expect(execFileSync("tar", ["-xOf", "-", "b/x"], { input: archive, encoding: "utf8" })).toBe("hello");
});

test("a name without a fitting split is refused", () => {
  expect(() => tarArchive([file("c".repeat(101), "")], { sorted: true })).toThrow("too long");
});

test("an image archive is whole: every blob is named by its hash and reachable from index.json, the first entry", () => {
  const image = buildImage({
    reference: "mote.local/x:1",
    architecture: "arm",
    variant: "v7",
    entries: [file("bin/x", "x", 0o755)],
    cmd: ["/bin/x"],
    madeFrom: "nothing",
  });
  const names = execFileSync("tar", ["-tf", "-"], { input: image.archive, encoding: "utf8" }).trimEnd().split("\n");
  expect(names[0]).toBe("index.json");
  const read = (name: string) => execFileSync("tar", ["-xOf", "-", name], { input: image.archive });
  const blobs = names.filter((name) => /sha256\/./.test(name));
  expect(blobs).toHaveLength(3);
  for (const name of blobs) {
    expect(createHash("sha256").update(read(name)).digest("hex")).toBe(name.split("/").at(-1));
  }
  const index = JSON.parse(read("index.json").toString());
  expect(index.manifests[0].digest).toBe(image.digest);
  expect(index.manifests[0].platform).toEqual({ architecture: "arm", os: "linux", variant: "v7" });
  const blob = (digest: string) => read(`blobs/${digest.replace(":", "/")}`);
  const manifest = JSON.parse(blob(image.digest).toString());
  const config = JSON.parse(blob(manifest.config.digest).toString());
  expect(config.config.Cmd).toEqual(["/bin/x"]);
  expect(config.rootfs.diff_ids).toEqual([manifest.layers[0].digest]);
});

test("same input, same bytes", () => {
  const make = (entries: Parameters<typeof buildImage>[0]["entries"]) =>
    buildImage({ reference: "mote.local/x:1", architecture: "amd64", entries, madeFrom: "x" });
  const a = make([file("a", "1"), file("b", "2")]);
  const b = make([file("b", "2"), file("a", "1")]);
  expect(Buffer.compare(a.archive, b.archive)).toBe(0);
});

test("a binary without an applet table is refused", () => {
  expect(() => busyboxApplets(new Uint8Array(1000))).toThrow("applet table");
});
