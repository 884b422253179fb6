// The keys of a cluster in its shared datastore, so that every server that knows the token has the same ones. Opened before
// anything is made: the first server takes the place, makes its keys and saves them; all others write what they find to disk
// first. What differs is decided by planFiles, and told where only a human can.
// Saved again whenever the files here change (a new authority, new keys of encryption); under another name when the token
// changes. A server that is stopped in between goes on where it was at its next start: it knows what both had before.
// Upstream counterpart: k3s pkg/cluster/storage.go and bootstrap.go.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { type Backend, type KeyValue, prefixRange } from "#datastore/backend.ts";
import { decryptRecord, encryptRecord, recordKey, recordPrefix } from "./bootstrap/cipher.ts";
import {
  differences,
  formatFiles,
  parseFiles,
  planFiles,
  readCommon,
  readFiles,
  type SharedFiles,
  sharedFiles,
  writeCommon,
  writeFiles,
} from "./bootstrap/files.ts";
import { forgetOtherPassword, otherPassword, sameText } from "./tokens.ts";

export interface BootstrapRecordOptions {
  /** DATA-DIR/server. */
  readonly serverDir: string;
  /** Password of --token, and of an earlier start; one may be absent. */
  readonly wanted: string | undefined;
  readonly known: string | undefined;
}

export interface BootstrapRecordDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface BootstrapRecord {
  /** The cluster's. */
  readonly password: string;
  /** Puts what is on disk into the datastore. */
  save(): Promise<void>;
  /** The same under another token; the old one opens nothing any more. */
  rotate(password: string): Promise<void>;
  /** For servers that join: the map as JSON. */
  plaintext(): Promise<string>;
  /** Looks after changes, here and there. */
  readonly service: Service;
}

/** Whoever makes the keys has so long; then it is taken for dead. */
const lockSeconds = 20;
const pollMs = 1000;
/** Files change by hand or by commands: nobody waits for it. */
const lookMs = 60_000;

/** Rejects with BOOTSTRAP_TOKEN, BOOTSTRAP_CONFLICT, BOOTSTRAP_RECORD or TOKEN_CHANGED, for none of which waiting helps. */
export async function openBootstrapRecord(
  options: BootstrapRecordOptions,
  deps: BootstrapRecordDeps,
  signal: AbortSignal,
): Promise<BootstrapRecord> {
  const { serverDir } = options;
  const { backend, clock, random, log } = deps;
  const found = await find(options, deps, signal);
  const { record } = found;
  let { password } = found;
  let isSaved = record.value.length > 0;
  /** What was in both when they were last alike. */
  let common: SharedFiles = new Map();
  const agree = async (files: SharedFiles): Promise<void> => {
    common = files;
    await writeCommon(serverDir, files);
  };
  if (isSaved) {
    const files = parseFiles(await decryptRecord(textOf(record), password));
    const { write, conflicts } = planFiles(files, await readFiles(serverDir), await readCommon(serverDir));
    if (conflicts.length > 0) throw conflict(serverDir, conflicts);
    await writeFiles(serverDir, files, write);
    if (write.length > 0) log.info("keys of the cluster taken from the datastore", { files: write.join() });
    await agree(files);
  } else log.info("this server makes the keys of the cluster");
  let { modRevision }: { modRevision: number } = record;

  const put = async (files: SharedFiles): Promise<boolean> => {
    const key = recordKey(password);
    const value = Buffer.from(await encryptRecord(formatFiles(files), password, random));
    const result = await backend.commit({
      compares: [{ key, target: "mod", op: "=", value: modRevision }],
      success: [{ type: "put", key, value }],
    });
    if (!result.succeeded) return false;
    [modRevision, isSaved] = [result.revision, true];
    await agree(files);
    return true;
  };

  /** What is in the datastore now; undefined: it is not there, or another token opens it. */
  const stored = async (): Promise<SharedFiles | undefined> => {
    const { kvs } = await backend.range({ key: recordKey(password) });
    const [kv] = kvs;
    if (!kv || kv.value.length === 0) return undefined;
    const files = parseFiles(await decryptRecord(textOf(kv), password));
    modRevision = kv.modRevision;
    return files;
  };

  const save = async (): Promise<void> => {
    const files = await readFiles(serverDir);
    if (isSaved && differences(files, common).length === 0) return;
    if (await put(files)) {
      log.info("keys of the cluster saved in the datastore");
      return;
    }
    // Another server was faster. Alike is well.
    const theirs = await stored();
    if (!theirs) {
      // Or this one took too long, and its place is free again.
      modRevision = 0;
      if (await put(files)) return;
      throw new AppError("BOOTSTRAP_CONFLICT", "another server makes the keys of the cluster: start this one again");
    }
    const names = differences(files, theirs);
    if (names.length > 0) throw conflict(serverDir, names);
    await agree(files);
  };

  let isTold = false;
  const look = async (): Promise<void> => {
    const files = await readFiles(serverDir);
    const mine = differences(files, common);
    const theirs = await stored();
    if (!theirs) {
      if (!isTold) log.warn("the token was changed at another server: start this one with the new token");
      isTold = true;
      return;
    }
    const other = differences(theirs, common);
    if (other.length > 0 && mine.length === 0) {
      if (!isTold) log.warn("keys were changed at another server: restart this one", { files: other.join() });
      isTold = true;
    } else if (mine.length > 0 && other.length === 0) await save();
    else if (differences(files, theirs).length > 0) throw conflict(serverDir, mine);
    else await agree(files);
  };

  const rotate = async (next: string): Promise<void> => {
    if (sameText(next, password)) return;
    const theirs = await stored();
    // It would be lost with the old name.
    const isBehind = !theirs || differences(theirs, common).some((name) => theirs.has(name));
    if (isBehind) throw new AppError("BOOTSTRAP_CONFLICT", `${changedElsewhere}: restart this one first`);
    const files = await readFiles(serverDir);
    const [from, to] = [recordKey(password), recordKey(next)];
    const value = Buffer.from(await encryptRecord(formatFiles(files), next, random));
    const result = await backend.commit({
      compares: [
        { key: to, target: "create", op: "=", value: 0 },
        { key: from, target: "mod", op: "=", value: modRevision },
      ],
      success: [
        { type: "put", key: to, value },
        { type: "delete", key: from },
      ],
    });
    if (!result.succeeded)
      throw new AppError(
        "BOOTSTRAP_TOKEN",
        `there are keys of a cluster under this token already, or ${changedElsewhere}`,
      );
    [password, modRevision] = [next, result.revision];
    await agree(files);
  };
  if (found.next !== undefined) {
    await rotate(found.next);
    log.info("the change of the token that this server was stopped in is done");
  }
  await forgetOtherPassword(serverDir);

  return {
    get password() {
      return password;
    },
    save,
    rotate,
    plaintext: async () => formatFiles(await readFiles(serverDir)),
    service: {
      name: "bootstrap-record",
      async run(stop, ready) {
        ready();
        while (!stop.aborted) {
          await pause(clock, lookMs, stop);
          if (stop.aborted) return;
          try {
            await look();
          } catch (error) {
            log.warn("the keys of the cluster cannot be compared with the datastore", { error: messageOf(error) });
          }
        }
      },
    },
  };
}

/** The password that counts, and its record; an empty one is ours to fill. `next`: the password that it was about to get. */
async function find(
  { wanted, known, serverDir }: BootstrapRecordOptions,
  deps: BootstrapRecordDeps,
  signal: AbortSignal,
): Promise<{ password: string; record: KeyValue; next?: string }> {
  const { backend, clock, random, log } = deps;
  const other = await otherPassword(serverDir);
  const made = Buffer.from(random.bytes(16)).toString("hex");
  for (let isFirst = true; ; isFirst = false) {
    const { kvs } = await backend.range(prefixRange(recordPrefix));
    const under = (password: string | undefined) =>
      password === undefined ? undefined : kvs.find(({ key }) => key === recordKey(password));
    const isChanged = wanted !== undefined && known !== undefined && !sameText(wanted, known);
    if (isChanged && !under(wanted)) {
      const path = `${serverDir}/token`;
      throw new AppError(
        "TOKEN_CHANGED",
        `the token given differs from the one in ${path}: give that one; mote token rotate changes it`,
        { path },
      );
    }
    const password = wanted ?? known ?? made;
    const record = under(password);
    if (record && record.value.length > 0) return { password, record };
    const earlier = record ? undefined : under(other);
    if (other !== undefined && earlier && earlier.value.length > 0) {
      return { password: other, record: earlier, next: password };
    }
    if (!record) {
      if (kvs.some(({ value }) => value.length > 0)) throw otherToken(wanted ?? known);
      const mine = await lock(recordKey(password), backend);
      if (mine) return { password, record: mine };
    }
    if (isFirst) log.info("another server makes the keys of the cluster; waiting for it");
    await clock.sleep(pollMs, signal);
  }
}

/**
 * The empty record says that somebody is at it; it vanishes with whoever does not finish. Undefined: another was first, be it
 * with another token.
 */
async function lock(key: string, backend: Backend): Promise<KeyValue | undefined> {
  const { id } = await backend.grantLease(lockSeconds, 0, true);
  const { succeeded } = await backend.commit({
    compares: [{ key, target: "create", op: "=", value: 0 }],
    success: [{ type: "put", key, value: new Uint8Array(0), lease: id }],
  });
  const { kvs } = await backend.range(prefixRange(recordPrefix));
  const [first] = [...kvs].sort((a, b) => a.createRevision - b.createRevision);
  if (succeeded && first?.key === key) return first;
  await backend.revokeLease(id);
  return undefined;
}

const changedElsewhere = "another server has changed keys or token of the cluster";

function otherToken(given: string | undefined): AppError {
  const message = given
    ? "this cluster was begun with another token: start this server with --token and the line in server/token of another server"
    : "this datastore has a cluster: start this server with --token and the line in server/token of another server";
  return new AppError("BOOTSTRAP_TOKEN", message);
}

function conflict(serverDir: string, names: readonly string[]): AppError {
  const paths = names.map((name) => `${serverDir}/${sharedFiles[name as keyof typeof sharedFiles] ?? name}`);
  return new AppError(
    "BOOTSTRAP_CONFLICT",
    `newer here than in the datastore, and not the same: ${paths.join(", ")}. To go on with those of the cluster, move these away`,
    { files: names },
  );
}

const textOf = ({ value }: KeyValue): string => Buffer.from(value).toString("utf8");
