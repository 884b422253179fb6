import { expect, test } from "vitest";
import { parseApiArguments } from "./arguments.ts";
import { auditDefaults } from "./audit/options.ts";

test("defaults are upstream's, and each can be said otherwise", () => {
  expect(parseApiArguments([])).toMatchObject({
    cbor: false,
    podResize: false,
    multiCidrServices: false,
    optionalApis: [],
    maxReadsInFlight: 400,
    maxWritesInFlight: 200,
    encryptionConfigFile: undefined,
    encryptionReload: false,
    audit: auditDefaults,
  });
  const args = [
    "feature-gates=CBORServingAndStorage=true,InPlacePodVerticalScaling=true",
    "max-requests-inflight=10",
    "--max-mutating-requests-inflight=5",
  ];
  expect(parseApiArguments(args)).toMatchObject({
    cbor: true,
    podResize: true,
    maxReadsInFlight: 10,
    maxWritesInFlight: 5,
  });
  expect(parseApiArguments([...args, "feature-gates=CBORServingAndStorage=false"]).cbor).toBe(false);
});

test("APIs that are off by default are turned on by group version, and a gate says which it needs", () => {
  const beta = "runtime-config=networking.k8s.io/v1beta1";
  const gate = "feature-gates=MultiCIDRServiceAllocator=true";
  const optional = (...args: string[]) => parseApiArguments(args).optionalApis;
  expect(optional(beta)).toEqual(["networking.k8s.io/v1beta1"]);
  expect(optional(`${beta}=true,apps/v1=true,v1`)).toEqual(["networking.k8s.io/v1beta1"]);
  expect(optional(beta, `${beta}=false`)).toEqual([]);
  expect(parseApiArguments([gate, beta])).toMatchObject({ multiCidrServices: true });
  expect(() => parseApiArguments([gate])).toThrow(/MultiCIDRServiceAllocator needs .*runtime-config=networking/);
});

test("flags of the audit log", () => {
  const { audit } = parseApiArguments([
    "audit-policy-file=/etc/mote/audit.yaml",
    "audit-log-path=/var/log/audit.log",
    "audit-log-maxage=30",
    "audit-log-maxbackup=3",
    "audit-log-maxsize=5",
    "audit-log-compress=true",
    "audit-log-mode=batch",
    "audit-log-format=legacy",
    "audit-log-batch-buffer-size=50",
    "audit-log-truncate-enabled=true",
    "audit-log-truncate-max-event-size=2048",
    "audit-log-version=audit.k8s.io/v1",
  ]);
  expect(audit).toEqual({
    policyFile: "/etc/mote/audit.yaml",
    logPath: "/var/log/audit.log",
    format: "legacy",
    mode: "batch",
    maxAgeDays: 30,
    maxBackups: 3,
    maxSizeMb: 5,
    compress: true,
    bufferEvents: 50,
    truncate: { maxEventBytes: 2048, maxBatchBytes: 10 * 1024 * 1024 },
  });
  const hook = ["audit-webhook-config-file=/etc/hook.yaml", "audit-webhook-initial-backoff=1.5s"];
  expect(parseApiArguments([...hook, "audit-webhook-truncate-enabled=true"]).audit.webhook).toEqual({
    configFile: "/etc/hook.yaml",
    mode: "batch",
    initialBackoffMs: 1500,
    bufferEvents: 10_000,
    batchEvents: 400,
    maxWaitMs: 30_000,
    truncate: { maxEventBytes: 102_400, maxBatchBytes: 10_485_760 },
  });
  // Upstream's way to say the default.
  expect(parseApiArguments(["audit-log-path=-", "audit-log-maxsize=0"]).audit).toMatchObject({ maxSizeMb: 100 });
});

test("an encryption configuration may be named, and looked at again", () => {
  expect(parseApiArguments(["encryption-provider-config=/etc/enc.yaml"])).toMatchObject({
    encryptionConfigFile: "/etc/enc.yaml",
  });
  expect(parseApiArguments(["encryption-provider-config-automatic-reload=true"]).encryptionReload).toBe(true);
});

test.each([
  ["no file", "encryption-provider-config=", /the path of a file is expected/],
  ["a reload that is neither", "encryption-provider-config-automatic-reload=yes", /true or false/],
  ["an unknown flag", "frobnicate=1", /kube-apiserver-arg frobnicate: is not known/],
  ["a member of all objects", "constructor=1", /is not known/],
  ["no value", "max-requests-inflight", /needs a value/],
  ["no number", "max-requests-inflight=many", /"many" is not a whole number/],
  ["nothing in flight", "max-mutating-requests-inflight=0", /from 1 to 10000/],
  ["an unknown gate", "feature-gates=Nope=true", /"Nope" is none of CBORServingAndStorage, InPlacePodVerticalScaling/],
  [
    "an API that is not here",
    "runtime-config=storage.k8s.io/v1beta1=true",
    /"storage.k8s.io\/v1beta1" is none of those/,
  ],
  ["all of them", "runtime-config=api/all=true", /"api\/all" is none of those/],
  ["an API that is always there", "runtime-config=apps/v1=false", /"apps\/v1" is always served/],
  ["an API that is half on", "runtime-config=networking.k8s.io/v1beta1=yes", /must be true or false/],
  ["an unknown mode", "audit-log-mode=later", /audit-log-mode: "later" is none of batch, blocking, blocking-strict/],
  ["an unknown format", "audit-log-format=xml", /"xml" is none of json, legacy/],
  ["a negative size", "audit-log-maxsize=-1", /"-1" is not a whole number from 0 to 10000/],
  ["no path", "audit-log-path=", /a path is expected/],
  ["half a truth", "audit-log-compress=maybe", /"maybe" is neither true nor false/],
  ["another version", "audit-log-version=audit.k8s.io/v2", /is not audit.k8s.io\/v1/],
  ["a wait that is none", "audit-webhook-batch-max-wait=soon", /"soon" is not a time such as 10s, from 1ms to 3600s/],
  ["a webhook without its file", "audit-webhook-mode=batch", /needs audit-webhook-config-file beside it/],
  ["what does nothing", "audit-log-maxage=3", /audit-log-maxage: needs audit-log-path beside it/],
  ["a flag of upstream that is not here", "audit-webhook-batch-throttle-enable=true", /is not known/],
  ["a gate that is neither", "feature-gates=CBORServingAndStorage=yes", /true or false/],
])("refuses %s", (_name, arg, message) => {
  expect(() => parseApiArguments([arg])).toThrow(message);
});
