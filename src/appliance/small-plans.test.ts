// The small pure files: identity, clock, log budget, status text, /etc.
import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { describe, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { parseYaml } from "#wire/yaml.ts";
import { serverTime, shouldPersist, startTime } from "./clock-plan.ts";
import { etcFiles, proxyEnvironment, resolvConf } from "./etc-files.ts";
import { boardSerial, makeDeviceKey, makeIdentity, parseIdentity } from "./identity.ts";
import { LogBudget } from "./log-budget.ts";
import { defaultMachineConfig } from "./machine-config.ts";
import { renderStatus, type StatusFacts, statusSize } from "./status-text.ts";

describe("identity", () => {
  test.each([
    ["1000000012ab34cd\0", "1000000012ab34cd"],
    [" 5CG1234XYZ \n", "5CG1234XYZ"],
    ["4c4c4544-0042-3510-8052-b4c04f4e3633", "4c4c4544-0042-3510-8052-b4c04f4e3633"],
    ["To Be Filled By O.E.M.", undefined],
    ["Default string", undefined],
    ["0000000000000000", undefined],
    ["00000000-0000-0000-0000-000000000000", undefined],
    ["FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", undefined],
    ["0123456789", undefined],
    ["System Serial Number", undefined],
    ["Not Specified", undefined],
    ["N/A", undefined],
    ["", undefined],
    ["01", undefined],
  ])("serial %j", (text, expected) => expect(boardSerial([undefined, text])).toBe(expected));

  test("the name follows from the board, so that a reset device is found under it again", () => {
    const [a, b] = [makeIdentity("SERIAL-1", seededRandom(1)), makeIdentity("SERIAL-1", seededRandom(2))];
    expect(a.hostname).toBe(b.hostname);
    expect(a.hostname).toMatch(/^mote-[0-9a-f]{6}$/);
    expect(a.machineId).not.toBe(b.machineId);
    expect(makeIdentity("SERIAL-2", seededRandom(1)).hostname).not.toBe(a.hostname);
    const made = makeIdentity(undefined, seededRandom(3));
    expect(made).toMatchObject({ serialFrom: "generated", serial: expect.stringMatching(/^[0-9a-f]{16}$/) });
    expect(parseIdentity(JSON.stringify(made))).toEqual(made);
  });

  test.each(["", "{", "null", "5", "{}", '{"serial":"a","serialFrom":"board","hostname":"b","machineId":"c"}'])(
    "a damaged file %j counts as none",
    (text) => expect(parseIdentity(text)).toBeUndefined(),
  );

  test("the device key signs", () => {
    const { privateKey, publicKey } = makeDeviceKey();
    const signature = sign(null, Buffer.from("x"), createPrivateKey(privateKey));
    expect(verify(null, Buffer.from("x"), createPublicKey(publicKey), signature)).toBe(true);
  });
});

describe("clock", () => {
  const day = 24 * 3600_000;
  const made = Date.UTC(2026, 10, 1);
  test.each<[string, number, (number | undefined)[], number | undefined]>([
    ["1970 becomes the image's date", 0, [made, undefined], made],
    ["the last known time counts when later", 0, [made, made + day], made + day],
    ["a right clock stays", made + 1, [made], undefined],
    ["nothing known, nothing set", 5, [undefined, Number.NaN], undefined],
    ["a last known time beyond reason is none", 0, [made, Date.UTC(2150, 0, 1)], made],
  ])("%s", (_, nowMs, past, expected) => expect(startTime({ nowMs, past })).toBe(expected));

  test.each<[string, number, number, number | undefined]>([
    ["forward", made, 5 * day, made + 5 * day],
    ["a little back", made + day, -3600_000, made + day - 3600_000],
    ["not for half a second", made, 400, undefined],
    ["not behind what has passed", made + day, -3 * day, undefined],
    ["not beyond reason", made, 200 * 365 * day, undefined],
  ])("a server moves it: %s", (_, nowMs, offsetMs, expected) =>
    expect(serverTime({ nowMs, offsetMs, past: [made] })).toBe(expected),
  );

  test("is written once a day", () => {
    expect(shouldPersist(made, undefined)).toBe(true);
    expect(shouldPersist(made + day - 1, made)).toBe(false);
    expect(shouldPersist(made + day, made)).toBe(true);
    expect(shouldPersist(made - day, made)).toBe(false);
  });
});

describe("log budget", () => {
  test("the burst, then what a day brings, with the number of those lost", () => {
    const budget = new LogBudget({ bytesPerDay: 24_000, burstBytes: 20 }, 0);
    expect(budget.admit("0123456789\n", 0)).toBe("0123456789\n");
    expect(budget.admit("0123456789\n", 0)).toBeUndefined();
    expect(budget.admit("0123456789\n", 1)).toBeUndefined();
    expect(budget.admit("a\n", 3600_000)).toBe("(2 lines were left out)\na\n");
    expect(budget.admit("b\n", 3600_000)).toBe("b\n");
  });
  test("a program that starts again and again has one budget altogether", () => {
    const options = { bytesPerDay: 24_000, burstBytes: 20 };
    const first = new LogBudget(options, 0);
    first.admit("0123456789", 0);
    expect(first.leftBytes).toBe(10);
    expect(new LogBudget(options, 0, first.leftBytes).admit("0123456789\n", 0)).toBeUndefined();
    expect(new LogBudget(options, 0, 1_000_000).leftBytes).toBe(20);
  });
  test("never more than a day's worth and the burst within a day, however lines come", () => {
    const random = seededRandom(9);
    for (let round = 0; round < 50; round++) {
      const budget = new LogBudget({ bytesPerDay: 10_000, burstBytes: 1000 }, 0);
      let written = 0;
      for (let nowMs = 0; nowMs < 24 * 3600_000; nowMs += random.float() * 600_000) {
        written += budget.admit("x".repeat(Math.floor(random.float() * 400)), nowMs)?.length ?? 0;
      }
      expect(written).toBeLessThanOrEqual(11_000);
    }
  });
});

describe("status text", () => {
  const facts: StatusFacts = { phase: "ready", version: "v1", problems: [], notes: [] };
  test("says what a person needs, with Windows line ends", () => {
    const text = renderStatus({
      ...facts,
      ...{
        hostname: "mote-1",
        serial: "s",
        address: "10.0.0.2",
        apiPort: 6443,
        slot: "A",
        problems: ["p"],
        notes: ["n"],
      },
    });
    expect(text.trimEnd().split("\r\n")).toEqual([
      ...["The device is ready.", "", "mote v1, slot A", "name    mote-1", "serial  s", "address 10.0.0.2"],
      ...["cluster https://10.0.0.2:6443", "", "To be corrected:", "- p", "", "Done at this start:", "- n"],
    ]);
    expect(
      renderStatus({ ...facts, phase: "error", detail: "The disk is full.", address: "1.2.3.4", apiPort: 1 }),
    ).toMatch(/^The device cannot work as asked.\r\nThe disk is full.\r\n\r\nmote v1\r\naddress 1.2.3.4\r\n(\r\n| )+$/);
  });
  test("always has the same size, whatever is in it", () => {
    const random = seededRandom(4);
    for (let round = 0; round < 300; round++) {
      const problems = Array.from({ length: Math.floor(random.float() * 30) }, () =>
        String.fromCodePoint(
          ...Array.from({ length: Math.floor(random.float() * 300) }, () => Math.floor(random.float() * 0xd7ff)),
        ),
      );
      const text = renderStatus({ ...facts, problems });
      expect(Buffer.byteLength(text)).toBe(statusSize);
      expect(text.replaceAll("\r\n", "")).not.toMatch(/[\r\n\0]/);
    }
    expect(renderStatus({ ...facts, problems: Array(100).fill("x".repeat(100)) })).toContain("(more did not fit)");
  });
});

describe("/etc", () => {
  test("config.yaml holds the given keys, the token and the labels, but the device's own folders", () => {
    const files = etcFiles({
      ...{
        hostname: "pump",
        nodeName: "mote-1",
        machineId: "m",
        dataDir: "/data/mote",
        runDir: "/run/mote",
        token: "t: #1",
      },
      server: { "node-label": "a=b", "tls-san": ["x"] },
      machine: { ...defaultMachineConfig, labels: { site: "hall" } },
    });
    const config = files.find((file) => file.path === "mote/config.yaml")!;
    expect(config.mode).toBe(0o600);
    expect(parseYaml(config.text)).toEqual({
      ...{ "node-name": "mote-1", "tls-san": ["x"], token: "t: #1", "node-label": ["a=b", "site=hall"] },
      ...{ "data-dir": "/data/mote", "run-dir": "/run/mote", "write-kubeconfig": "/data/mote/kubeconfig.yaml" },
    });
    expect(files.find((file) => file.path === "hosts")!.text).toContain("127.0.1.1 pump\n");
  });
  test("resolv.conf and proxies", () => {
    expect(resolvConf({ servers: ["1.1.1.1", "9.9.9.9"], search: ["a", "b"] })).toBe(
      "search a b\nnameserver 1.1.1.1\nnameserver 9.9.9.9\n",
    );
    expect(proxyEnvironment({ exclude: ["x"] }, [])).toEqual({});
    expect(proxyEnvironment({ http: "http://p:1", exclude: ["x"] }, ["10.42.0.0/16"])).toEqual({
      HTTP_PROXY: "http://p:1",
      HTTPS_PROXY: "http://p:1",
      NO_PROXY: "localhost,127.0.0.0/8,.svc,.cluster.local,10.42.0.0/16,x",
    });
  });
});
