import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { type Commands, runChecked, systemCommands } from "#platform/processes.ts";
import { isMounted, unshareMounts } from "./mount-points.ts";

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) {
    await systemCommands.run("umount", ["-l", folder]);
    rmSync(folder, { recursive: true });
  }
});

const canMount = await (async (): Promise<boolean> => {
  const folder = mkdtempSync(join(tmpdir(), "mote-mounts-"));
  const { code } = await systemCommands.run("mount", ["--bind", folder, folder]);
  if (code === 0) await systemCommands.run("umount", ["-l", folder]);
  rmSync(folder, { recursive: true });
  return code === 0;
})();

async function shared(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "mote-mounts-"));
  await runChecked(systemCommands, "mount", ["--bind", folder, folder]);
  folders.push(folder);
  return folder;
}

test.skipIf(!canMount)("a folder that another mote unmounts this moment is as good as unmounted", async () => {
  const folder = await shared();
  const codes: number[] = [];
  const late: Commands = {
    async run(program, args) {
      await systemCommands.run(program, args);
      const result = await systemCommands.run(program, args);
      codes.push(result.code);
      return result;
    },
  };
  await unshareMounts(folder, late);
  expect(codes).toEqual([expect.any(Number)]);
  expect(codes[0]).not.toBe(0);
  expect(await isMounted(folder)).toBe(false);
  // Nothing to do any more.
  await unshareMounts(folder, late);
  expect(codes).toHaveLength(1);
});

test.skipIf(!canMount)("one that cannot be unmounted is told of", async () => {
  const folder = await shared();
  const refusing: Commands = { run: async () => ({ code: 32, stdout: "", stderr: "target is busy" }) };
  await expect(unshareMounts(folder, refusing)).rejects.toMatchObject({ code: "NODE_UNMOUNT" });
});
