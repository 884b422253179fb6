// The container images that come with mote, made from static binaries of Debian packages, without root and without a
// registry: the pause image every pod sandbox runs on, and two small ones for examples and tests. Same packages in,
// same bytes out. `node scripts/run.mjs scripts/build/images.ts [ARCH ...]` writes build/dist/images/NAME-ARCH.tar;
// with `--lock` it first pins what the archive holds today in images.lock.json.
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Architecture, architectures } from "#build.config.ts";
import { type DebianPackage, findDebianPackage, unpackDebianPackage } from "../debian.ts";
import { buildImage, file, folder, type ImageSpec, link } from "./oci/image.ts";
import type { TarEntry } from "./oci/tar.ts";

export interface BuildImagesOptions {
  /** Debian architectures to build for; default: the one this runs on. */
  readonly architectures?: readonly Architecture["debian"][];
  /** Default build/dist/images. */
  readonly outputFolder?: string;
}

export interface WrittenImage {
  readonly reference: string;
  readonly digest: string;
  readonly path: string;
  readonly sizeBytes: number;
}

interface Lock {
  readonly packages: readonly DebianPackage[];
}

interface Programs {
  readonly catatonit: Uint8Array;
  readonly busybox: Uint8Array;
}

type Recipe = Omit<ImageSpec, "architecture" | "variant" | "entries"> & {
  readonly fileName: string;
  entries(programs: Programs): readonly TarEntry[];
};

/** All images. The tag changes when a reader of the image must notice; the digest changes with every package update. */
const recipes: readonly Recipe[] = [
  {
    fileName: "pause",
    reference: "mote.local/pause:1",
    madeFrom: "catatonit",
    entrypoint: ["/catatonit", "-P"],
    user: "65535:65535",
    entries: (programs) => [file("catatonit", programs.catatonit, 0o755)],
  },
  {
    fileName: "busybox",
    reference: "mote.local/busybox:1",
    madeFrom: "busybox-static",
    cmd: ["sh"],
    entries: (programs) => busyboxRoot(programs.busybox),
  },
  {
    fileName: "web",
    reference: "mote.local/web:1",
    madeFrom: "busybox-static, catatonit",
    // busybox's httpd has no SIGTERM handler, which as PID 1 would mean that every stop waits for the whole grace.
    entrypoint: ["/bin/catatonit", "--", "/bin/busybox", "httpd", "-f", "-v"],
    cmd: ["-p", "8080", "-h", "/www"],
    user: "65534:65534",
    ports: ["8080/tcp"],
    entries: (programs) => [
      ...busyboxRoot(programs.busybox),
      file("bin/catatonit", programs.catatonit, 0o755),
      folder("www"),
      file("www/index.html", "<!doctype html><title>mote</title><p>It works. Mount your own page at /www.</p>\n"),
    ],
  },
];

// The bundled script lies in build/scripts, the source in scripts/build: the project is two folders up either way.
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const lockPath = join(root, "scripts", "build", "images.lock.json");
const debianFolder = join(root, "build", "debian");

export async function buildImages(options: BuildImagesOptions = {}): Promise<WrittenImage[]> {
  const output = options.outputFolder ?? join(root, "build", "dist", "images");
  const wanted = options.architectures ?? architectures.filter((a) => a.node === process.arch).map((a) => a.debian);
  if (wanted.length === 0)
    throw new Error(`no images for ${process.arch}: mote knows ${architectures.map((a) => a.node).join(", ")}`);
  await mkdir(output, { recursive: true });
  const lock = JSON.parse(await readFile(lockPath, "utf8")) as Lock;
  const written: WrittenImage[] = [];
  for (const architecture of architectures.filter((a) => wanted.includes(a.debian))) {
    const programs: Programs = {
      catatonit: await programOf(lock, "catatonit", architecture.debian, "usr/bin/catatonit"),
      busybox: await programOf(lock, "busybox-static", architecture.debian, "bin/busybox", "usr/bin/busybox"),
    };
    for (const recipe of recipes) {
      const { fileName, entries, ...spec } = recipe;
      const image = buildImage({
        ...spec,
        architecture: architecture.oci,
        ...(architecture.oci === "arm" ? { variant: "v7" } : {}),
        entries: entries(programs),
      });
      const path = join(output, `${fileName}-${architecture.oci}.tar`);
      await writeFile(`${path}.tmp`, image.archive);
      await rename(`${path}.tmp`, path);
      written.push({ reference: image.reference, digest: image.digest, path, sizeBytes: image.archive.length });
    }
  }
  return written;
}

/** Pins the packages as the archive has them now, for every architecture. */
export async function writeLock(): Promise<void> {
  const packages: DebianPackage[] = [];
  for (const name of ["busybox-static", "catatonit"]) {
    for (const { debian } of architectures)
      packages.push(await findDebianPackage(name, debian, { folder: debianFolder }));
  }
  await writeFile(lockPath, `${JSON.stringify({ packages } satisfies Lock, null, 2)}\n`);
}

/** Names of the applets a busybox binary knows; read from its table, so that it need not run on this machine. */
export function busyboxApplets(binary: Uint8Array): string[] {
  const bytes = Buffer.from(binary.buffer, binary.byteOffset, binary.byteLength);
  const start = bytes.indexOf("[\0[[\0", 0, "latin1");
  const end = bytes.indexOf("\0\0", start, "latin1");
  const names = start >= 0 && end > start ? bytes.toString("latin1", start, end).split("\0") : [];
  if (names.length < 100 || !names.includes("sh") || !names.every((name) => /^[a-z0-9[_.-]+$/.test(name))) {
    throw new Error(`found no applet table in this busybox (${names.length} names)`);
  }
  return names;
}

function busyboxRoot(busybox: Uint8Array): TarEntry[] {
  return [
    ...["bin", "dev", "etc", "home", "proc", "run", "sys", "usr", "usr/local", "usr/local/bin", "var", "var/log"].map(
      (path) => folder(path),
    ),
    folder("root", 0o700),
    folder("tmp", 0o1777),
    folder("var/tmp", 0o1777),
    link("sbin", "bin"),
    link("usr/bin", "../bin"),
    link("usr/sbin", "../bin"),
    file("bin/busybox", busybox, 0o755),
    ...busyboxApplets(busybox)
      .filter((name) => name !== "busybox")
      .map((name) => link(`bin/${name}`, "busybox")),
    file(
      "etc/passwd",
      "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    ),
    file("etc/group", "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"),
    file("etc/shadow", "root:*:::::::\n", 0o600),
    file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
  ];
}

/** One program out of a package; Debian moved some from /bin to /usr/bin, hence more than one place. */
async function programOf(
  lock: Lock,
  name: string,
  architecture: string,
  ...places: readonly string[]
): Promise<Uint8Array> {
  const wanted = lock.packages.find((p) => p.name === name && p.arch === architecture);
  if (!wanted) throw new Error(`${name} (${architecture}) is not in ${lockPath}; run this with --lock`);
  const unpacked = await unpackDebianPackage(wanted, { folder: debianFolder });
  for (const place of places) {
    const found = await readFile(join(unpacked, place)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (found) return new Uint8Array(found);
  }
  throw new Error(`${name} (${architecture}) has none of ${places.join(", ")}`);
}

if (process.argv[1]?.endsWith("scripts__build__images.mjs")) {
  if (process.argv.includes("--lock")) await writeLock();
  const asked = process.argv.slice(2).filter((argument) => argument !== "--lock");
  const unknown = asked.find((name) => !architectures.some((a) => a.debian === name));
  if (unknown !== undefined) {
    console.error(`unknown architecture ${unknown}; one of ${architectures.map((a) => a.debian).join(", ")}`);
    process.exit(1);
  }
  const images = await buildImages(asked.length > 0 ? { architectures: asked as Architecture["debian"][] } : {});
  for (const image of images)
    console.log(`${image.path}  ${image.reference}  ${image.digest}  ${image.sizeBytes} bytes`);
}
