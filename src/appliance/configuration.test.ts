import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemCommands } from "#platform/processes.ts";
import { readConfiguration } from "./configuration.ts";
import type { Storage } from "./storage.ts";

let folder: string;
let writes = 0;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-configuration-");
  for (const name of ["boot", "data", "fw/token", "fw/mote.yaml"]) mkdirSync(`${folder}/${name}`, { recursive: true });
  writes = 0;
});
afterEach(() => rmSync(folder, { recursive: true }));

const boot = (name: string, text: string) => writeFileSync(`${folder}/boot/${name}`, text);
const hypervisor = (name: string, text: string) => writeFileSync(`${folder}/fw/${name}/raw`, text);
const read = (hasCluster = false, storageMore: Partial<Storage> = {}) =>
  readConfiguration(
    { fwCfgDir: `${folder}/fw`, hasCluster },
    {
      storage: {
        ...{ bootDir: `${folder}/boot`, dataDir: `${folder}/data`, notes: [], close: async () => {} },
        isDataWritable: async () => true,
        async writeBoot(work) {
          writes++;
          return work();
        },
        ...storageMore,
      },
      keys: { names: ["tls-san"], check: () => {} },
      ...{ commands: systemCommands, log: silentLogger },
    },
  );

test("nothing given", async () => {
  expect(await read()).toMatchObject({ token: {}, server: {}, problems: [], notes: [] });
  expect(writes).toBe(0);
});

test("files of the boot partition move to the data partition and stay in force", async () => {
  boot("Token.txt", "secret\r\n");
  boot("MOTE.YAML", "tls-san: a\r\nmachine: {hostname: pump}\r\n");
  boot("notes.txt", "mine");
  const first = await read();
  expect(first).toMatchObject({
    token: { token: "secret" },
    server: { "tls-san": "a" },
    machine: { hostname: "pump" },
  });
  expect(first.notes).toEqual([
    "token from the boot partition (file Token.txt) was read and removed",
    "mote.yaml from the boot partition (file MOTE.YAML) was read and removed",
  ]);
  expect(readdirSync(`${folder}/boot`)).toEqual(["notes.txt"]);
  expect(writes).toBe(1);
  expect(statSync(`${folder}/data/config/token`).mode & 0o777).toBe(0o600);
  expect(await read()).toMatchObject({ token: { token: "secret" }, machine: { hostname: "pump" }, notes: [] });
  expect(writes).toBe(1);
});

test("of several spellings the documented name wins, and all are removed", async () => {
  boot("token", "right");
  boot("token.txt", "wrong");
  expect(await read()).toMatchObject({ token: { token: "right" } });
  expect(readdirSync(`${folder}/boot`)).toEqual([]);
});

test("what is not understood stays where it is, and what was in force stays in force", async () => {
  boot("mote.yaml", "machine: {hostname: pump}");
  await read();
  boot("mote.yaml", "machine: [");
  boot("token", "two words");
  const { machine, problems } = await read();
  expect(machine.hostname).toBe("pump");
  expect(problems).toHaveLength(2);
  expect(problems[0]).toMatch(/^token from the boot partition \(file token\): the token contains blanks/);
  expect(problems[1]).toMatch(/^mote.yaml from the boot partition \(file mote.yaml\): /);
  expect(readdirSync(`${folder}/boot`).sort()).toEqual(["mote.yaml", "token"]);
});

test("a file with mistakes is used as far as it goes, and says so at every start", async () => {
  boot("mote.yaml", "foo: 1\nmachine: {hostname: pump}");
  for (let i = 0; i < 2; i++) {
    const { machine, problems } = await read();
    expect(machine.hostname).toBe("pump");
    expect(problems).toEqual(["mote.yaml: foo: unknown key; allowed are machine, tls-san"]);
  }
});

test("the hypervisor's files count once; a later file on the boot partition is not undone by them", async () => {
  hypervisor("mote.yaml", "machine: {hostname: vm}");
  expect((await read()).machine.hostname).toBe("vm");
  boot("mote.yaml", "machine: {hostname: mine}");
  expect((await read()).machine.hostname).toBe("mine");
  expect((await read()).machine.hostname).toBe("mine");
  hypervisor("mote.yaml", "machine: {hostname: vm2}");
  expect((await read()).machine.hostname).toBe("vm2");
});

test("an existing cluster keeps its token; the file is taken away all the same", async () => {
  boot("token", "first");
  await read();
  boot("token", "second");
  const { token, notes } = await read(true);
  expect(token).toEqual({ token: "first" });
  expect(notes[0]).toMatch(/was not used: this device's cluster has its token already/);
  expect(existsSync(`${folder}/boot/token`)).toBe(false);
});

test("what a power cut leaves of a removal is removed unread; a new file of that name is read", async () => {
  const long = `machine: {hostname: pump}\n#${"secret ".repeat(300)}\n`;
  boot("MOTE.YAML.txt", long);
  const cut = (at: number) => ({
    writeBoot: async () => {
      writeFileSync(`${folder}/boot/MOTE.YAML.txt`, Buffer.from(long).fill(0, at, at + 512));
      throw new Error("no power");
    },
  });
  for (const at of [0, 512, 1536]) {
    await read(false, cut(at));
    const { machine, notes, problems } = await read();
    expect(machine.hostname).toBe("pump");
    expect(notes).toEqual(["the rest of MOTE.YAML.txt, which had been read before, was removed"]);
    expect(problems).toEqual([]);
    expect(readdirSync(`${folder}/boot`)).toEqual([]);
    boot("MOTE.YAML.txt", long);
  }
  await read(false, cut(0));
  boot("MOTE.YAML.txt", "machine: {hostname: other}");
  expect((await read()).machine.hostname).toBe("other");
  expect(await read()).toMatchObject({ notes: [], machine: { hostname: "other" } });
});

test("a file that was probably meant, but has another name, is said", async () => {
  for (const name of ["mote.json", "token.rtf", "mote-status.txt", "motel.txt", "README.txt", "mote.yaml~"])
    boot(name, "x");
  const { notes } = await read();
  expect(notes.map((note) => note.split(" ")[0])).toEqual(["mote.json", "mote.yaml~", "token.rtf"]);
});

test("a server to join may be named in either file", async () => {
  boot("mote.yml", "server: 10.0.0.9\ntls-san: a\n");
  expect(await read()).toMatchObject({ joins: "https://10.0.0.9:6443", server: { "tls-san": "a" }, problems: [] });
  boot("token", "server=https://10.0.0.8 token=t");
  expect((await read()).joins).toBe("https://10.0.0.8:6443");
  boot("mote.yml", "server: 'http://no'");
  expect((await read()).problems[0]).toMatch(/^mote.yaml: server: "http:\/\/no" is not allowed/);
});

test("a boot partition that cannot be written is a problem, not a failure", async () => {
  boot("token", "secret");
  const { token, problems } = await read(false, { writeBoot: () => Promise.reject(new Error("card is locked")) });
  expect(token).toEqual({ token: "secret" });
  expect(problems).toEqual(["token: could not be removed from the boot partition (card is locked)"]);
  expect(readFileSync(`${folder}/boot/token`, "utf8")).toBe("secret");
});
