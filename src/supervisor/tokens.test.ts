import { createHash, X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { generateKey, issueCertificate } from "./pki/certificate.ts";
import { caHash, changeTokens, ensureTokens, formatToken, knownPassword, otherPassword, parseToken } from "./tokens.ts";

const hash = "a".repeat(64);
const random = seededRandom(1);
const authority = (commonName: string, issuer?: { certificate: string; key: string }) => {
  const key = generateKey();
  const request = { commonName, usage: "authority", notBeforeMs: 0, notAfterMs: Date.UTC(2040, 0, 1) } as const;
  return { key, certificate: issueCertificate(request, key, issuer, random) };
};

describe("parseToken", () => {
  test.each([
    [`K10${hash}::server:secret`, { caHash: hash, user: "server", password: "secret", bootstrap: false }],
    [`K10${hash}::node:a:b\n`, { caHash: hash, user: "node", password: "a:b", bootstrap: false }],
    ["K10::server:x", { caHash: "", user: "server", password: "x", bootstrap: false }],
    [
      `K10${hash}::abcdef.0123456789abcdef`,
      { caHash: hash, user: "", password: "abcdef.0123456789abcdef", bootstrap: true },
    ],
    ["plain", { caHash: "", user: "", password: "plain", bootstrap: false }],
    ["abcdef.0123456789abcdef", { caHash: "", user: "", password: "abcdef.0123456789abcdef", bootstrap: true }],
  ])("%s", (text, token) => expect(parseToken(text)).toEqual(token));

  test.each(["", "K10abc", "K10zz::server:x", `K10${hash}::`])("refuses %j", (text) => {
    expect(() => parseToken(text)).toThrow(
      expect.objectContaining({
        code: "TOKEN_FORMAT",
        message: expect.stringMatching(/; copy the whole line of server.token/),
      }),
    );
  });
});

test("the hash of one authority is that of its PEM text, of a chain that of the root's DER", () => {
  const root = authority("root");
  const middle = authority("middle", root);
  const sha256 = (data: string | Uint8Array) => createHash("sha256").update(data).digest("hex");
  expect(caHash(root.certificate)).toBe(sha256(root.certificate));
  expect(caHash(middle.certificate + root.certificate)).toBe(sha256(new X509Certificate(root.certificate).raw));
  const stranger = authority("stranger");
  const broken = middle.certificate + stranger.certificate;
  expect(caHash(broken)).toBe(sha256(broken));
});

describe("ensureTokens", () => {
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "mote-tokens-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test("keeps the password over starts and refuses another", async () => {
    const serverCa = authority("ca").certificate;
    const first = await ensureTokens({ folder, serverCa }, { random });
    expect(first.password).toMatch(/^[0-9a-f]{32}$/);
    expect(first.token).toBe(formatToken(serverCa, "server", first.password));
    expect(readFileSync(join(folder, "node-token"), "utf8")).toBe(`${first.token}\n`);
    expect(await ensureTokens({ folder, serverCa, wanted: first.password }, { random })).toEqual(first);
    await expect(ensureTokens({ folder, serverCa, wanted: "other" }, { random })).rejects.toMatchObject({
      code: "TOKEN_CHANGED",
    });
  });

  const text = (name: string) => readFileSync(join(folder, name), "utf8");

  test("nodes have a token of their own where they are given one, also at the next start", async () => {
    const serverCa = authority("ca").certificate;
    const wanted = { folder, serverCa, wanted: "of-servers" };
    const alone = await ensureTokens(wanted, { random });
    expect(alone.agentPassword).toBe("of-servers");
    expect(readdirSync(folder).sort()).toEqual(["node-token", "token"]);
    await ensureTokens({ ...wanted, wantedForAgents: "of-agents" }, { random });
    expect(text("agent-token")).toBe(`${formatToken(serverCa, "node", "of-agents")}\n`);
    expect(text("cred/passwd")).toBe("of-agents,node,node,k3s:agent\nof-servers,server,server,k3s:server\n");
    expect(await ensureTokens(wanted, { random })).toMatchObject({
      password: "of-servers",
      agentPassword: "of-agents",
    });
    // What all servers have agreed upon counts here too.
    const agreed = { folder, serverCa, wanted: "of-servers-now", agreed: "of-servers-now" };
    expect(await ensureTokens(agreed, { random })).toMatchObject({
      password: "of-servers-now",
      agentPassword: "of-agents",
    });
  });

  test("a change that other servers cannot be told of is none", async () => {
    const options = { folder, serverCa: authority("ca").certificate };
    await ensureTokens({ ...options, wanted: "before", wantedForAgents: "before-too" }, { random });
    const before = [text("token"), text("agent-token"), text("cred/passwd")];
    const next = { password: "after", agentPassword: "after-too" };
    const told: string[] = [];
    const shared = (fails: boolean) => ({
      async rotate(password: string) {
        if (fails) throw new Error("no datastore");
        told.push(`${password}: ${text("cred/passwd").split(",")[0]}`);
      },
      async save() {
        told.push("saved");
      },
    });
    await expect(changeTokens(options, next, shared(true))).rejects.toThrow("no datastore");
    expect([text("token"), text("agent-token"), text("cred/passwd")]).toEqual(before);
    await changeTokens(options, next, shared(false));
    expect([told, await knownPassword(folder)]).toEqual([["after: after-too", "saved"], "after"]);
  });

  test.each<[string, boolean, string | undefined]>([
    ["refused before anything changed", false, undefined],
    ["refused when the keys lie under the new one already", true, "after"],
  ])("a change that is %s: the next start knows where they are", async (_, isLate, other) => {
    const options = { folder, serverCa: authority("ca").certificate };
    await ensureTokens({ ...options, wanted: "before" }, { random });
    const refuse = async () => {
      throw new AppError("BOOTSTRAP_CONFLICT", "another server was faster");
    };
    const shared = { rotate: isLate ? async () => {} : refuse, save: refuse };
    const next = { password: "after", agentPassword: "after" };
    await expect(changeTokens(options, next, shared)).rejects.toThrow("another server was faster");
    expect([await knownPassword(folder), await otherPassword(folder)]).toEqual(["before", other]);
  });
});
