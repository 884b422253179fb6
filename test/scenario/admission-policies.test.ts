// A policy's author is told what is wrong with its expressions, once per generation.
import { afterEach, expect, test } from "vitest";
import type { ValidatingAdmissionPolicy } from "#model/gen/admissionregistration-v1.ts";
import { validatingAdmissionPolicies as policies } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

test("the status of a policy says what does not fit its kinds", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const resourceRules = [
    { apiGroups: ["apps"], apiVersions: ["v1"], operations: ["CREATE"], resources: ["deployments"] },
  ];
  const policy = (expression: string) =>
    ({
      metadata: { name: "few" },
      spec: { matchConstraints: { resourceRules }, validations: [{ expression }] },
    }) as ValidatingAdmissionPolicy;
  const status = async () => (await c.find(policies, "few"))?.status;
  await c.client.create(policies, policy("object.replicas < 5"));
  await c.until(async () => (await status())?.observedGeneration === 1, "first look");
  expect((await status())?.typeChecking?.expressionWarnings).toMatchObject(
    [
      {
        fieldRef: "spec.validations[0].expression",
        warning: /apps\/v1, Kind=Deployment: ERROR.*undefined field 'replicas'/s,
      },
    ].map(({ fieldRef, warning }) => ({ fieldRef, warning: expect.stringMatching(warning) })),
  );
  const seen = await c.client.get(policies, "few");
  await c.client.update(policies, { ...seen, spec: policy("object.spec.replicas < 5").spec });
  await c.until(async () => (await status())?.observedGeneration === 2, "second look");
  expect((await status())?.typeChecking).toEqual({});
});
