import { expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { type LocalPod, localPodOf, withLocalPods } from "./local-endpoints.ts";

const endpoint = (uid: string | undefined, nodeName: string, address = "10.42.1.2") => ({
  ...{ addresses: [address], nodeName, conditions: { ready: true, serving: true, terminating: false } },
  ...(uid === undefined ? {} : { targetRef: { kind: "Pod", uid } }),
});
const slice = (...endpoints: object[]) =>
  ({ addressType: "IPv4", metadata: { name: "s" }, endpoints }) as unknown as EndpointSlice;
const seen = (pods: Record<string, LocalPod>, of: EndpointSlice, takesUnready = false) =>
  (withLocalPods(of, { nodeName: "n", pod: (uid) => pods[uid], takesUnready: () => takesUnready }).endpoints ?? []).map(
    ({ addresses, conditions }) => `${addresses[0]} ${conditions?.ready} ${conditions?.serving}`,
  );

test.each<[string, Record<string, LocalPod>, object, boolean, string]>([
  [
    "a pod that is up again",
    { a: { ips: ["10.42.1.9"], isReady: true } },
    endpoint("a", "n"),
    false,
    "10.42.1.9 true true",
  ],
  [
    "one of two families",
    { a: { ips: ["fd00::9", "10.42.1.9"], isReady: true } },
    endpoint("a", "n"),
    false,
    "10.42.1.9 true true",
  ],
  [
    "a pod that is not ready",
    { a: { ips: ["10.42.1.9"], isReady: false } },
    endpoint("a", "n"),
    false,
    "10.42.1.9 false false",
  ],
  [
    "…that is wanted all the same",
    { a: { ips: ["10.42.1.9"], isReady: false } },
    endpoint("a", "n"),
    true,
    "10.42.1.9 true false",
  ],
  ["a pod that is not up", {}, endpoint("a", "n"), true, "10.42.1.2 false false"],
  ["a pod elsewhere", {}, endpoint("a", "other"), false, "10.42.1.2 true true"],
  ["what is no pod", {}, endpoint(undefined, "n"), false, "10.42.1.2 true true"],
])("%s", (_, pods, one, takesUnready, expected) => {
  expect(seen(pods, slice(one), takesUnready)).toEqual([expected]);
});

test("what is right already stays the same object", () => {
  const before = slice(endpoint("a", "n"), endpoint("b", "other"));
  const view = { nodeName: "n", pod: () => ({ ips: ["10.42.1.2"], isReady: true }), takesUnready: () => false };
  expect(withLocalPods(before, view)).toBe(before);
});

test.each<[string, object, LocalPod | undefined]>([
  ["nothing", {}, undefined],
  [
    "addresses",
    { podIPs: [{ ip: "10.42.1.2" }, { ip: "fd00::2" }] },
    { ips: ["10.42.1.2", "fd00::2"], isReady: false },
  ],
  [
    "readiness",
    { podIPs: [{ ip: "10.42.1.2" }], conditions: [{ type: "Ready", status: "True" }] },
    { ips: ["10.42.1.2"], isReady: true },
  ],
])("of a pod's status: %s", (_, status, expected) => {
  expect(localPodOf({ status } as unknown as Pod)).toEqual(expected);
});
