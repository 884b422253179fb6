import { afterAll, beforeAll, expect, test } from "vitest";
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import type { ClusterRole, ClusterRoleBinding } from "#model/gen/rbac-v1.ts";
import * as resources from "#model/resources.ts";
import { makeSigningRequest, type RequestSpec } from "#wire/pkcs10.fixture.ts";
import { type Kinds, openKinds, refusal } from "../kinds.fixture.ts";

let kinds: Kinds;
beforeAll(async () => {
  kinds = await openKinds();
  const grant = async (name: string, verbs: string[], names: string[]) => {
    await kinds.client.create(resources.clusterRoles, {
      metadata: { name },
      rules: [
        {
          verbs: ["get", "update", "patch"],
          apiGroups: ["certificates.k8s.io"],
          resources: ["certificatesigningrequests/approval", "certificatesigningrequests/status"],
        },
        { verbs, apiGroups: ["certificates.k8s.io"], resources: ["signers"], resourceNames: names },
      ],
    } as ClusterRole);
    await kinds.client.create(resources.clusterRoleBindings, {
      metadata: { name },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name },
      subjects: [{ kind: "User", apiGroup: "rbac.authorization.k8s.io", name }],
    } as ClusterRoleBinding);
  };
  await grant("approver", ["approve"], ["example.com/*"]);
  await grant("signer", ["sign"], ["example.com/own"]);
  await kinds.syncRbac();
});
afterAll(() => kinds.close());

const about = (name: string) => kinds.as({ name, groups: ["system:authenticated"] });
let count = 0;
async function ask(
  signerName = "example.com/own",
  spec: RequestSpec = { commonName: "c" },
): Promise<CertificateSigningRequest> {
  const request = Buffer.from(makeSigningRequest(spec).request).toString("base64");
  return kinds.client.create(resources.certificateSigningRequests, {
    metadata: { name: `r${++count}` },
    spec: { request, signerName, usages: ["client auth"] },
  } as CertificateSigningRequest);
}
const condition = (type: string, status = "True") => ({ type, status, reason: "R", message: "m" });
const approve = (who: string, { metadata }: CertificateSigningRequest, conditions: object[], annotations = {}) =>
  about(who).patch(
    resources.certificateSigningRequests,
    { name: metadata.name! },
    { metadata: { annotations }, status: { conditions } },
    { subresource: "approval" },
  ) as Promise<CertificateSigningRequest>;
const sign = (who: string, { metadata }: CertificateSigningRequest, status: object) =>
  about(who).patch(
    resources.certificateSigningRequests,
    { name: metadata.name! },
    { status },
    { subresource: "status" },
  );
const pem = (label: string) =>
  Buffer.from(`-----BEGIN ${label}-----\nAA==\n-----END ${label}-----\n`).toString("base64");

test("who has the right approves, with a note and a time", async () => {
  const made = await approve("approver", await ask(), [condition("Approved")], { note: "fine" });
  expect(made.metadata.annotations).toEqual({ note: "fine" });
  expect(made.status?.conditions?.[0]).toMatchObject({ type: "Approved", lastUpdateTime: expect.any(String) });
  expect(made.status?.conditions?.[0]?.lastTransitionTime).toBe(made.status?.conditions?.[0]?.lastUpdateTime);
});

test("who has not does not", async () => {
  expect(await refusal(approve("approver", await ask("other.com/x"), [condition("Approved")]))).toContain(
    'user not permitted to approve requests with signerName "other.com/x"',
  );
  expect(await refusal(approve("signer", await ask(), [condition("Approved")]))).toContain(
    "user not permitted to approve",
  );
  expect(await refusal(sign("approver", await ask(), { certificate: pem("CERTIFICATE") }))).toContain(
    "user not permitted to sign",
  );
});

test("a decision is one, and final", async () => {
  const request = await ask();
  expect(await refusal(approve("approver", request, [condition("Approved"), condition("Denied")]))).toContain(
    "Approved and Denied conditions are mutually exclusive",
  );
  expect(await refusal(approve("approver", request, [condition("Approved", "False")]))).toContain(
    'must be "True" for Approved',
  );
  await approve("approver", request, [condition("Approved")]);
  expect(await refusal(approve("approver", request, []))).toContain('may not remove a condition of type "Approved"');
});

test("a certificate is one, and stays", async () => {
  const request = await ask();
  expect(await refusal(sign("signer", request, { certificate: pem("PRIVATE KEY") }))).toContain(
    "must contain at least one CERTIFICATE",
  );
  expect(await refusal(sign("signer", request, { conditions: [condition("Approved")] }))).toContain(
    'may not add a condition of type "Approved"',
  );
  expect(await refusal(sign("signer", request, { certificate: pem("CERTIFICATE") }))).toBe("accepted");
  expect(
    await refusal(
      sign("signer", request, {
        certificate: Buffer.from("-----BEGIN CERTIFICATE-----\nAB==\n-----END CERTIFICATE-----\n").toString("base64"),
      }),
    ),
  ).toContain("may not set certificate content");
});

test("nobody becomes a master by certificate", async () => {
  const masters = { commonName: "c", organizations: ["system:masters"] };
  expect(await refusal(ask("kubernetes.io/kube-apiserver-client", masters))).toContain(
    "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
  );
  expect(await refusal(ask("example.com/own", masters))).toBe("accepted");
});
