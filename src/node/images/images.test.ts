import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { exists } from "#platform/files.ts";
import { systemCommands } from "#platform/processes.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import {
  CredentialProviders,
  imageLocation,
  matchCredentials,
  patternMatches,
  secretCredentials,
} from "../credentials.ts";
import { hostsFiles, parseRegistries, readRegistries, registryCredentials, writeHostsFiles } from "./registries.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-images-"));
afterAll(() => rmSync(folder, { recursive: true }));

test.each([
  ["busybox", "docker.io", "library/busybox"],
  ["grafana/loki:2", "docker.io", "grafana/loki"],
  ["quay.io/a/b@sha256:00", "quay.io", "a/b"],
  ["localhost:5000/x:1", "localhost:5000", "x"],
])("%s lies at", (image, host, path) => expect(imageLocation(image)).toEqual({ host, path }));

test.each([
  ["docker.io", "busybox", true],
  ["https://index.docker.io/v1/", "busybox", true],
  ["quay.io", "busybox", false],
  ["quay.io", "quay.io/a/b:1", true],
  ["quay.io/a", "quay.io/a/b:1", true],
  ["quay.io/c", "quay.io/a/b:1", false],
  ["*.quay.io", "eu.quay.io/a:1", true],
  ["*.quay.io", "quay.io/a:1", false],
  ["*.quay.io", "a.b.quay.io/a:1", false],
  ["e*u*.quay.io", "e-u-1.quay.io/a:1", true],
  ["e*u.quay.io", "e-u-1.quay.io/a:1", false],
  ["eu*u.quay.io", "eu.quay.io/a:1", false],
  ["r.io:5000", "r.io:5000/a", true],
  ["r.io", "r.io:5000/a", false],
])("%s fits %s: %s", (pattern, image, expected) => expect(patternMatches(pattern, image)).toBe(expected));

test("a pattern full of stars is looked at as fast as any other", () => {
  const startMs = performance.now();
  expect(patternMatches(`${"*a".repeat(12)}*b.io`, `${"a".repeat(63)}.io/x`)).toBe(false);
  expect(performance.now() - startMs).toBeLessThan(10_000);
});

test("the most specific credentials come first, and all that fit are tried", () => {
  const of = (username: string) => ({ username, password: "" });
  const all = new Map([
    ["r.io", of("all")],
    ["r.io/team", of("team")],
    ["other.io", of("other")],
  ]);
  expect(matchCredentials(all, "r.io/team/app:1").map((c) => c.username)).toEqual(["team", "all"]);
});

describe("pull secrets", () => {
  const secret = (key: string, value: string): Secret =>
    ({ metadata: {}, data: { [key]: Buffer.from(value).toString("base64") } }) as Secret;
  const auth = Buffer.from("me:pa:ss").toString("base64");
  test.each([
    ["the new form", ".dockerconfigjson", JSON.stringify({ auths: { "r.io": { auth } } })],
    ["the old form", ".dockercfg", JSON.stringify({ "r.io": { auth } })],
  ])("%s", (_, key, value) => {
    expect(secretCredentials(secret(key, value)).get("r.io")).toEqual({ username: "me", password: "pa:ss" });
  });
  test.each(["{", "3", `{"auths":{"r.io":null}}`])("a broken one gives none: %s", (text) =>
    expect(secretCredentials(secret(".dockerconfigjson", text)).size).toBe(0),
  );
});

describe("registries.yaml", () => {
  const registries = parseRegistries({
    mirrors: {
      "docker.io": { endpoint: ["https://mirror.lan:5000", "http://old.lan/proxy/v2"] },
      "*": { endpoint: ["https://all.lan"] },
    },
    configs: {
      "mirror.lan:5000": {
        auth: { username: "u", password: "p" },
        tls: { ca_file: "/ca.pem", insecure_skip_verify: true },
      },
    },
  });
  test("becomes containerd's hosts files", () => {
    const { files, warnings } = hostsFiles(registries);
    expect(warnings).toEqual([]);
    expect(files.get("docker.io")).toContain('server = "https://registry-1.docker.io"');
    expect(files.get("docker.io")).toMatch(
      /\[host\."https:\/\/mirror\.lan:5000"\]\n {2}capabilities = \["pull", "resolve"\]\n {2}ca = "\/ca\.pem"\n {2}skip_verify = true/,
    );
    expect(files.get("docker.io")).toContain('[host."http://old.lan/proxy/v2"]');
    expect(files.get("docker.io")).toContain("override_path = true");
    expect(files.get("_default")).toContain('[host."https://all.lan"]');
  });
  test("gives credentials for a registry and for the mirrors that stand in for it", () => {
    const mirrored = { username: "u", password: "p", server: "https://mirror.lan:5000" };
    expect(registryCredentials(registries, "busybox:1")).toEqual([mirrored]);
    expect(registryCredentials(registries, "mirror.lan:5000/a:1")).toEqual([{ username: "u", password: "p" }]);
    expect(registryCredentials(registries, "quay.io/a:1")).toEqual([]);
  });
  test("says what it cannot do", () => {
    const rewritten = parseRegistries({ mirrors: { "r.io": { endpoint: ["https://m"], rewrite: { a: "b" } } } });
    expect(hostsFiles(rewritten).warnings[0]).toContain("mirrors.r.io.rewrite");
  });
  test.each([
    ["a list", []],
    ["an unknown key", { mirror: {} }],
    ["an endpoint that is no URL", { mirrors: { a: { endpoint: ["https://"] } } }],
  ])("refuses %s", (_, value) => expect(() => parseRegistries(value)).toThrow());
  test("is written, and what it no longer names is removed; files of others stay", async () => {
    const certs = join(folder, "certs.d");
    await writeHostsFiles(certs, registries);
    expect(readFileSync(join(certs, "docker.io/hosts.toml"), "utf8")).toContain("mirror.lan");
    const own = join(certs, "_default/hosts.toml");
    writeFileSync(own, "# by hand\n");
    await writeHostsFiles(certs, parseRegistries({}));
    expect(await exists(join(certs, "docker.io"))).toBe(false);
    expect(readFileSync(own, "utf8")).toBe("# by hand\n");
  });
  test("a missing file is none, a broken one is named", async () => {
    expect(await readRegistries(join(folder, "none.yaml"))).toBeUndefined();
    const path = join(folder, "bad.yaml");
    writeFileSync(path, "mirrors: 3\n");
    await expect(readRegistries(path)).rejects.toThrow(/bad\.yaml: mirrors must be a map/);
  });
});

test("a credential provider is asked once as long as its answer lasts", async () => {
  const calls = join(folder, "calls");
  writeFileSync(
    join(folder, "provider"),
    `#!/bin/sh
cat >> ${calls}; echo >> ${calls}
echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","cacheDuration":"10m","auth":{"*.r.io":{"username":"u","password":"'$SECRET'"}}}'
`,
    { mode: 0o755 },
  );
  const config = join(folder, "config.yaml");
  writeFileSync(
    config,
    `kind: CredentialProviderConfig
providers:
- {name: provider, matchImages: ["*.r.io"], apiVersion: credentialprovider.kubelet.k8s.io/v1, env: [{name: SECRET, value: s}]}
`,
  );
  const clock = new FakeClock();
  const log = createLogger(() => {}, "error");
  const providers = new CredentialProviders(config, folder, { commands: systemCommands, clock, log });
  expect(await providers.credentials("eu.r.io/a:1")).toEqual([{ username: "u", password: "s" }]);
  expect(await providers.credentials("eu.r.io/b:1")).toHaveLength(1);
  expect(await providers.credentials("busybox")).toEqual([]);
  expect(readFileSync(calls, "utf8").trim().split("\n")).toHaveLength(1);
  expect(readFileSync(calls, "utf8")).toContain('"image":"eu.r.io/a:1"');
  await clock.advance(600_001);
  await providers.credentials("eu.r.io/b:1");
  expect(readFileSync(calls, "utf8").trim().split("\n")).toHaveLength(2);
});
