import { expect, test } from "vitest";
import { defaultSettings, parseControllerArguments } from "./arguments.ts";

test("without arguments upstream's defaults hold", () => {
  expect(parseControllerArguments([])).toEqual(defaultSettings);
});

test("what is named is changed, the rest is not, and the last one counts", () => {
  const settings = parseControllerArguments([
    "node-monitor-grace-period=40s",
    "--node-monitor-grace-period=1m30s",
    "node-eviction-rate=0.5",
    "terminated-pod-gc-threshold=10",
    "legacy-service-account-token-clean-up-period=24h",
    "horizontal-pod-autoscaler-downscale-stabilization=0",
    "node-cidr-mask-size=26",
    "node-cidr-mask-size-ipv6=112",
  ]);
  expect(settings).toEqual({
    ...defaultSettings,
    nodes: { ...defaultSettings.nodes, graceMs: 90_000, evictionRate: 0.5 },
    autoscaler: { periodMs: 15_000, downWindowMs: 0 },
    terminatedPods: 10,
    unusedTokenMs: 86_400_000,
    maskSizes: { IPv4: 26, IPv6: 112 },
  });
});

test.each([
  ["node-monitor-grace", "is not known; these are: node-monitor-period, "],
  ["node-monitor-period", "needs a value"],
  ["node-monitor-period=5", "is no duration such as 40s"],
  ["node-monitor-period=1ms", "is not from 1 s to 24 h"],
  ["node-monitor-period=60s", "must be longer than node-monitor-period, 60 s"],
  ["node-eviction-rate=fast", "is not a number from 0 to 1000"],
  ["unhealthy-zone-threshold=55", "is not a number from 0 to 1"],
  ["node-cidr-mask-size-ipv4=32", "is not a whole number from 8 to 29"],
  ["terminated-pod-gc-threshold=1.5", "is not a whole number"],
])("%s is refused", (arg, why) => {
  expect(() => parseControllerArguments([arg])).toThrow(why);
});
