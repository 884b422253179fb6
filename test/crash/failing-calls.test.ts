// The n-th call to the file system fails, for every n until a run meets none: opening, writing, folding, compacting,
// closing. Whatever fails, the process goes on, and what was acknowledged is there afterwards.
import { describe, expect, it } from "vitest";
import { AppError } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { Engine } from "#datastore/engine/engine.ts";
import { openSqliteLog } from "#datastore/log/sqlite/sqlite-log.ts";
import { type Datastore, openStore } from "#datastore/store.ts";
import { readAsset } from "#platform/assets.ts";
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";
import { nextTurn } from "#platform/turns.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";

const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
const engineWasm = readAsset("engine.wasm");
/** Every how many calls one is tried: all of them with MOTE_EVERY_CALL=1. */
const stride = process.env["MOTE_EVERY_CALL"] === "1" ? 1 : 5;

/** Counts every call and lets one fail. */
class FailingFiles implements BlockFiles {
  calls = 0;
  failAt = -1;
  readonly #files: RecordedFiles;
  readonly #code: string;

  constructor(files: RecordedFiles, code: string) {
    this.#files = files;
    this.#code = code;
  }
  #count(): void {
    if (this.calls++ === this.failAt) throw new AppError(this.#code, `${this.#code}: planted`);
  }
  open(path: string, options: { readonly create: boolean }): BlockFile {
    this.#count();
    const file = this.#files.open(path, options);
    const counted = <A extends unknown[], R>(call: (...args: A) => R) => {
      return (...args: A): R => {
        this.#count();
        return call(...args);
      };
    };
    return {
      ...{ read: counted(file.read), write: counted(file.write), truncate: counted(file.truncate) },
      ...{ size: counted(file.size), sync: counted(file.sync), close: file.close },
      flush: async () => {
        this.#count();
        await file.flush();
      },
    };
  }
  exists(path: string): boolean {
    this.#count();
    return this.#files.exists(path);
  }
  remove(path: string): void {
    this.#count();
    this.#files.remove(path);
  }
  rename(from: string, to: string): void {
    this.#count();
    this.#files.rename(from, to);
  }
  syncFolderOf(): void {
    this.#count();
  }
}

function open(files: BlockFiles, clock: FakeClock, cold = false): Promise<Datastore> {
  const deps = { clock, log: silentLogger };
  const newEngine = () =>
    new Engine({ wasm: engineWasm, maximumBytes: 64 * 1024 * 1024, hashSeed: 1, warmValueBytes: cold ? 0 : undefined });
  return openStore(
    newEngine,
    openSqliteLog({ path: "/db", files, module, maxFrames: 12, reserveBytes: 8192 }, deps),
    deps,
  );
}

/** Opens a store that holds something, works with it and closes it; returns how many calls that took. */
async function story(code: string, failAt: number): Promise<number> {
  const disk = new RecordedFiles();
  const first = await open(disk, new FakeClock(0));
  for (let i = 0; i < 5; i++) await put(first, `/old/${i}`);
  await first.close();
  const files = new FailingFiles(disk, code);
  const clock = new FakeClock(0);
  files.failAt = failAt;
  // A start that fails is tried again by whoever supervises the process.
  // With some of the codes no value is in memory, so that reading fails too.
  const cold = code === "EIO" || code === "EMFILE";
  const store = await open(files, clock, cold).catch(() => open(files, clock, cold));
  const acked = ["/old/0"];
  for (let i = 0; i < 14; i++) {
    const key = `/k/${i}`;
    for (let attempt = 0; attempt < 20; attempt++) {
      const done = await put(store, key).then(
        () => true,
        () => false,
      );
      if (done) {
        acked.push(key);
        break;
      }
      await nextTurn();
      await clock.advance(1500);
    }
    await store.range(prefixRange("/")).catch(() => {});
    if (i === 9) await store.compact(store.revision()).catch(() => {});
  }
  store.verify();
  await store.close();
  // It came back by itself: every write was taken in the end.
  expect(acked.length, `${code} at call ${failAt}`).toBe(15);
  const after = await open(disk, new FakeClock(0));
  after.verify();
  const found = new Set((await after.range(prefixRange("/"))).kvs.map((kv) => kv.key));
  expect(
    acked.filter((key) => !found.has(key)),
    `${code} at call ${failAt}`,
  ).toEqual([]);
  await after.close();
  return files.calls;
}

const put = (store: Datastore, key: string) =>
  store.commit({ compares: [], success: [{ type: "put", key, value: Buffer.from("x".repeat(1500)) }] });

describe("a call that fails", () => {
  it.each(["EIO", "ENOSPC", "EMFILE", "EINTR"])(
    "with %s, whichever it is, loses nothing that was acknowledged",
    async (code) => {
      const calls = await story(code, -1);
      expect(calls).toBeGreaterThan(80);
      const offset = ["EIO", "ENOSPC", "EMFILE", "EINTR"].indexOf(code) % stride;
      for (let n = offset; n < calls; n += stride) await story(code, n);
      console.log(`${code}: ${Math.ceil((calls - offset) / stride)} of ${calls} calls failed once each: 0 problems`);
    },
    stride === 1 ? 600_000 : 120_000,
  );
});
