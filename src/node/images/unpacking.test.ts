import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { createUnpacking, type Unpacking } from "./unpacking.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-unpacking-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A process; others share what it left on the disk and in containerd. */
function begin(ids: Map<string, string>, { flushCode = 0 } = {}) {
  const calls: string[] = [];
  const unpacking = createUnpacking(
    { folder: join(folder, "marks"), imagesFolder: folder },
    {
      log: silentLogger,
      commands: {
        async run(program, args) {
          calls.push([program, ...args].join(" ").replace(folder, "F"));
          return { code: flushCode, stdout: "", stderr: "" };
        },
      },
      images: {
        idOf: async (reference) => ids.get(reference),
        async remove(reference) {
          calls.push(`remove ${reference}`);
          ids.delete(reference);
        },
        async endLeases() {
          calls.push("end leases");
        },
      },
    },
  );
  return { unpacking, calls };
}

const marks = () => readdir(join(folder, "marks"));

/** As a power cut leaves it: it has begun and will never end. */
async function cutOff(unpacking: Unpacking, reference: string, unpacked: () => void): Promise<void> {
  await new Promise<void>((begun) => {
    void unpacking.during(reference, () => {
      unpacked();
      begun();
      return new Promise(() => {});
    });
  });
}

describe("while an image is unpacked", () => {
  test("its mark stands until the disk is flushed", async () => {
    const { unpacking, calls } = begin(new Map());
    const result = await unpacking.during("a", async () => {
      expect(await marks()).toHaveLength(1);
      expect(calls).toEqual([]);
      return 7;
    });
    expect(result).toBe(7);
    expect(calls).toEqual(["sync -f F"]);
    expect(await marks()).toEqual([]);
  });

  test("layers of a pull that failed are flushed too", async () => {
    const { unpacking, calls } = begin(new Map());
    await expect(unpacking.during("a", () => Promise.reject(new Error("no network")))).rejects.toThrow("no network");
    expect(calls).toEqual(["sync -f F"]);
    expect(await marks()).toEqual([]);
  });

  test("what cannot be flushed is no success, and its mark stays", async () => {
    const { unpacking } = begin(new Map(), { flushCode: 1 });
    await expect(unpacking.during("a", async () => {})).rejects.toThrow("sync");
    expect(await marks()).toHaveLength(1);
  });

  test("where no mark can be set nothing is unpacked; later it can", async () => {
    const { unpacking } = begin(new Map());
    await writeFile(join(folder, "marks"), "no folder");
    let isUnpacked = false;
    const unpack = async () => {
      isUnpacked = true;
    };
    await expect(unpacking.during("a", unpack)).rejects.toThrow("EEXIST");
    expect(isUnpacked).toBe(false);
    await rm(join(folder, "marks"));
    await unpacking.during("a", unpack);
    expect(isUnpacked).toBe(true);
  });

  test("of two at once the last takes the mark away", async () => {
    const { unpacking } = begin(new Map());
    let end = () => {};
    const slow = unpacking.during("a", () => new Promise<void>((resolve) => (end = resolve)));
    await unpacking.during("a", async () => {});
    expect(await marks()).toHaveLength(1);
    end();
    await slow;
    expect(await marks()).toEqual([]);
  });
});

describe("after a cut", () => {
  test.each<[string, string | undefined, string, string, readonly string[]]>([
    ["in another boot a new image goes, and layers of others", undefined, "1", "boot 2", ["remove a", "end leases"]],
    ["one of another content goes", "0", "1", "boot 2", ["remove a", "end leases"]],
    ["one that was asked for and found unchanged stays", "1", "1", "boot 2", ["end leases"]],
    ["in the same boot all is in memory", undefined, "1", "boot 1", []],
  ])("%s", async (_, before, after, boot, expected) => {
    const ids = new Map(before === undefined ? [] : [["a", before]]);
    const first = begin(ids);
    await first.unpacking.recover("boot 1");
    await cutOff(first.unpacking, "a", () => ids.set("a", after));
    await writeFile(join(folder, "marks", "0123.tmp-7"), "cut off");
    const second = begin(ids);
    await second.unpacking.recover(boot);
    expect(second.calls).toEqual([...expected, "sync -f F"]);
    expect(await marks()).toEqual([]);
  });

  test("a mark that a bad card has spoilt keeps no node from starting", async () => {
    await mkdir(join(folder, "marks"));
    await writeFile(join(folder, "marks", "0".repeat(32)), "\0\0\0");
    const { unpacking, calls } = begin(new Map([["a", "1"]]));
    await unpacking.recover("boot 1");
    expect(calls).toEqual(["end leases", "sync -f F"]);
    expect(await marks()).toEqual([]);
  });

  test("without any mark nothing is asked", async () => {
    const { unpacking, calls } = begin(new Map());
    await unpacking.recover("boot 1");
    expect(calls).toEqual([]);
  });
});
