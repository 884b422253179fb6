// The files of an empty store as the first versions made them: pages of 4096 bytes instead of 1024, otherwise the same format.
import { Database } from "#datastore/log/sqlite/database.ts";
import { prepareFormat } from "#datastore/log/sqlite/format.ts";
import { instantiateSqlite } from "#datastore/log/sqlite/sqlite-module.ts";
import { installVfs } from "#datastore/log/sqlite/vfs.ts";
import { RecordedFiles } from "./recorded-files.ts";

export const oldPageBytes = 4096;

export function oldStore(path: string, module: WebAssembly.Module): Map<string, Buffer> {
  const files = new RecordedFiles();
  const sqlite = instantiateSqlite({ module, maximumBytes: 64 * 1024 * 1024, now: () => 0 });
  const vfs = installVfs(sqlite, files, "old");
  const db = new Database(sqlite, vfs, path);
  for (const pragma of [
    "locking_mode=EXCLUSIVE",
    `page_size=${oldPageBytes}`,
    "journal_mode=WAL",
    "temp_store=MEMORY",
  ]) {
    db.run(`PRAGMA ${pragma}`);
  }
  prepareFormat(db, path);
  db.close();
  return files.cut(files.events.length, { float: () => 0, bytes: () => new Uint8Array(), uuid: () => "" }).image;
}
