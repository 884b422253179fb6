// `npm run test:image-twice [-- --arch A] [--board B] [--fast] [--control]`: the image of HEAD built in two clones that have
// as little in common as one machine allows (path, user, home, umask, time zone, language, file times, order of the
// directory), and compared byte for byte: disk, compressed forms, block map, contents, checksums, signature. Where they
// differ it says which file of the root did it. Uncommitted changes take no part. --control changes one byte of the second
// clone's root and expects to be told.
import { createHash, generateKeyPairSync } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { run } from "#scripts/run-command.ts";
import { main, runStages, type Stage, seconds, UserError } from "#scripts/stages.ts";

interface Clone {
  readonly name: string;
  readonly folder: string;
  readonly umask: string;
  readonly env: Readonly<Record<string, string>>;
  /** Numeric user to build as, when this runs as root. */
  readonly user?: number;
}

interface Job {
  readonly arch: string;
  readonly board: string;
  readonly isFast: boolean;
  readonly isControl: boolean;
}

/** Nobody's number on Debian; it needs no entry and no home of its own. */
const nobody = 65534;
/** Published beside the disk; the rest of the folder is scaffolding. */
const published = /^(mote-.*\.(img|img\.zst|img\.xz|img\.bmap|spdx\.json|licenses\.txt)|SHA256SUMS(\.sig|\.pub)?)$/;
/** Differences named before the list is cut. */
const maxNamed = 20;

function stagesOf(job: Job, base: string): Stage[] {
  const isRoot = process.getuid?.() === 0;
  const first: Clone = { name: "first", folder: join(base, "a"), umask: "022", env: {} };
  const second: Clone = {
    name: "second",
    folder: join(base, "elsewhere", "a longer path"),
    umask: "077",
    env: {
      HOME: join(base, "home"),
      TZ: "Pacific/Chatham",
      LANG: "C",
      LC_ALL: "C",
      USER: "somebody",
      MAKEFLAGS: "-j7",
    },
    ...(isRoot ? { user: nobody } : {}),
  };
  const key = join(base, "key.pem");
  return [
    {
      name: "two clones",
      run: async () => {
        const { privateKey } = generateKeyPairSync("ed25519");
        await fs.writeFile(key, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o644 });
        await fs.mkdir(join(base, "home"));
        await prepare(first, process.cwd());
        // Of the first, so that a commit made meanwhile changes nothing.
        await prepare(second, first.folder);
        if (job.isControl) await fs.appendFile(join(second.folder, "rootfs/overlay/etc/hosts"), "# control\n");
        if (second.user !== undefined) {
          await run("chown", ["-R", `${nobody}:${nobody}`, second.folder, join(base, "home")]);
        }
        return second.user === undefined ? "not root: both with this user" : `the second as user ${nobody}`;
      },
    },
    ...[first, second].map((clone) => ({ name: `${clone.name} build`, run: () => build(clone, job, key) })),
    { name: "compare", run: () => compare(first, second, job) },
  ];
}

async function prepare(clone: Clone, from: string): Promise<void> {
  await fs.mkdir(clone.folder, { recursive: true });
  const { user: _, ...owned } = clone;
  await shell(owned, `git clone -q --no-hardlinks '${from}' '${clone.folder}'`, process.cwd());
  // What a download would bring, with the same hashes; times and owners are the copy's.
  await fs.cp("node_modules", join(clone.folder, "node_modules"), { recursive: true, verbatimSymlinks: true });
  for (const folder of ["pool", "apt"]) {
    const from = join("build", "debian", folder);
    if (existsSync(from)) await fs.cp(from, join(clone.folder, from), { recursive: true });
  }
}

function shell(clone: Clone, command: string, cwd: string, output: "keep" | "show" = "keep") {
  const user =
    clone.user === undefined ? [] : ["setpriv", `--reuid=${clone.user}`, `--regid=${clone.user}`, "--clear-groups"];
  const [program, ...args] = [...user, "sh", "-c", `umask ${clone.umask}; ${command}`];
  return run(program!, args, { cwd, env: clone.env, output, timeoutMs: 30 * 60_000 });
}

async function build(clone: Clone, job: Job, key: string): Promise<string> {
  const flags = `--arch ${job.arch} --board ${job.board} --key '${key}'${job.isFast ? " --fast" : ""}`;
  const script = "scripts/image/image.ts";
  const { output } = await shell(clone, `'${process.execPath}' scripts/run.mjs ${script} ${flags}`, clone.folder);
  return output.trim().split("\n").at(-1)!;
}

async function compare(first: Clone, second: Clone, job: Job): Promise<string> {
  const output = (clone: Clone): string => join(clone.folder, "build", "image");
  const names = (await fs.readdir(output(first))).filter((name) => published.test(name)).sort();
  const others = (await fs.readdir(output(second))).filter((name) => published.test(name)).sort();
  const expected = job.isFast ? 8 : 9;
  if (names.length !== expected || names.join() !== others.join()) {
    throw new UserError(`${expected} files expected; first: ${names.join(", ")}; second: ${others.join(", ")}`);
  }
  const differing: string[] = [];
  for (const name of names) {
    if ((await hashOf(join(output(first), name))) !== (await hashOf(join(output(second), name)))) differing.push(name);
  }
  if (differing.length === 0) return `${names.length} files, all identical`;
  const work = join("build", "image", "work", job.board === "generic" ? job.arch : `${job.arch}-${job.board}`, "root");
  const inside = await treeDifferences(join(first.folder, work), join(second.folder, work));
  const named = inside.slice(0, maxNamed).join(", ") || "none: look at the order of files, or at what is made after it";
  throw new UserError(`${differing.join(", ")} differ; in the root: ${named} (${inside.length})`);
}

/** Paths whose kind, mode, size or content is not the same on both sides. */
async function treeDifferences(a: string, b: string, below = ""): Promise<string[]> {
  const list = async (root: string): Promise<string[]> => fs.readdir(join(root, below));
  const differing: string[] = [];
  for (const name of [...new Set([...(await list(a)), ...(await list(b))])].sort()) {
    const path = join(below, name);
    const [x, y] = await Promise.all([a, b].map((root) => fs.lstat(join(root, path)).catch(() => undefined)));
    if (!x || !y || x.mode !== y.mode) differing.push(path);
    else if (x.isDirectory()) differing.push(...(await treeDifferences(a, b, path)));
    else if (x.isSymbolicLink()) {
      if ((await fs.readlink(join(a, path))) !== (await fs.readlink(join(b, path)))) differing.push(path);
    } else if (x.size !== y.size || (await hashOf(join(a, path))) !== (await hashOf(join(b, path)))) {
      differing.push(path);
    }
  }
  return differing;
}

function hashOf(path: string): Promise<string> {
  return new Promise((done, fail) => {
    const hash = createHash("sha256");
    createReadStream(path, { highWaterMark: 4 * 1024 * 1024 })
      .on("data", (chunk) => hash.update(chunk))
      .on("error", fail)
      .on("end", () => done(hash.digest("hex")));
  });
}

await main(async () => {
  const { values } = parseArgs({
    options: {
      arch: { type: "string", default: "amd64" },
      board: { type: "string", default: "generic" },
      fast: { type: "boolean", default: false },
      control: { type: "boolean", default: false },
    },
  });
  const job: Job = { arch: values.arch, board: values.board, isFast: values.fast, isControl: values.control };
  const base = await fs.mkdtemp(join(resolve(tmpdir()), "mote-twice-"));
  await fs.chmod(base, 0o755);
  try {
    const work = runStages(stagesOf(job, base));
    if (job.isControl) {
      const message = await work.then(
        () => "",
        (error: Error) => error.message,
      );
      if (!message.includes("in the root: etc/hosts (1)")) {
        throw new UserError(`the control was not found: ${message || "all identical"}`);
      }
      console.log(`1 passed, 0 failed: the control was found: ${message}`);
    } else {
      console.log(`1 passed, 0 failed in ${seconds(await work)}`);
    }
  } finally {
    await fs.rm(base, { recursive: true, force: true });
  }
});
