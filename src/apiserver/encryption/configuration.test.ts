import { describe, expect, test } from "vitest";
import { parseEncryptionConfiguration, providersFor } from "./configuration.ts";

const secret = Buffer.alloc(32, 7).toString("base64");
const header = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
const config = (resources: unknown): string =>
  JSON.stringify({ apiVersion: "apiserver.config.k8s.io/v1", kind: "EncryptionConfiguration", resources });
const rule = (resources: unknown, providers: unknown = [{ identity: {} }]) => ({ resources, providers });
const keys = (...all: unknown[]) => ({ keys: all });

test("YAML as in upstream's documentation is read", () => {
  const text = `${header}resources:
  - resources:
      - secrets
      - configmaps
      - pandas.awesome.bears.example
    providers:
      - identity: {}
      - aesgcm:
          keys:
            - name: key1
              secret: c2VjcmV0IGlzIHNlY3VyZQ==
            - name: key2
              secret: dGhpcyBpcyBwYXNzd29yZA==
      - aescbc:
          keys:
            - name: key1
              secret: c2VjcmV0IGlzIHNlY3VyZQ==
      - secretbox:
          keys:
            - name: key1
              secret: YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=
  - resources:
      - events
    providers:
      - identity: {}
  - resources:
      - '*.apps'
    providers:
      - aescbc:
          keys:
          - name: key2
            secret: c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/Cg==
  - resources:
      - '*.*'
    providers:
      - aescbc:
          keys:
          - name: key3
            secret: c2VjcmV0IGlzIHNlY3VyZSwgSSB0aGluaw==
`;
  // Their examples of key2 and key3 have no AES length; upstream would refuse them as well.
  expect(() => parseEncryptionConfiguration(text)).toThrow(
    'resources[2].providers[0].aescbc.keys[0].secret: Invalid value: "REDACTED": secret is not of the expected length, got 28, expected one of [16 24 32]',
  );
  const mended = text.replace(/secret: c2VjcmV0IGlzIHNlY3VyZSwg.*/g, `secret: ${secret}`);
  const parsed = parseEncryptionConfiguration(mended);
  const firstKey = (plural: string, storageGroup: string) => {
    const providers = providersFor(parsed, { plural, storageGroup });
    const keyed = providers?.find((provider) => provider.type !== "identity");
    return keyed && "keys" in keyed ? keyed.keys[0]?.name : providers?.map(({ type }) => type).join();
  };
  expect(providersFor(parsed, { plural: "secrets", storageGroup: "" })?.map(({ type }) => type)).toEqual([
    "identity",
    "aesgcm",
    "aescbc",
    "secretbox",
  ]);
  expect(firstKey("pandas", "awesome.bears.example")).toBe("key1");
  expect(firstKey("events", "")).toBe("identity");
  expect(firstKey("deployments", "apps")).toBe("key2");
  expect(firstKey("pods", "")).toBe("key3");
  expect(firstKey("pandas", "other.example")).toBe("key3");
});

test("rules for the same resource are joined in their order, and what no rule names is left alone", () => {
  const parsed = parseEncryptionConfiguration(
    config([rule(["secrets"], [{ aesgcm: keys({ name: "a", secret }) }]), rule(["secrets", "*.apps"])]),
  );
  expect(providersFor(parsed, { plural: "secrets", storageGroup: "" })?.map(({ type }) => type)).toEqual([
    "aesgcm",
    "identity",
  ]);
  expect(providersFor(parsed, { plural: "pods", storageGroup: "" })).toBeUndefined();
  const core = parseEncryptionConfiguration(config([rule(["*."])]));
  expect(providersFor(core, { plural: "pods", storageGroup: "" })).toHaveLength(1);
  expect(providersFor(core, { plural: "deployments", storageGroup: "apps" })).toBeUndefined();
});

const secrets = ["secrets"];
describe("refuses", () => {
  test.each<[string, string, string]>([
    ["no YAML", "a: [", "Flow sequence"],
    ["nothing", "", "an object is expected"],
    ["two documents", `${header}---\n${header}`, "one YAML document"],
    ["another kind", '{"apiVersion":"v1","kind":"Secret","resources":[]}', "not Secret of v1"],
    ["an older version", header.replace("/v1", "/v1alpha1"), "not EncryptionConfiguration of"],
    ["a key given twice", `${header}kind: EncryptionConfiguration\n`, "Map keys must be unique"],
    ["no rules", config([]), "resources: Required value: at least one resources is required"],
    ["unknown fields", config([{ ...rule(secrets), provider: [] }]), 'unknown field "resources[0].provider"'],
    ["no resources", config([rule([])]), "resources[0].resources: Required value"],
    ["no providers", config([rule(secrets, [])]), "resources[0].providers: Required value"],
    ["resources that are no list", config([rule("secrets")]), "resources[0].resources: a list is expected"],
    ["a resource that is no text", config([rule([1])]), "resources[0].resources[0]: a string is expected"],
    ["an empty provider", config([rule(secrets, [{}])]), "does not contain any of the expected providers"],
    [
      "two providers in one",
      config([rule(secrets, [{ identity: {}, aescbc: keys({ name: "a", secret }) }])]),
      "more than one provider specified in a single element",
    ],
    [
      "an unknown provider",
      config([rule(secrets, [{ rot13: {} }])]),
      'unknown field "resources[0].providers[0].rot13"',
    ],
    ["options of identity", config([rule(secrets, [{ identity: { a: 1 } }])]), "identity.a"],
    [
      "kms",
      config([rule(secrets, [{ kms: { name: "k", endpoint: "unix:///x" } }])]),
      "resources[0].providers[0].kms: not supported: use aesgcm, aescbc, secretbox or identity",
    ],
    ["no keys", config([rule(secrets, [{ aesgcm: keys() }])]), "aesgcm.keys: Required value"],
    [
      "a key without name",
      config([rule(secrets, [{ aesgcm: keys({ secret }) }])]),
      "aesgcm.keys[0].name: Required value: name is a mandatory field for a key",
    ],
    [
      "a key without secret",
      config([rule(secrets, [{ aesgcm: keys({ name: "a" }) }])]),
      "aesgcm.keys[0].secret: Required value: secret is a mandatory field for a key",
    ],
    [
      "a secret that is no base64",
      config([rule(secrets, [{ aesgcm: keys({ name: "a", secret: "not base64!" }) }])]),
      'aesgcm.keys[0].secret: Invalid value: "REDACTED": secrets must be base64 encoded',
    ],
    [
      "a short secretbox key",
      config([rule(secrets, [{ secretbox: keys({ name: "a", secret: "AAAAAAAAAAAAAAAAAAAAAA==" }) }])]),
      "secret is not of the expected length, got 16, expected one of [32]",
    ],
    ["the star alone", config([rule(["*"])]), "use '*.' to encrypt all the resources from core API group"],
    ["capitals", config([rule(["Secrets"])]), "resource name should not contain capital letters"],
    ["stars elsewhere", config([rule(["sec*"])]), "such as 'secrets'"],
    ["extensions", config([rule(["*.extensions"])]), "'extensions' group has been removed"],
    ["events by their other name", config([rule(["events.events.k8s.io"])]), "Use 'events' instead"],
    ["what is no resource", config([rule(["serviceipallocations"])]), "do not have REST API/s"],
    ["the same twice", config([rule(["secrets", "secrets"])]), "the same resource cannot be specified multiple times"],
    ["the same in two spellings", config([rule(["secrets", "secrets."])]), "cannot be specified multiple times"],
    ["an overlap", config([rule(["secrets", "*."])]), "using overlapping resources such as 'secrets' and '*.'"],
    ["an overlap with all", config([rule(["secrets", "*.*"])]), "using overlapping resources"],
    [
      "a rule behind one for its group",
      config([rule(["*.apps"]), rule(["deployments.apps"])]),
      'resource "deployments.apps" is masked by earlier rule "*.apps"',
    ],
    ["a rule behind one for all", config([rule(["*.*"]), rule(secrets)]), 'masked by earlier rule "*.*"'],
  ])("%s", (_name, text, message) => {
    expect(() => parseEncryptionConfiguration(text)).toThrow(message);
  });

  test("without telling a secret", () => {
    const wrong = Buffer.from("my own password").toString("base64");
    const text = config([rule(secrets, [{ aescbc: keys({ name: "a", secret: wrong }) }])]);
    expect(() => parseEncryptionConfiguration(text)).toThrow(/^(?!.*bXkg).*got 15/);
  });
});
