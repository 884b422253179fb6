// What `mote certificate rotate` does to the files: a copy of all of them first, then the pairs that were named go, so that
// they are issued anew by the server that runs, or at the next start. A node of another server keeps what it has until it
// was given new ones: it is told to ask. Upstream counterpart: k3s pkg/cli/cert.
import { listFolder, makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { removeFile } from "#platform/folders.ts";
import { rotateMark, servicePairs } from "./certificate-services.ts";

export interface RotateOptions {
  /** DATA-DIR/server/tls, where there is a server. */
  readonly tlsFolder: string | undefined;
  /** DATA-DIR/agent, where there is an agent that has joined. */
  readonly agentFolder: string | undefined;
  /** Names of `servicePairs`. */
  readonly services: readonly string[];
  readonly nowMs: number;
}

/** Where the copy is; undefined: there was no server. */
export async function rotateLeaves(options: RotateOptions): Promise<string | undefined> {
  const { tlsFolder, agentFolder } = options;
  const pairs = (of: "server" | "agent") => options.services.flatMap((service) => servicePairs[service]?.[of] ?? []);
  if (agentFolder !== undefined)
    await writeFileDurable(`${agentFolder}/${rotateMark}`, pairs("agent").join("\n"), 0o600);
  if (tlsFolder === undefined) return undefined;
  const backup = `${tlsFolder}-${Math.floor(options.nowMs / 1000)}`;
  await copyFiles(tlsFolder, backup);
  for (const pair of pairs("server")) {
    // The certificate first: a key alone is no pair.
    for (const extension of ["crt", "key"]) await removeFile(`${tlsFolder}/${pair}.${extension}`);
  }
  return backup;
}

/** Of both levels that server/tls has. */
export async function copyFiles(from: string, to: string): Promise<void> {
  await makeFolder(to, 0o700);
  for (const entry of await listFolder(from)) {
    if (entry.isDirectory()) await copyFiles(`${from}/${entry.name}`, `${to}/${entry.name}`);
    if (!entry.isFile()) continue;
    const bytes = await readFileIfExists(`${from}/${entry.name}`);
    if (bytes) await writeFileDurable(`${to}/${entry.name}`, bytes, 0o600);
  }
}
