// What a host must have before a cluster is started on it: each lack is one clear sentence, and nothing is half-started.
import { existsSync, statfsSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, resolve } from "node:path";
import { architectures, type HostPackage, hostPackages } from "#build.config.ts";
import { readable, run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";

const minimumFreeBytes = 1024 ** 3;

export function requireRoot(): void {
  if (process.getuid?.() !== 0) {
    throw new UserError(
      "a node needs root for containers and networks: run `sudo npm run up` (API only, unprivileged: build/dist/mote server --disable-agent)",
    );
  }
}

export function requireArchitecture(): void {
  if (!architectures.some((a) => a.node === process.arch)) {
    throw new UserError(
      `this machine is ${process.arch}; mote runs on ${architectures.map((a) => a.debian).join(", ")}`,
    );
  }
}

export function requireSpace(folder: string): void {
  // Nothing is made before all is known to be well: the disk is that of the nearest folder which is there already.
  let existing = resolve(folder);
  while (!existsSync(existing)) existing = dirname(existing);
  const stat = statfsSync(existing);
  const free = stat.bavail * stat.bsize;
  if (free < minimumFreeBytes) {
    throw new UserError(`${folder} has ${Math.floor(free / 1024 ** 2)} MiB free; at least 1024 MiB are needed`);
  }
}

export async function requirePort(port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new UserError(
          error.code === "EADDRINUSE"
            ? `port ${port} is taken by another program (see: ss -ltnp 'sport = :${port}')`
            : `cannot listen on port ${port}: ${error.message}`,
        ),
      ),
    );
    server.listen(port, "0.0.0.0", () => server.close(() => resolve()));
  });
}

/** Installs the Debian packages of missing programs; says what it did. */
export async function installHostPackages(wanted: readonly HostPackage[] = hostPackages): Promise<string> {
  const missing = wanted.filter((p) => !existsSync(p.program));
  if (missing.length === 0) return "all there";
  const names = [...new Set(missing.map((p) => p.package))];
  if (!existsSync("/usr/bin/apt-get")) {
    throw new UserError(`missing ${names.join(", ")}, and this is no Debian: install them by hand`);
  }
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  // One broken source of many fails the update although the packages may be known: the installation decides.
  const update = await run("apt-get", ["update", "-q"], { env, ok: [0, 100] });
  const install = ["install", "-y", "-q", "--no-install-recommends", ...names];
  const installed = await run("apt-get", install, { env, ok: [0, 100] });
  if (installed.code !== 0) {
    console.error(`\n${readable((update.code === 0 ? "" : update.output) + installed.output)}`);
    throw new UserError(`apt-get could not install ${names.join(", ")}: see above; is the Debian mirror reachable?`);
  }
  const still = wanted.filter((p) => !existsSync(p.program));
  if (still.length > 0) {
    throw new UserError(`${still.map((p) => p.program).join(", ")} missing even after installing ${names.join(", ")}`);
  }
  return `installed ${names.join(", ")}`;
}
