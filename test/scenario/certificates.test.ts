// A request for a certificate through its life: asked for, approved, signed, and cleaned away; and what is never signed.
import { X509Certificate } from "node:crypto";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import { certificateSigningRequests } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { makeSigningRequest, type RequestSpec } from "#wire/pkcs10.fixture.ts";

let cluster: InMemoryCluster;
beforeEach(async () => {
  cluster = await InMemoryCluster.start();
});
afterEach(() => cluster.stop());

async function ask(name: string, about: RequestSpec, spec: object): Promise<CertificateSigningRequest> {
  const request = Buffer.from(makeSigningRequest(about).request).toString("base64");
  return cluster.client.create(certificateSigningRequests, {
    metadata: { name },
    spec: { request, ...spec },
  } as unknown as CertificateSigningRequest);
}
async function approve(request: CertificateSigningRequest): Promise<void> {
  const conditions = [{ type: "Approved", status: "True", reason: "Test", message: "" }];
  await cluster.client.update(
    certificateSigningRequests,
    { ...request, status: { conditions } },
    { subresource: "approval" },
  );
}
const statusOf = async (name: string) => (await cluster.find(certificateSigningRequests, name))?.status;
const client = { signerName: "kubernetes.io/kube-apiserver-client", usages: ["client auth"] };

test("a user's certificate is signed once somebody approves", async () => {
  const made = await ask(
    "jane",
    { commonName: "jane", organizations: ["dev"] },
    { ...client, expirationSeconds: 3600 },
  );
  await cluster.advance(5000);
  expect(await statusOf("jane")).toEqual({});
  await approve(made);
  await cluster.until(async () => (await statusOf("jane"))?.certificate !== undefined, "is signed");
  const pem = Buffer.from((await statusOf("jane"))!.certificate!, "base64").toString();
  expect(new X509Certificate(pem).subject).toBe("O=dev\nCN=jane");
  await cluster.advance(3600_000);
  await cluster.until(
    async () => (await cluster.find(certificateSigningRequests, "jane")) === undefined,
    "is cleaned away",
  );
});

test("no node is certified for a name of servers", async () => {
  const node = { commonName: "system:node:n1", organizations: ["system:nodes"] };
  const serving = { signerName: "kubernetes.io/kubelet-serving", usages: ["digital signature", "server auth"] };
  await approve(await ask("own", { ...node, dnsNames: ["n1"] }, serving));
  await cluster.until(async () => (await statusOf("own"))?.certificate !== undefined, "is signed");
  for (const [i, name] of ["kubernetes", "KUBERNETES.default.svc", "localhost", "*.svc"].entries()) {
    await approve(await ask(`thief-${i}`, { ...node, dnsNames: ["n1", name] }, serving));
    await cluster.until(async () => (await statusOf(`thief-${i}`))?.conditions?.length === 2, "has failed");
    expect((await statusOf(`thief-${i}`))?.certificate).toBe(undefined);
  }
});

test("what its signer does not allow fails, what has another signer waits", async () => {
  await approve(await ask("odd", { commonName: "jane" }, { ...client, usages: ["client auth", "server auth"] }));
  await approve(await ask("other", { commonName: "jane" }, { ...client, signerName: "example.com/own" }));
  await cluster.until(async () => (await statusOf("odd"))?.conditions?.length === 2, "has failed");
  expect((await statusOf("odd"))?.conditions?.[1]).toMatchObject({
    type: "Failed",
    status: "True",
    reason: "SignerValidationFailure",
    message: "invalid usages for client certificate: [client auth server auth]",
  });
  expect((await statusOf("other"))?.certificate).toBeUndefined();
});

test("a kubelet's own request is approved for it", async () => {
  const node = { commonName: "system:node:a", organizations: ["system:nodes"] };
  const kubelet = {
    signerName: "kubernetes.io/kube-apiserver-client-kubelet",
    usages: ["digital signature", "client auth"],
  };
  await ask("node", node, kubelet);
  await ask("named", { ...node, dnsNames: ["a"] }, kubelet);
  await cluster.until(async () => (await statusOf("node"))?.certificate !== undefined, "is signed");
  expect((await statusOf("node"))?.conditions?.[0]).toMatchObject({ type: "Approved", reason: "AutoApproved" });
  expect(await statusOf("named")).toEqual({});
});
