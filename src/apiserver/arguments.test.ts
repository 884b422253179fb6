import { expect, test } from "vitest";
import { parseApiArguments } from "./arguments.ts";

test("defaults are upstream's, and each can be said otherwise", () => {
  expect(parseApiArguments([])).toEqual({
    cbor: false,
    podResize: false,
    maxReadsInFlight: 400,
    maxWritesInFlight: 200,
  });
  const args = [
    "feature-gates=CBORServingAndStorage=true,InPlacePodVerticalScaling=true",
    "max-requests-inflight=10",
    "--max-mutating-requests-inflight=5",
  ];
  expect(parseApiArguments(args)).toEqual({ cbor: true, podResize: true, maxReadsInFlight: 10, maxWritesInFlight: 5 });
  expect(parseApiArguments([...args, "feature-gates=CBORServingAndStorage=false"]).cbor).toBe(false);
});

test.each([
  ["an unknown flag", "frobnicate=1", /kube-apiserver-arg frobnicate: is not known/],
  ["a member of all objects", "constructor=1", /is not known/],
  ["no value", "max-requests-inflight", /needs a value/],
  ["no number", "max-requests-inflight=many", /"many" is not a whole number/],
  ["nothing in flight", "max-mutating-requests-inflight=0", /from 1 to 10000/],
  ["an unknown gate", "feature-gates=Nope=true", /"Nope" is none of CBORServingAndStorage, InPlacePodVerticalScaling/],
  ["a gate that is neither", "feature-gates=CBORServingAndStorage=yes", /true or false/],
])("refuses %s", (_name, arg, message) => {
  expect(() => parseApiArguments([arg])).toThrow(message);
});
