import { expect, test } from "vitest";
import { agentFlags } from "./agent-flags.ts";
import { certificateFlags } from "./certificate-flags.ts";
import { type Flag, helpText, parseFlags } from "./flags.ts";
import { kineFlags } from "./kine-flags.ts";
import { machineFlags } from "./machine-flags.ts";
import { nodeFlags } from "./node-flags.ts";
import { secretsEncryptFlags } from "./secrets-encrypt-flags.ts";
import { serverFlags } from "./server-flags.ts";
import { snapshotFlags } from "./snapshot-flags.ts";
import { tokenFlags } from "./token-flags.ts";

const flags: readonly Flag[] = [
  { name: "data-dir", short: "d", kind: "string", env: "DATA_DIR", default: "/var/lib/mote", help: "data" },
  { name: "https-listen-port", kind: "number", default: 6443, min: 1, max: 65535, help: "port" },
  { name: "disable", kind: "list", help: "off", allowed: ["dns", "proxy"] },
  { name: "disable-agent", kind: "boolean", default: false, help: "no node" },
  { name: "tls-san", kind: "list", help: "names" },
];
const parse = (
  args: string[],
  env: Record<string, string> = {},
  files: { path: string; values: Record<string, unknown> }[] = [],
) => parseFlags(flags, { args, env, files });

test("defaults, then environment, then files, then the command line", () => {
  const file = { path: "c.yaml", values: { "data-dir": "/file" } };
  expect(parse([]).values["data-dir"]).toBe("/var/lib/mote");
  expect(parse([], { K3S_DATA_DIR: "/k3s" }).values["data-dir"]).toBe("/k3s");
  expect(parse([], { K3S_DATA_DIR: "/k3s", MOTE_DATA_DIR: "/mote" }).values["data-dir"]).toBe("/mote");
  expect(parse([], { MOTE_DATA_DIR: "/mote" }, [file]).values["data-dir"]).toBe("/file");
  expect(parse(["-d", "/line"], {}, [file]).values["data-dir"]).toBe("/line");
});

test("lists join file and line; key+ appends to earlier files, a plain key discards them", () => {
  const a = { path: "a", values: { "tls-san": ["x"] } };
  const b = { path: "b", values: { "tls-san+": "y" } };
  const c = { path: "c", values: { "tls-san": "z" } };
  expect(parse(["--tls-san=w,v"], {}, [a, b]).values["tls-san"]).toEqual(["x", "y", "w", "v"]);
  expect(parse([], {}, [a, b, c]).values["tls-san"]).toEqual(["z"]);
});

test.each<[string, string[], RegExp]>([
  ["unknown flag with a suggestion", ["--data-dri", "x"], /unknown flag --data-dri; did you mean --data-dir\?/],
  ["missing value", ["--data-dir"], /--data-dir needs a value/],
  ["number out of range", ["--https-listen-port=70000"], /"70000" is not allowed; use a whole number from 1 to 65535/],
  ["value not in the list", ["--disable", "dns,foo"], /--disable: "foo" is not allowed; use one of dns, proxy/],
  ["boolean", ["--disable-agent=maybe"], /use true or false/],
])("%s", (_name, args, message) => {
  expect(() => parse(args)).toThrow(message);
});

test("bad values in a file name the file and the key", () => {
  const file = { path: "/etc/mote/config.yaml", values: { "https-listen-port": "no", other: 1 } };
  expect(() => parse([], {}, [file])).toThrow(/https-listen-port \(\/etc\/mote\/config.yaml\): "no" is not allowed/);
  expect(parse([], {}, [{ path: "c", values: { other: 1 } }]).warnings).toEqual(['c: unknown key "other" is ignored']);
  expect(() => parse([], {}, [{ path: "c", values: { disable: { a: 1 } } }])).toThrow(/a scalar or a list of scalars/);
});

test("-- ends the flags, positionals stay in order", () => {
  expect(parse(["a", "--disable-agent", "--", "--b"])).toMatchObject({
    values: { "disable-agent": true },
    positionals: ["a", "--b"],
  });
});

test("an unknown key of a file comes with the one that was meant", () => {
  const file = { path: "c.yaml", values: { "data-dirs": "/x", nothing: 1 } };
  expect(parse([], {}, [file]).warnings).toEqual([
    'c.yaml: unknown key "data-dirs" is ignored; did you mean data-dir?',
    'c.yaml: unknown key "nothing" is ignored',
  ]);
});

test("a second long name stands behind the text, with two dashes", () => {
  const text = helpText(snapshotFlags);
  expect(text).toMatch(/^ {6}--dir value /m);
  expect(text.replace(/\s+/g, " ")).toContain("also --etcd-snapshot-dir");
  expect(text).not.toMatch(/(^|[^-])-etcd/);
});

test("help names defaults and variables", () => {
  expect(helpText(flags)).toContain("(default /var/lib/mote; $MOTE_DATA_DIR)");
});

test.each([
  ["server", serverFlags],
  ["agent", agentFlags],
  ["token", tokenFlags],
  ["certificate", certificateFlags],
  ["kine", kineFlags],
  ["machine", machineFlags],
  ["node", nodeFlags],
  ["secrets-encrypt", secretsEncryptFlags],
  ["snapshot", snapshotFlags],
])("the help of mote %s fits 80 columns and loses no word", (_name, of) => {
  const text = helpText(of);
  expect(text.split("\n").filter((line) => line.length > 80)).toEqual([]);
  const words = text.replace(/\s+/g, " ");
  for (const { help } of of) expect(words).toContain(help);
});
