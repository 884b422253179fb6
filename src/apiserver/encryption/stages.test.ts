import { expect, test } from "vitest";
import {
  type EncryptionCommand,
  formatManaged,
  keyName,
  type ManagedKey,
  type ManagedState,
  parseManaged,
  planCommand,
  planFinish,
  stageOf,
  stateLine,
} from "./stages.ts";

const key = (name: string, type: ManagedKey["type"] = "aescbc"): ManagedKey => ({
  type,
  name,
  secret: Buffer.alloc(32, name.length).toString("base64"),
});
const state = (stage: ManagedState["stage"], names: string[], enabled = true, skip = false): ManagedState => ({
  ...{ stage, enabled, skip },
  keys: names.map((name) => key(name)),
});
const shown = ({ stage, enabled, keys }: ManagedState): string =>
  `${stage} ${enabled ? "on" : "off"} ${keys.map(({ name }) => name).join()}`;

test.each<[string, ManagedState | undefined, EncryptionCommand, string]>([
  ["the first key", undefined, { enable: true }, "start on new"],
  ["nothing to disable", undefined, { enable: false }, "no configuration file"],
  ["nothing to rotate", undefined, { stage: "rotate_keys" }, "enable it first"],
  ["off", state("start", ["a"]), { enable: false }, "start off a"],
  ["on again", state("start", ["a"], false), { enable: true }, "start on a"],
  ["prepare", state("start", ["a"]), { stage: "prepare" }, "prepare on a,new"],
  ["prepare again later", state("reencrypt_finished", ["a"]), { stage: "prepare" }, "prepare on a,new"],
  ["prepare twice", state("prepare", ["a", "b"]), { stage: "prepare" }, "incorrect stage: prepare"],
  ["prepare with force", state("prepare", ["a", "b"]), { stage: "prepare", force: true }, "prepare on a,b,new"],
  ["prepare when off", state("start", ["a"], false), { stage: "prepare" }, "is disabled"],
  ["rotate", state("prepare", ["a", "b"]), { stage: "rotate" }, "rotate on b,a"],
  ["rotate too early", state("start", ["a"]), { stage: "rotate" }, "incorrect stage: start"],
  ["rotate one key", state("start", ["a"]), { stage: "rotate", force: true }, "no second key"],
  ["reencrypt", state("rotate", ["b", "a"]), { stage: "reencrypt_request" }, "reencrypt_request on b,a"],
  ["reencrypt too early", state("prepare", ["a", "b"]), { stage: "reencrypt_request" }, "incorrect stage: prepare"],
  ["reencrypt into plain", state("start", ["a"], false), { stage: "reencrypt_request", force: true }, "request off a"],
  ["all at once", state("start", ["a"]), { stage: "rotate_keys" }, "reencrypt_request on new,a"],
  ["all at once in the middle", state("prepare", ["a", "b"]), { stage: "rotate_keys" }, "incorrect stage"],
  ["while it runs", state("reencrypt_active", ["b", "a"]), { enable: false }, "being reencrypted"],
  ["both", state("start", ["a"]), { stage: "prepare", enable: true }, "one of stage and enable"],
  ["neither", state("start", ["a"]), {}, "one of stage and enable"],
])("%s", (_name, before, command, expected) => {
  let outcome: string;
  try {
    outcome = shown(planCommand(command, before, key("new")));
  } catch (error) {
    outcome = (error as Error).message;
  }
  expect(outcome).toContain(expected);
});

test("no step but the last takes a key away, and that leaves the one that writes", () => {
  for (const stage of ["prepare", "rotate", "reencrypt_request", "rotate_keys"] as const) {
    const before = state("start", ["a", "b"]);
    const after = planCommand({ stage, force: true }, before, key("new"));
    for (const { name } of before.keys) expect(after.keys.map((k) => k.name)).toContain(name);
  }
  expect(shown(planFinish(state("reencrypt_active", ["b", "a"])))).toBe("reencrypt_finished on b");
  expect(shown(planFinish(state("reencrypt_active", ["b", "a"], true, true)))).toBe("reencrypt_finished on b,a");
});

test("the file is k3s's, and is read as it was written", () => {
  const one = { enabled: true, keys: [key("aescbckey")] };
  expect(formatManaged(one)).toBe(
    `{"kind":"EncryptionConfiguration","apiVersion":"apiserver.config.k8s.io/v1","resources":[{"resources":["secrets"],"providers":[{"aescbc":{"keys":[{"name":"aescbckey","secret":"${one.keys[0]!.secret}"}]}},{"identity":{}}]}]}`,
  );
  const mixed = { enabled: false, keys: [key("c", "secretbox"), key("a"), key("b"), key("d", "secretbox")] };
  for (const configuration of [one, mixed]) expect(parseManaged(formatManaged(configuration))).toEqual(configuration);
});

test.each([
  ["of other resources", formatManaged({ enabled: true, keys: [key("a")] }).replace('"secrets"', '"configmaps"')],
  ["of no keys", formatManaged({ enabled: true, keys: [] })],
  ["of aesgcm", formatManaged({ enabled: true, keys: [key("a")] }).replace("aescbc", "aesgcm")],
])("a file %s is not taken for one of ours", (_name, text) => {
  expect(() => parseManaged(text)).toThrow("secrets-encrypt");
});

test("names are never taken twice, whatever the clock says", () => {
  expect(keyName("aescbc", [], "2026-01-01T00:00:00Z")).toBe("aescbckey");
  const taken = [key("aescbckey")];
  for (const expected of ["aescbckey-T", "aescbckey-T-2", "aescbckey-T-3"]) {
    const name = keyName("aescbc", taken, "T");
    expect(name).toBe(expected);
    taken.push(key(name));
  }
});

test("a configuration finds its stage, the coming one or that of before", () => {
  const text = [
    stateLine({ stage: "reencrypt_request", skip: true }, "new"),
    stateLine({ stage: "rotate", skip: false }, "old"),
  ].join("\n");
  expect(stageOf(text, "new")).toEqual({ stage: "reencrypt_request", skip: true });
  expect(stageOf(text, "old")).toEqual({ stage: "rotate", skip: false });
  expect(stageOf(text, "other")).toBeUndefined();
});
