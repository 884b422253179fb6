import { expect, test } from "vitest";
import { memoryOf } from "./memory.ts";

const mapping = (name: string, pss: number, anonymous: number): string =>
  `aaaa0000-aaab0000 rw-p 00000000 00:00 0 ${name}\nSize: 64 kB\nRss: 4096 kB\nPss:  ${pss} kB\nPss_Dirty: 1 kB\nAnonymous: ${anonymous} kB\n`;

test("sums what each program holds, and knows what is not of files", () => {
  const text = `MemTotal:  1024000 kB\nMemFree: 1 kB\nMemAvailable: 614400 kB\n== /usr/lib/mote/node\n${mapping("/usr/lib/mote/node", 2048, 1024)}${mapping("[heap]", 1024, 1024)}== /usr/bin/containerd\n${mapping("", 512, 512)}`;
  expect(memoryOf(text)).toEqual({
    mote: { pssMib: 3, ownMib: 2 },
    containerd: { pssMib: 0.5, ownMib: 0.5 },
    device: 400,
  });
});

test("what is not there holds nothing", () => {
  expect(memoryOf("MemTotal: 1 kB\n").mote).toEqual({ pssMib: 0, ownMib: 0 });
});
