import { describe, expect, test } from "vitest";
import {
  failureIn,
  forwardedKubeconfig,
  isStrayBreakpoint,
  kubeconfigBegin,
  kubeconfigEnd,
  kubeconfigIn,
  LineReader,
  markerIn,
  problemIn,
} from "./console.ts";

const read = (...chunks: string[]) => {
  const reader = new LineReader();
  return chunks.flatMap((chunk) => reader.feed(Buffer.from(chunk, "utf8")));
};

describe("lines", () => {
  test.each<[string, string[], string[]]>([
    ["whole", ["a\nb\n"], ["a", "b"]],
    ["in pieces", ["mote: no", "de ready", "\r\n"], ["mote: node ready"]],
    ["CRLF and CR CR LF", ["a\r\n", "b\r\r\n"], ["a", "b"]],
    ["written over", ["loading 1%\rloading 99%\rdone\n"], ["done"]],
    ["terminal codes", ["\x1b[2J\x1b[01;01H\x1b[0mGRUB\x1b[?25h\n"], ["GRUB"]],
  ])("%s", (_, chunks, lines) => expect(read(...chunks)).toEqual(lines));

  test("a character that is cut in two", () => {
    const bytes = Buffer.from("grün\n", "utf8");
    const reader = new LineReader();
    expect([...reader.feed(bytes.subarray(0, 3)), ...reader.feed(bytes.subarray(3))]).toEqual(["grün"]);
  });

  test("a line without end stays bounded", () => {
    const reader = new LineReader();
    for (let i = 0; i < 100; i++) reader.feed(Buffer.alloc(1024, 0x2e));
    expect(reader.unfinished.length).toBe(16 * 1024);
  });
});

describe("signs", () => {
  test.each([
    ["mote: pid 1 up", "pid1"],
    ["[    3.5] mote: data mounted /dev/vda7 4.0 s", "data"],
    ["mote: node ready", "node"],
    ["mote: something else", undefined],
  ])("%s", (line, name) => expect(markerIn(line)).toBe(name));

  test.each([
    ["[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs", "the kernel panicked"],
    ["device-mapper: verity: 254:5: data block 17 is corrupted", "the root file system does not match its hash"],
    ["error: file `/vmlinuz' not found.", "the boot loader misses a file"],
    ["mote: error: token: the file is empty", undefined],
    ["all is well", undefined],
  ])("%s", (line, means) => expect(failureIn(line)).toBe(means));

  test("a panic that is the emulator's own", () => {
    const oops = "[    2.507226] Oops: int3: 0000 [#2] PREEMPT SMP NOPTI";
    expect(isStrayBreakpoint(["[    2.1] a kernel", oops])).toBe(true);
    expect(isStrayBreakpoint(["mote: pid 1 up", oops])).toBe(false);
    expect(isStrayBreakpoint(["[    2.1] BUG: unable to handle page fault"])).toBe(false);
  });

  test("what the device says is wrong", () => {
    expect(problemIn("mote: error token: the file is empty")).toBe("token: the file is empty");
    expect(problemIn("mote: node ready")).toBeUndefined();
  });
});

describe("kubeconfig", () => {
  const yaml = `apiVersion: v1\nclusters:\n- name: default\n  cluster:\n    server: https://127.0.0.1:6443\n${"# ".repeat(60)}`;
  const base64 = Buffer.from(yaml).toString("base64");
  const printed = [kubeconfigBegin, base64.slice(0, 76), base64.slice(76, 152), base64.slice(152), kubeconfigEnd];

  test("is read back from the console, also between kernel messages", () => {
    expect(kubeconfigIn(["boot", ...printed])).toBe(yaml);
    expect(kubeconfigIn([...printed.slice(0, 2), "[ 12.3] usb 1-1: new device", ...printed.slice(2)])).toBe(yaml);
  });

  test("the last whole one counts", () => {
    expect(kubeconfigIn([kubeconfigBegin, "AAAA", kubeconfigEnd, ...printed])).toBe(yaml);
    expect(kubeconfigIn(printed.slice(0, 3))).toBeUndefined();
    expect(kubeconfigIn([])).toBeUndefined();
  });

  test("leads through the forwarded port", () => {
    expect(forwardedKubeconfig(yaml, 16443)).toContain("    server: https://127.0.0.1:16443\n");
    expect(forwardedKubeconfig(yaml.replace("127.0.0.1:6443", "10.0.2.15:6443"), 16443)).toContain(
      "server: https://127.0.0.1:16443\n",
    );
  });
});
