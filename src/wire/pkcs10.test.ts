import { expect, test } from "vitest";
import { makeSigningRequest } from "./pkcs10.fixture.ts";
import { parseSigningRequest } from "./pkcs10.ts";

test("a request is read and its signature checked", () => {
  const { request } = makeSigningRequest({
    commonName: "system:node:a",
    organizations: ["system:nodes", "x"],
    dnsNames: ["a", "a.example"],
    ips: [[10, 0, 0, 1]],
  });
  expect(parseSigningRequest(request)).toMatchObject({
    commonName: "system:node:a",
    organizations: ["system:nodes", "x"],
    dnsNames: ["a", "a.example"],
    ips: [Buffer.from([10, 0, 0, 1])],
    emailAddresses: [],
    uris: [],
    isSignatureValid: true,
  });
});

test("a request that was changed holds no key", () => {
  const { request } = makeSigningRequest({ commonName: "plain" });
  const bytes = Buffer.from(request.replace(/-----[^-]+-----/g, ""), "base64");
  bytes[bytes.indexOf("plain")] = "b".charCodeAt(0);
  const changed = `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString("base64")}\n-----END CERTIFICATE REQUEST-----`;
  expect(parseSigningRequest(changed)).toMatchObject({ commonName: "blain", isSignatureValid: false });
});

test.each(["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"])(
  "no request: %j",
  (text) => {
    expect(parseSigningRequest(text)).toBeUndefined();
  },
);

test.each([0, 3, 5, 17])("an address of %i bytes is none", (length) => {
  const { request } = makeSigningRequest({ commonName: "a", ips: [Array.from({ length }, () => 1)] });
  expect(parseSigningRequest(request)).toBeUndefined();
});
