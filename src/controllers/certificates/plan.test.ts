import { expect, test } from "vitest";
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import { makeSigningRequest } from "#wire/pkcs10.fixture.ts";
import { planSigning, signerNames } from "./plan.ts";

const ofNode = (...dnsNames: string[]): CertificateSigningRequest => {
  const order = { commonName: "system:node:a", organizations: ["system:nodes"], dnsNames };
  const request = Buffer.from(makeSigningRequest(order).request).toString("base64");
  const usages = ["digital signature", "server auth"];
  return { metadata: { name: "a" }, spec: { request, usages, signerName: signerNames.kubeletServing } };
};

test.each(["kubernetes", "Kubernetes.default.svc", "kubernetes.", "localhost", "a.LOCALHOST", "*", "*.example.com"])(
  "a node gets no certificate for a name that servers are known by: %s",
  (name) => {
    const message = "DNS subjectAltNames of servers are not allowed";
    expect(planSigning(ofNode("a", name))).toEqual({ do: "fail", message });
  },
);

test.each(["a", "a.example.com", "kubernetes-1", "my.kubernetes", "localhost-2"])("but for its own: %s", (name) => {
  expect(planSigning(ofNode(name))).toEqual({ do: "sign", authority: "server" });
});
