// certificates.k8s.io: approves what kubelets ask for themselves, signs what is approved and has a signer of ours, and
// removes requests that nobody needs any more. Upstream counterpart: pkg/controller/certificates.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { SubjectAccessReview } from "#model/gen/authorization-v1.ts";
import type { CertificateSigningRequest, CertificateSigningRequestCondition } from "#model/gen/certificates-v1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { certificateSigningRequests, subjectAccessReviews } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { approvalQuestions, cleanAfterMs, conditionOf, pemOf, planSigning } from "./plan.ts";

export interface CertificateOrder {
  readonly authority: "client" | "server";
  /** PEM of the request. */
  readonly request: string;
  readonly usages: readonly string[];
  readonly lifetimeSeconds: number;
}
/** PEM of the certificate. Throws where the request cannot be signed. */
export type SignCertificate = (order: CertificateOrder) => string;

/** Upstream's --cluster-signing-duration. */
const longestSeconds = 365 * 24 * 3600;
const shortestSeconds = 600;

function withCondition(
  request: CertificateSigningRequest,
  condition: Pick<CertificateSigningRequestCondition, "type" | "reason" | "message">,
  nowMs: number,
): CertificateSigningRequest {
  const now = rfc3339(nowMs);
  const whole = { ...condition, status: "True", lastUpdateTime: now, lastTransitionTime: now };
  return { ...request, status: { ...request.status, conditions: [...(request.status?.conditions ?? []), whole] } };
}

export function createCertificateApprover(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const store = deps.informers.informer(certificateSigningRequests);
  return createController(
    {
      name: "certificatesigningrequest-approving-controller",
      workers: 1,
      triggers: [on(store)],
      async sync(name) {
        const request = store.get(name);
        if (!request || isDeleting(request)) return;
        for (const { subresource, message } of approvalQuestions(request)) {
          const { username = "", uid, groups, extra } = request.spec;
          const review = await client.create(subjectAccessReviews, {
            metadata: {},
            spec: {
              user: username,
              ...(uid === undefined ? {} : { uid }),
              ...(groups === undefined ? {} : { groups }),
              ...(extra === undefined ? {} : { extra }),
              resourceAttributes: {
                group: "certificates.k8s.io",
                resource: "certificatesigningrequests",
                verb: "create",
                subresource,
              },
            },
          } as SubjectAccessReview);
          if (review.status?.allowed !== true) continue;
          const approved = withCondition(request, { type: "Approved", reason: "AutoApproved", message }, clock.now());
          await client.update(certificateSigningRequests, approved, { subresource: "approval" });
          return;
        }
      },
    },
    deps,
  );
}

export function createCertificateSigning(deps: ControllerDeps, sign: SignCertificate): Service {
  const { client, clock } = deps;
  const store = deps.informers.informer(certificateSigningRequests);
  const fail = (request: CertificateSigningRequest, message: string) =>
    client.updateStatus(
      certificateSigningRequests,
      withCondition(request, { type: "Failed", reason: "SignerValidationFailure", message }, clock.now()),
    );
  return createController(
    {
      name: "certificatesigningrequest-signing-controller",
      workers: 1,
      triggers: [on(store)],
      async sync(name) {
        const request = store.get(name);
        if (!request || isDeleting(request) || request.status?.certificate) return;
        if (!conditionOf(request, "Approved") || conditionOf(request, "Denied") || conditionOf(request, "Failed"))
          return;
        const plan = planSigning(request);
        if (plan.do === "ignore") return;
        if (plan.do === "fail") {
          await fail(request, plan.message);
          return;
        }
        const asked = request.spec.expirationSeconds ?? longestSeconds;
        const lifetimeSeconds = Math.max(shortestSeconds, Math.min(asked, longestSeconds));
        let pem: string;
        try {
          pem = sign({
            authority: plan.authority,
            request: pemOf(request),
            usages: request.spec.usages ?? [],
            lifetimeSeconds,
          });
        } catch (error) {
          await fail(request, messageOf(error));
          return;
        }
        const certificate = Buffer.from(pem, "latin1").toString("base64");
        await client.updateStatus(certificateSigningRequests, {
          ...request,
          status: { ...request.status, certificate },
        });
      },
    },
    deps,
  );
}

export function createCertificateCleaner(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const store = deps.informers.informer(certificateSigningRequests);
  return createController(
    {
      name: "certificatesigningrequest-cleaner-controller",
      workers: 1,
      triggers: [on(store)],
      async sync(name, again) {
        const request = store.get(name);
        if (!request || isDeleting(request)) return;
        const waitMs = cleanAfterMs(request, clock.now());
        if (waitMs > 0) {
          again(waitMs);
          return;
        }
        try {
          const preconditions = { ...(request.metadata.uid === undefined ? {} : { uid: request.metadata.uid }) };
          await client.delete(certificateSigningRequests, { name: nameOf(request) }, { preconditions });
        } catch (error) {
          if (!isNotFound(error)) throw error;
        }
      },
    },
    deps,
  );
}
