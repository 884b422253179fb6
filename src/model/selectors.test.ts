import { describe, expect, test } from "vitest";
import { checkFields, matchesFields, parseFieldSelector } from "./field-selector.ts";
import { formatRequirements, matchesLabelSelector, matchesRequirements, parseLabelSelector } from "./label-selector.ts";
import { configMaps, events, nodes, pods } from "./resources.ts";

describe("label selectors as text", () => {
  const labels = { a: "b", tier: "web", n: "5", "x.io/y": "" };
  test.each([
    ["", true],
    ["a=b", true],
    ["a==b, tier in (web, db)", true],
    ["a!=b", false],
    ["missing!=b", true],
    ["a in (c)", false],
    ["a notin (c),!missing", true],
    ["missing notin (c)", true],
    ["!a", false],
    ["tier", true],
    ["x.io/y=", true],
    ["x.io/y in (,z)", true],
    ["n>4,n<6", true],
    ["n>5", false],
    ["a>1", false],
  ])("%j: %s", (text, expected) => expect(matchesRequirements(parseLabelSelector(text), labels)).toBe(expected));

  test.each([
    ["a=b=c", "unable to parse requirement: found '=', expected: ',' or 'end of string'"],
    ["a,", "unable to parse requirement: found '', expected: identifier after ','"],
    ["a in b", "unable to parse requirement: found 'b', expected: '('"],
    ["!a=b", "unable to parse requirement: found '=', expected: ',' or 'end of string'"],
  ])("%j is refused", (text, message) => {
    expect(() => parseLabelSelector(text)).toThrowError(message);
  });
  test.each(["-a=b", "a=b$", "A_B.io/x", "a>b", "a in (b", "(a)"])("%j is refused too", (text) => {
    expect(() => parseLabelSelector(text)).toThrowError(/unable to parse requirement/);
  });

  test("prints sorted", () => {
    expect(formatRequirements(parseLabelSelector("z in (b,a),!y,x!=1,w"))).toBe("w,x!=1,!y,z in (a,b)");
  });
});

test("label selectors as objects", () => {
  const selector = {
    matchLabels: { a: "b" },
    matchExpressions: [
      { key: "t", operator: "In", values: ["x", "y"] },
      { key: "no", operator: "DoesNotExist" },
    ],
  };
  expect(matchesLabelSelector(selector, { a: "b", t: "y" })).toBe(true);
  expect(matchesLabelSelector(selector, { a: "b", t: "y", no: "" })).toBe(false);
  expect(matchesLabelSelector({}, undefined)).toBe(true);
  expect(matchesLabelSelector(undefined, { a: "b" })).toBe(false);
  expect(matchesLabelSelector({ matchExpressions: [{ key: "toString", operator: "Exists" }] }, {})).toBe(false);
  expect(() => matchesLabelSelector({ matchExpressions: [{ key: "a", operator: "Near" }] }, {})).toThrowError(
    '"Near" is not a valid label selector operator',
  );
});

describe("field selectors", () => {
  const pod = {
    metadata: { name: "x", namespace: "d" },
    spec: { nodeName: "n" },
    status: { phase: "Running", podIPs: [{ ip: "1.1.1.1" }] },
  };
  test.each([
    ["", true],
    ["metadata.name=x", true],
    ["metadata.name==x,status.phase!=Pending", true],
    ["spec.nodeName!=n", false],
    ["status.podIPs=1.1.1.1", true],
    ["spec.hostNetwork=false", true],
    ["status.nominatedNodeName=", true],
    ["metadata.name=a\\,b", false],
  ])("%j: %s", (text, expected) => expect(matchesFields(parseFieldSelector(text), pod)).toBe(expected));

  test("a node that is schedulable compares as false", () => {
    const requirements = parseFieldSelector("spec.unschedulable=false");
    checkFields(nodes, requirements);
    expect(matchesFields(requirements, { metadata: {}, spec: {} })).toBe(true);
  });
  test("unknown fields are refused in upstream's words", () => {
    expect(() => checkFields(pods, parseFieldSelector("spec.foo=1"))).toThrowError(
      "field label not supported: spec.foo",
    );
    expect(() => checkFields(configMaps, parseFieldSelector("data.a=1"))).toThrowError(
      '"data.a" is not a known field selector: only "metadata.name", "metadata.namespace"',
    );
    expect(() => checkFields(events, parseFieldSelector("involvedObject.uid=1"))).not.toThrow();
  });
  test("syntax", () => {
    expect(() => parseFieldSelector("abc")).toThrowError("invalid selector: 'abc'; can't understand 'abc'");
    expect(() => parseFieldSelector("a=b\\c")).toThrowError(/invalid field selector/);
  });
});
