import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { withNodeId } from "./node-id.ts";

test("a device adds to its name what is its own, the same at each start, and only where it is asked to", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "mote-node-id-"));
  const file = join(dataDir, "node/id");
  const nameOf = async (random: ReturnType<typeof seededRandom>, isAsked = true) =>
    (await withNodeId({ nodeName: "kiosk", dataDir }, { "with-node-id": isAsked }, random)).nodeName;
  try {
    expect(await nameOf(seededRandom(1), false)).toBe("kiosk");
    const first = await nameOf(seededRandom(1));
    expect(first).toMatch(/^kiosk-[0-9a-f]{8}$/);
    expect(await nameOf(seededRandom(2))).toBe(first);
    // Torn by a power cut: no part of it is taken for the whole.
    writeFileSync(file, readFileSync(file).subarray(0, 3));
    expect(await nameOf(seededRandom(2))).toMatch(/^kiosk-[0-9a-f]{8}$/);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});
