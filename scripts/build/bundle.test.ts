// What each subcommand loads: code that is loaded is resident, so an agent must not carry what only a server needs. An import too
// many drags in hundreds of modules without anybody noticing; this does.
import { expect, test } from "vitest";
import { analyseBundle, loadedBy, loadedWith } from "./bundle.ts";

const metafile = await analyseBundle();
const loaded = (entry: string) => loadedWith(metafile, ["src/entry/mote.ts", entry]);

/** Folders and modules of a control plane. */
const ofServers = [
  /^src\/(appliance|controllers|datastore|scheduler)\//,
  // What it has of the API server is who presents a certificate.
  /^src\/apiserver\/(?!client-certificates\.ts|authn\/(x509|user)\.ts)/,
  /^src\/model\/(cel|defaults|managed-fields|patch|quota|validation)\/(?!names\.ts)/,
  /^src\/model\/(gen\/)?(decode|defaults|facts|openapi|protobuf|validate)[^/]*\.ts$/,
  /^src\/supervisor\/(authorities|join-server|live-pki|server-session|tunnels)\.ts$/,
  /^node_modules\/(@noble|@sqlite\.org|re2js)\//,
];
const ofServersIn = (modules: readonly string[]) =>
  modules.filter((path) => ofServers.some((pattern) => pattern.test(path)));

test("an agent loads nothing of a server", () => {
  const { modules, bytes } = loaded(loadedBy.agent);
  expect(modules).toContain("src/node/agent.ts");
  expect(ofServersIn(modules)).toEqual([]);
  expect(bytes).toBeLessThan(800 * 1024);
});

test("a device that joins another loads what reads its configuration, and no server", () => {
  const { modules, bytes } = loadedWith(metafile, ["src/entry/mote.ts", "src/entry/machine.ts", loadedBy.agent]);
  // The scheduler's configuration names its plugins.
  const ofFlags =
    /^src\/(appliance|scheduler)\/|^src\/datastore\/[^/]+\.ts$|^src\/(apiserver|controllers)\/(.*\/)?(arguments|options)\.ts$/;
  expect(ofServersIn(modules).filter((path) => !ofFlags.test(path))).toEqual([]);
  expect(bytes).toBeLessThan(1200 * 1024);
});

test("a command that asks a server loads next to nothing", () => {
  const { modules, bytes } = loaded(loadedBy.token);
  expect(modules).toContain("src/entry/token.ts");
  expect(ofServersIn(modules)).toEqual([]);
  expect(bytes).toBeLessThan(300 * 1024);
});

test("a server's modules would be seen", () => {
  const { modules } = loaded(loadedBy.server);
  for (const pattern of ofServers.filter((one) => !one.source.includes("appliance"))) {
    expect(modules.some((path) => pattern.test(path))).toBe(true);
  }
  expect(ofServersIn(modules).length).toBeGreaterThan(200);
});
