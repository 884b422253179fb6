import { expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { clockProblem, explain, explainAnswer, isLasting } from "./failures.ts";

const server = "https://hub.lan:6443";
const tls = (code: string) => {
  const cause = Object.assign(new Error("what TLS said"), { code });
  return new AppError("HTTP_FAILED", "GET: what TLS said", {}, { cause });
};

test.each([
  ["ERR_TLS_CERT_ALTNAME_INVALID", "JOIN_HOST", /not one of a server .*look who answers there/, true],
  ["SELF_SIGNED_CERT_IN_CHAIN", "JOIN_CA", /or that this node has joined: take the token/, true],
  ["ECONNREFUSED", "JOIN_UNREACHABLE", /is it up/, false],
])("%s is %s", (code, own, message, lasting) => {
  const error = explain(tls(code), server);
  expect(error).toMatchObject({ code: own, message: expect.stringMatching(message) });
  expect(isLasting(error)).toBe(lasting);
});

test.each([
  [401, "", "JOIN_TOKEN", true],
  [400, '{"message":"10.0.0.1 is an address of a server"}', "JOIN_ANSWER", true],
  [403, '{"message":"taken"}', "JOIN_NAME", true],
  [409, '{"message":"newer"}', "JOIN_VERSION", true],
  [404, "page not found", "JOIN_ANSWER", true],
  [429, "", "JOIN_LATER", false],
  [503, '{"message":"starting"}', "JOIN_LATER", false],
])("answer %d", (status, text, code, lasting) => {
  const error = explainAnswer(status, text, server);
  expect([error.code, isLasting(error)]).toEqual([code, lasting]);
});

test.each([
  [Date.UTC(1970, 0, 1), /says 1970-01-01T00:00 and that of the server 2027-01-02T03:04: set/],
  [Date.UTC(2037, 0, 1), /says 2037-01-01T00:00/],
  [Date.UTC(2027, 0, 2), undefined],
])("a clock at %d", (nowMs, message) => {
  const problem = clockProblem(nowMs, Date.UTC(2027, 0, 2, 3, 4));
  if (message) expect(problem).toMatch(message);
  else expect(problem).toBe(undefined);
});
