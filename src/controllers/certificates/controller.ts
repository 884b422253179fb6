// certificates.k8s.io: approves what kubelets ask for themselves, signs what is approved and has a signer of ours, and
// removes requests that nobody needs any more. Upstream counterpart: pkg/controller/certificates.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import type { SubjectAccessReview } from "#model/gen/authorization-v1.ts";
import type { CertificateSigningRequest, CertificateSigningRequestCondition } from "#model/gen/certificates-v1.ts";
import { nameOf } from "#model/object.ts";
import { certificateSigningRequests, subjectAccessReviews } from "#model/resources.ts";
import type { ControllerDeps } from "../runtime/controller.ts";
import { createExpiryController, createObjectController } from "../runtime/object-controller.ts";
import { type ApprovalQuestion, approvalQuestions, cleanAfterMs, conditionOf, pemOf, planSigning } from "./plan.ts";

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

const storeOf = (deps: ControllerDeps) => deps.informers.informer(certificateSigningRequests);

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

  async function isAllowed({ spec }: CertificateSigningRequest, { subresource }: ApprovalQuestion): Promise<boolean> {
    const { username = "", uid, groups, extra } = spec;
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
    return review.status?.allowed === true;
  }

  return createObjectController(
    {
      name: "certificatesigningrequest-approving-controller",
      workers: 1,
      store: storeOf(deps),
      async sync(request) {
        const questions = approvalQuestions(request);
        for (const question of questions) {
          if (!(await isAllowed(request, question))) continue;
          const { message } = question;
          const approved = withCondition(request, { type: "Approved", reason: "AutoApproved", message }, clock.now());
          await client.update(certificateSigningRequests, approved, { subresource: "approval" });
          return;
        }
        // The right may be given later, and nothing else would make this look again.
        if (questions.length > 0) throw new Error(`nobody has allowed ${nameOf(request)} to be approved by itself`);
      },
    },
    deps,
  );
}

export function createCertificateSigning(deps: ControllerDeps, sign: SignCertificate): Service {
  const { client, clock } = deps;
  const fail = (request: CertificateSigningRequest, message: string) =>
    client.updateStatus(
      certificateSigningRequests,
      withCondition(request, { type: "Failed", reason: "SignerValidationFailure", message }, clock.now()),
    );
  return createObjectController(
    {
      name: "certificatesigningrequest-signing-controller",
      workers: 1,
      store: storeOf(deps),
      async sync(request) {
        if (request.status?.certificate || !conditionOf(request, "Approved")) return;
        if (conditionOf(request, "Denied") || conditionOf(request, "Failed")) return;
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

export const createCertificateCleaner = (deps: ControllerDeps): Service =>
  createExpiryController(
    { name: "certificatesigningrequest-cleaner-controller", store: storeOf(deps), leftMs: cleanAfterMs },
    deps,
  );
