// A power cut at every step of taking new authorities, or another token, in a cluster of several servers: the next start goes on
// where the last one was, without a human, and the other servers get what it has.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { type Backend, prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { systemRandom as random } from "#platform/random.ts";
import {
  type Authorities,
  acceptAuthorities,
  applyStaged,
  authorityFiles,
  formatAuthorities,
  nextAuthorities,
  readAuthorities,
} from "./authorities.ts";
import { decryptRecord, recordKey } from "./bootstrap/cipher.ts";
import { parseFiles } from "./bootstrap/files.ts";
import { openBootstrapRecord } from "./bootstrap-record.ts";
import { generateKey } from "./pki/certificate.ts";
import { authorityName, makeAuthority } from "./pki.ts";
import { changeTokens, ensureTokens, knownPassword } from "./tokens.ts";

/** Each step that leaves something behind counts down; from none left on nothing is done any more. */
const power = vi.hoisted(() => {
  type Module = Readonly<Record<string, (...args: never[]) => unknown>>;
  const power = {
    stepsLeft: Number.POSITIVE_INFINITY,
    step() {
      if (power.stepsLeft <= 0) throw new Error("power cut");
      power.stepsLeft--;
    },
    async cut(original: () => Promise<unknown>, names: readonly string[]): Promise<Module> {
      const real = (await original()) as Module;
      const changed = names.map((name) => {
        const counted = async (...args: never[]) => {
          power.step();
          return real[name]?.(...args);
        };
        return [name, counted] as const;
      });
      return { ...real, ...Object.fromEntries(changed) };
    },
  };
  return power;
});
vi.mock("#platform/files.ts", async (original) => {
  const { writeFile } = await import("node:fs/promises");
  // Whole or not at all, as it is; flushes would make it slow and show nothing.
  const writeFileDurable = (path: string, data: string | Uint8Array) => writeFile(path, data);
  const real = { ...((await original()) as object), writeFileDurable };
  return power.cut(async () => real, ["writeFileDurable", "setModified", "makeFolder"]);
});
vi.mock("#platform/folders.ts", (original) => power.cut(original, ["removeFile", "removeTree"]));

const nowMs = Date.UTC(2027, 0, 1);
const signal = new AbortController().signal;
let folder = "";
let backend: Backend;
let old: Authorities;
let next: Authorities;
let begun: Uint8Array | undefined;

beforeAll(() => {
  const key = generateKey();
  const ca = makeAuthority({ commonName: authorityName("mote-server-ca", nowMs), key, nowMs }, random);
  old = { ServerCA: ca, ServerCAKey: key, ServiceKey: generateKey() };
  next = nextAuthorities(old, nowMs, random);
});
beforeEach(async () => {
  backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  folder = mkdtempSync(join(tmpdir(), "mote-rotation-"));
  begun = undefined;
});
afterEach(async () => {
  power.stepsLeft = Number.POSITIVE_INFINITY;
  await backend.close();
  rmSync(folder, { recursive: true, force: true });
});

/** What is committed is there, whether or not the answer came. */
const shaky = (): Backend =>
  new Proxy(backend, {
    get(target, key) {
      const value = Reflect.get(target, key) as unknown;
      if (key !== "commit") return typeof value === "function" ? value.bind(target) : value;
      return async (...args: Parameters<Backend["commit"]>) => {
        power.step();
        const result = await target.commit(...args);
        power.step();
        return result;
      };
    },
  });

const serverDir = (server: string) => join(folder, server);
const tlsOf = (server: string) => join(folder, server, "tls");
const isThere = (server: string) => existsSync(tlsOf(server));
/** As far as keys go. */
async function start(server: string, wanted?: string) {
  const deps = { backend: shaky(), clock, random, log: silentLogger };
  const known = await knownPassword(serverDir(server));
  const record = await openBootstrapRecord({ serverDir: serverDir(server), wanted, known }, deps, signal);
  await applyStaged(tlsOf(server), { clock, log: silentLogger });
  const { ServerCA: serverCa = "" } = isThere(server) ? await readAuthorities(tlsOf(server)) : old;
  const agreed = record.password;
  await ensureTokens({ folder: serverDir(server), serverCa, agreed, wantedForAgents: "for-agents-only" }, { random });
  await record.save();
  return record;
}
/** A cluster whose keys are an hour old: made once, then copied. */
async function begin(server: string): Promise<void> {
  const key = recordKey("the-token");
  await backend.commit({ compares: [], success: [{ type: "delete", ...prefixRange("/bootstrap/") }] });
  if (begun === undefined) {
    const age = (path: string) => utimesSync(path, Date.now() / 1000 - 3600, Date.now() / 1000 - 3600);
    for (const [name, text] of Object.entries(old)) {
      const path = join(folder, "begun/tls", authorityFiles[name as keyof typeof authorityFiles]);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
      age(path);
    }
    await start("begun", "the-token");
    age(join(folder, "begun/cred/passwd"));
    // With the times of now.
    await backend.commit({ compares: [], success: [{ type: "delete", key }] });
    await start("begun", "the-token");
    const { kvs } = await backend.range({ key });
    begun = kvs[0]!.value;
  } else await backend.commit({ compares: [], success: [{ type: "put", key, value: begun }] });
  cpSync(join(folder, "begun"), serverDir(server), { recursive: true, preserveTimestamps: true });
}
const recorded = async (password: string) => {
  const { kvs } = await backend.range({ key: recordKey(password) });
  const files = parseFiles(await decryptRecord(Buffer.from(kvs[0]!.value).toString("utf8"), password));
  return Object.fromEntries([...files].map(([name, { content }]) => [name, content.toString("utf8")]));
};
const recordKeys = async () => (await backend.range(prefixRange("/bootstrap/"))).kvs.map(({ key }) => key);

/** Does `work` with the power cut at each of its steps, one run for each; the number of steps. */
async function atEveryStep(work: (run: number) => Promise<unknown>, check: (run: number) => Promise<void>) {
  for (let steps = 0; ; steps++) {
    let isCut = false;
    const run = work(steps);
    await run.catch((error: unknown) => {
      if (!(error instanceof Error) || error.message !== "power cut") throw error;
      isCut = true;
    });
    power.stepsLeft = Number.POSITIVE_INFINITY;
    await check(steps);
    if (!isCut) return steps;
  }
}

test("new authorities", async () => {
  const steps = await atEveryStep(
    async (run) => {
      const server = `a${run}`;
      await begin(server);
      await acceptAuthorities(tlsOf(server), {
        body: formatAuthorities(next, "2027-01-01T00:00:00Z"),
        isForced: false,
      });
      power.stepsLeft = run;
      await start(server);
    },
    async (run) => {
      await start(`a${run}`);
      expect(await readAuthorities(tlsOf(`a${run}`)), `after ${run} steps`).toEqual(next);
      expect(await recorded("the-token"), `after ${run} steps`).toMatchObject(next);
      expect(existsSync(`${tlsOf(`a${run}`)}-next`)).toBe(false);
      if (run % 5 !== 0) return;
      await start(`b${run}`, "the-token");
      expect(await readAuthorities(tlsOf(`b${run}`))).toEqual(next);
    },
  );
  expect(steps).toBeGreaterThan(10);
}, 120_000);

test("another token", async () => {
  const steps = await atEveryStep(
    async (run) => {
      const server = `a${run}`;
      await begin(server);
      const record = await start(server);
      power.stepsLeft = run;
      await changeTokens(
        { folder: serverDir(server), serverCa: old.ServerCA! },
        { password: "another-token", agentPassword: "for-agents-only" },
        record,
      );
    },
    async (run) => {
      const server = `a${run}`;
      const { password } = await start(server);
      // One or the other, and the same everywhere.
      expect(await knownPassword(serverDir(server)), `after ${run} steps`).toBe(password);
      expect(await recordKeys()).toEqual([recordKey(password)]);
      const rows = readFileSync(join(serverDir(server), "cred/passwd"), "utf8");
      expect(rows).toContain(`${password},server,server`);
      expect(await recorded(password)).toMatchObject({ ...old, PasswdFile: rows });
      expect(existsSync(join(serverDir(server), "token-other"))).toBe(false);
      if (run % 5 !== 0) return;
      await start(`b${run}`, password);
      expect(await readAuthorities(tlsOf(`b${run}`))).toEqual(old);
    },
  );
  expect(steps).toBeGreaterThan(5);
}, 120_000);

test.each(["an answer", "a request"])(
  "another token, with %s of the datastore lost: it stays as it was",
  async (what) => {
    await begin("a");
    const lost: Backend = new Proxy(backend, {
      get(target, key) {
        const value = Reflect.get(target, key) as unknown;
        if (key !== "commit") return typeof value === "function" ? value.bind(target) : value;
        return async (...args: Parameters<Backend["commit"]>) => {
          if (what === "an answer") await target.commit(...args);
          throw new Error("no answer");
        };
      },
    });
    const deps = { backend: lost, clock, random, log: silentLogger };
    const options = { serverDir: serverDir("a"), wanted: undefined, known: "the-token" };
    const record = await openBootstrapRecord(options, deps, signal);
    const changed = changeTokens(
      { folder: serverDir("a"), serverCa: old.ServerCA! },
      { password: "another-token", agentPassword: "for-agents-only" },
      record,
    );
    await expect(changed).rejects.toThrow("no answer");
    const { password } = await start("a");
    expect([password, await knownPassword(serverDir("a"))]).toEqual(["the-token", "the-token"]);
    expect(await recordKeys()).toEqual([recordKey("the-token")]);
    expect(existsSync(join(serverDir("a"), "token-other"))).toBe(false);
  },
);

test("two servers were given new authorities: the second set is dropped", async () => {
  await begin("a");
  await start("b", "the-token");
  const others = nextAuthorities(old, nowMs + 1000, random);
  const accept = (server: string, one: Authorities) =>
    acceptAuthorities(tlsOf(server), { body: formatAuthorities(one, "2027-01-01T00:00:00Z"), isForced: false });
  await accept("a", next);
  await accept("b", others);
  await start("b");
  await start("a");
  expect(await readAuthorities(tlsOf("a"))).toEqual(others);
  expect(await recorded("the-token")).toMatchObject(others);
});
