// A log file of bounded size with the files before it: `audit.log`, `audit-2026-11-21T14-36-47.123.log`, and those
// compressed. Names and habits are those of the rotation upstream uses (lumberjack), so that what reads its files reads
// these. Old files are looked after beside the writing, which waits for nobody.
import { type Clock, rfc3339Micro } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type AppendFile, openForAppending } from "#platform/append-file.ts";
import { listFolder, makeFolder } from "#platform/files.ts";
import { removeFile, renamePath } from "#platform/folders.ts";
import { gzipFile } from "#platform/gzip-file.ts";
import type { LineTarget } from "./log-writer.ts";

export interface RotationOptions {
  readonly path: string;
  readonly maxBytes: number;
  /** 0: however old. */
  readonly maxAgeDays: number;
  /** 0: however many. */
  readonly maxBackups: number;
  readonly compress: boolean;
}

const fileMode = 0o600;
const folderMode = 0o700;
const dayMs = 86_400_000;

/** Rejects where the file cannot be made or written. */
export async function openRotatingLog(
  options: RotationOptions,
  deps: { readonly clock: Clock; readonly log: Logger },
): Promise<LineTarget> {
  const { path, maxBytes } = options;
  const name = splitName(path);
  let file: AppendFile | undefined;
  let tidying = Promise.resolve();

  const open = async (): Promise<AppendFile> => {
    await makeFolder(name.folder, folderMode);
    file = await openForAppending(path, fileMode);
    return file;
  };
  const close = async () => {
    const old = file;
    file = undefined;
    await old?.close();
  };
  const tidy = async () => {
    try {
      const names = (await listFolder(name.folder)).map((entry) => entry.name);
      const plan = planBackups(names, { ...options, ...name, nowMs: deps.clock.now() });
      for (const each of plan.remove) await removeFile(`${name.folder}/${each}`);
      for (const each of plan.compress) {
        await gzipFile(`${name.folder}/${each}`, `${name.folder}/${each}.gz`);
        await removeFile(`${name.folder}/${each}`);
      }
    } catch (error) {
      deps.log.warn("old audit logs cannot be looked after", { path, error: messageOf(error) });
    }
  };
  const rotate = async () => {
    await close();
    try {
      await renamePath(path, `${name.folder}/${name.stem}-${stamp(deps.clock.now())}${name.extension}`);
    } catch (error) {
      // Taken away by somebody: the next begins all the same.
      if (!hasCode(error, "ENOENT")) throw error;
    }
    tidying = tidying.then(tidy);
  };

  await open();
  tidying = tidy();
  return {
    async append(lines) {
      let dropped = 0;
      let group: Buffer[] = [];
      let size = 0;
      const flush = async () => {
        if (group.length === 0) return;
        const bytes = group.length === 1 ? group[0]! : Buffer.concat(group);
        group = [];
        size = 0;
        try {
          await (file ?? (await open())).append(bytes);
        } catch (error) {
          // Opened anew with the next line: the file may have been taken away.
          await close().catch(() => {});
          throw error;
        }
      };
      for (const line of lines) {
        if (line.length > maxBytes) {
          dropped++;
          continue;
        }
        const used = (file ?? (await open())).sizeBytes + size;
        if (used > 0 && used + line.length > maxBytes) {
          await flush();
          await rotate();
        }
        group.push(line);
        size += line.length;
      }
      await flush();
      return dropped;
    },
    async close() {
      await tidying;
      await close();
    },
  };
}

interface FileName {
  readonly folder: string;
  /** `audit` of `audit.log`. */
  readonly stem: string;
  /** `.log`, or nothing. */
  readonly extension: string;
}

function splitName(path: string): FileName {
  const slash = path.lastIndexOf("/");
  const base = path.slice(slash + 1);
  const dot = base.lastIndexOf(".");
  const folder = slash < 0 ? "." : path.slice(0, slash) || "/";
  return dot < 0
    ? { folder, stem: base, extension: "" }
    : { folder, stem: base.slice(0, dot), extension: base.slice(dot) };
}

/** `2026-11-21T14-36-47.123`, which sorts by time. */
const stamp = (nowMs: number): string => rfc3339Micro(nowMs).slice(0, 23).replaceAll(":", "-");

/** Which of the files beside the log are to go, and which to be compressed. Pure. */
export function planBackups(
  names: readonly string[],
  options: Omit<FileName, "folder"> &
    Pick<RotationOptions, "maxAgeDays" | "maxBackups" | "compress"> & { readonly nowMs: number },
): { readonly remove: readonly string[]; readonly compress: readonly string[] } {
  const { stem, extension, maxAgeDays, maxBackups, nowMs } = options;
  const backups = new Map<string, { readonly atMs: number; readonly files: string[] }>();
  for (const name of names) {
    const plain = name.endsWith(".gz") ? name.slice(0, -".gz".length) : name;
    if (!plain.startsWith(`${stem}-`) || !plain.endsWith(extension)) continue;
    const text = plain.slice(stem.length + 1, plain.length - extension.length);
    const match = /^(\d{4}-\d\d-\d\dT)(\d\d)-(\d\d)-(\d\d\.\d{3})$/.exec(text);
    const atMs = match ? Date.parse(`${match[1]}${match[2]}:${match[3]}:${match[4]}Z`) : Number.NaN;
    if (Number.isNaN(atMs)) continue;
    const known = backups.get(plain);
    if (known) known.files.push(name);
    else backups.set(plain, { atMs, files: [name] });
  }
  const newestFirst = [...backups].sort(([, a], [, b]) => b.atMs - a.atMs);
  const oldestMs = maxAgeDays === 0 ? Number.NEGATIVE_INFINITY : nowMs - maxAgeDays * dayMs;
  const remove: string[] = [];
  const compress: string[] = [];
  for (const [index, [plain, { atMs, files }]] of newestFirst.entries()) {
    if (atMs < oldestMs || (maxBackups > 0 && index >= maxBackups)) remove.push(...files);
    // Where both are there, compressing was cut short.
    else if (options.compress && files.includes(plain)) compress.push(plain);
  }
  return { remove, compress };
}
