// What all servers of a cluster must have alike: authorities, the key of service-account tokens, passwords, and keys of
// encryption at rest. As files below DATA-DIR/server, and as the map that lies in the datastore and goes to joining servers:
// name -> {Timestamp, Content}, k3s's. `planFiles` decides which of two differing contents counts.
// Upstream counterpart: k3s pkg/bootstrap and pkg/cluster/bootstrap.go.
import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { makeFolder, modifiedMs, readFileIfExists, setModified, writeFileDurable } from "#platform/files.ts";
import { unreadable } from "./cipher.ts";

/** Below DATA-DIR/server. */
export const sharedFiles = {
  ServerCA: "tls/server-ca.crt",
  ServerCAKey: "tls/server-ca.key",
  ClientCA: "tls/client-ca.crt",
  ClientCAKey: "tls/client-ca.key",
  RequestHeaderCA: "tls/request-header-ca.crt",
  RequestHeaderCAKey: "tls/request-header-ca.key",
  ETCDServerCA: "tls/etcd/server-ca.crt",
  ETCDServerCAKey: "tls/etcd/server-ca.key",
  ETCDPeerCA: "tls/etcd/peer-ca.crt",
  ETCDPeerCAKey: "tls/etcd/peer-ca.key",
  ServiceKey: "tls/service.key",
  PasswdFile: "cred/passwd",
  IPSECKey: "cred/ipsec.psk",
  EncryptionConfig: "cred/encryption-config.json",
  EncryptionHash: "cred/encryption-state.json",
} as const;
type SharedName = keyof typeof sharedFiles;
const names = Object.keys(sharedFiles) as SharedName[];

export interface SharedFile {
  readonly content: Buffer;
  readonly modifiedMs: number;
}
export type SharedFiles = ReadonlyMap<string, SharedFile>;

/** Several servers have an etcd of their own, whose authorities these are not: whichever is there will do. */
const isSpare = (name: string): boolean => name.startsWith("ETCD");
/** A file that is newer by less was written by the same hand. */
const toleranceMs = 3000;

/** Of contents, by name. */
export type Hashes = Readonly<Record<string, string>>;

export interface FilesPlan {
  readonly write: readonly string[];
  /** Newer here than there and not the same: somebody has to choose. */
  readonly conflicts: readonly string[];
}

/**
 * `record`: the datastore's, which counts. `common`: what this server knows both to have had: where the record has it still, what
 * is newer here is this server's own change, which it was stopped in, and is saved.
 */
export function planFiles(record: SharedFiles, disk: SharedFiles, common: Hashes = {}): FilesPlan {
  const write: string[] = [];
  const conflicts: string[] = [];
  for (const [name, theirs] of record) {
    const ours = disk.get(name);
    if (ours && sameContent(ours, theirs)) continue;
    if (ours && !isSpare(name) && ours.modifiedMs - theirs.modifiedMs >= toleranceMs) {
      if (common[name] !== hashOf(theirs)) conflicts.push(name);
    } else write.push(name);
  }
  return { write, conflicts };
}

const hashOf = ({ content }: SharedFile): string => createHash("sha256").update(content).digest("hex");

/** Below DATA-DIR/server: what was in the datastore when the files here were last the same. */
const commonFile = "shared-keys.json";

export async function readCommon(serverDir: string): Promise<Hashes> {
  const text = (await readFileIfExists(`${serverDir}/${commonFile}`))?.toString("utf8");
  if (text === undefined) return {};
  try {
    return JSON.parse(text) as Hashes;
  } catch {
    // As if nothing were known: what differs is told to a human.
    return {};
  }
}

export async function writeCommon(serverDir: string, files: SharedFiles): Promise<void> {
  const text = `${JSON.stringify(Object.fromEntries([...files].map(([name, file]) => [name, hashOf(file)])))}\n`;
  const path = `${serverDir}/${commonFile}`;
  if ((await readFileIfExists(path))?.toString("utf8") === text) return;
  await makeFolder(serverDir, 0o700);
  await writeFileDurable(path, text, 0o600);
}

const sameContent = (a: SharedFile, b: SharedFile): boolean => a.content.equals(b.content);

/** What stands in one and not, or otherwise, in the other. */
export function differences(a: SharedFiles, b: SharedFiles): readonly string[] {
  return names.filter((name) => {
    const [one, other] = [a.get(name), b.get(name)];
    return one && other ? !sameContent(one, other) : one !== other;
  });
}

export function parseFiles(text: string): SharedFiles {
  let map: unknown;
  try {
    map = JSON.parse(text);
  } catch (error) {
    throw unreadable("it is no JSON", error);
  }
  if (typeof map !== "object" || map === null) throw unreadable("it is no map");
  const found = new Map<string, SharedFile>();
  for (const name of names) {
    const value = (map as Readonly<Record<string, unknown>>)[name];
    // Of before k3s 1.21: the content alone.
    const { Content: content, Timestamp: time } =
      typeof value === "object" && value !== null
        ? (value as Readonly<Record<string, unknown>>)
        : { Content: value, Timestamp: undefined };
    if (typeof content !== "string" || content === "") continue;
    const ms = typeof time === "string" ? Date.parse(time) : 0;
    found.set(name, { content: Buffer.from(content, "base64"), modifiedMs: Number.isFinite(ms) ? Math.max(0, ms) : 0 });
  }
  return found;
}

export function formatFiles(files: SharedFiles): string {
  const entries = [...files].map(([name, { content, modifiedMs: ms }]) => [
    name,
    { Timestamp: new Date(ms).toISOString(), Content: content.toString("base64") },
  ]);
  return JSON.stringify(Object.fromEntries(entries));
}

export async function readFiles(serverDir: string): Promise<SharedFiles> {
  const found = new Map<string, SharedFile>();
  for (const name of names) {
    const path = `${serverDir}/${sharedFiles[name]}`;
    const content = await readFileIfExists(path);
    if (content && content.length > 0) found.set(name, { content, modifiedMs: await modifiedMs(path) });
  }
  return found;
}

/** With the times of the record, so that the next start finds nothing to do. Keys before what is made with them. */
export async function writeFiles(serverDir: string, files: SharedFiles, chosen: readonly string[]): Promise<void> {
  const keysFirst = [...chosen].sort((a, b) => Number(b.endsWith("Key")) - Number(a.endsWith("Key")));
  for (const name of keysFirst) {
    const file = files.get(name);
    if (!file) continue;
    const path = `${serverDir}/${sharedFiles[name as SharedName]}`;
    await makeFolder(dirname(path), 0o700);
    await writeFileDurable(path, file.content, 0o600);
    await setModified(path, file.modifiedMs);
  }
}
