// Who may approve and who may sign a certificate request: the right `approve` or `sign` on the signer's name or its
// domain. And nobody gets a client certificate of the group that may do everything. Upstream:
// plugin/pkg/admission/certificates.
import { rfc3339 } from "#base/clock.ts";
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import { type FieldError, fieldInvalid, forbidden, invalid } from "#model/status.ts";
import { same } from "#model/validation/checks.ts";
import { parseSigningRequest } from "#wire/pkcs10.ts";
import type { Authorizer } from "../authz/authorizer.ts";
import type { StrategyContext } from "../strategy.ts";
import type { AdmissionPlugin, AdmissionRequest } from "./plugin.ts";

const group = "certificates.k8s.io";
const about = { group, resource: "certificatesigningrequests" };
const masters = "system:masters";

const isOf = ({ resource }: Pick<AdmissionRequest, "resource">): boolean =>
  resource.group === group && resource.plural === about.resource;

async function mayUse(
  authorizer: Authorizer,
  context: StrategyContext,
  verb: string,
  signer: string,
): Promise<boolean> {
  if (context.user.groups.includes(masters)) return true;
  const domain = signer.includes("/") ? `${signer.slice(0, signer.indexOf("/"))}/*` : signer;
  for (const name of [signer, domain]) {
    const { verdict } = await authorizer.authorize({
      user: context.user,
      verb,
      resourceRequest: true,
      group,
      version: "*",
      resource: "signers",
      subresource: "",
      namespace: "",
      name,
      path: "",
    });
    if (verdict === "allow") return true;
  }
  return false;
}

export function createCertificatePlugins({ authorizer }: { readonly authorizer: Authorizer }): AdmissionPlugin[] {
  return [
    {
      name: "CertificateApproval",
      handles: (request) => isOf(request) && request.operation === "UPDATE" && request.subresource === "approval",
      async mutate(request, context) {
        fillTimes(request.object as CertificateSigningRequest, request.oldObject as CertificateSigningRequest, context);
      },
      async validate(request, context) {
        const next = request.object as CertificateSigningRequest;
        const old = request.oldObject as CertificateSigningRequest;
        const signer = old.spec.signerName;
        if (!(await mayUse(authorizer, context, "approve", signer))) {
          const why = `user not permitted to approve requests with signerName ${JSON.stringify(signer)}`;
          throw forbidden(about, request.name, why);
        }
        refuse(request, conditionErrors(next, old));
      },
    },
    {
      name: "CertificateSigning",
      handles: (request) => isOf(request) && request.operation === "UPDATE" && request.subresource === "status",
      async mutate(request, context) {
        fillTimes(request.object as CertificateSigningRequest, request.oldObject as CertificateSigningRequest, context);
      },
      async validate(request, context) {
        const next = request.object as CertificateSigningRequest;
        const old = request.oldObject as CertificateSigningRequest;
        if (same(next.status, old.status)) return;
        const signer = old.spec.signerName;
        if (!(await mayUse(authorizer, context, "sign", signer))) {
          const why = `user not permitted to sign requests with signerName ${JSON.stringify(signer)}`;
          throw forbidden(about, request.name, why);
        }
        refuse(request, [...decisionErrors(next, old), ...conditionErrors(next, old), ...certificateErrors(next, old)]);
      },
    },
    {
      name: "CertificateSubjectRestriction",
      handles: (request) => isOf(request) && request.operation === "CREATE" && request.subresource === "",
      async validate(request) {
        const { spec } = request.object as CertificateSigningRequest;
        if (spec.signerName !== "kubernetes.io/kube-apiserver-client") return;
        const parsed = parseSigningRequest(Buffer.from(spec.request, "base64").toString("latin1"));
        if (!parsed?.organizations.includes(masters)) return;
        const why = `use of ${spec.signerName} signer with ${masters} group is not allowed`;
        throw forbidden(about, request.name, why);
      },
    },
  ];
}

/** When a condition was set, where its writer does not say. */
function fillTimes(next: CertificateSigningRequest, old: CertificateSigningRequest, { clock }: StrategyContext): void {
  const { conditions } = next.status ?? {};
  if (!next.status || !conditions) return;
  const now = rfc3339(clock.now());
  next.status = {
    ...next.status,
    conditions: conditions.map((condition) => {
      const before = old.status?.conditions?.find(({ type }) => type === condition.type);
      const since = before && before.status === condition.status ? before.lastTransitionTime : undefined;
      return {
        ...condition,
        lastUpdateTime: condition.lastUpdateTime ?? now,
        lastTransitionTime: condition.lastTransitionTime ?? since ?? now,
      };
    }),
  };
}

function refuse(request: AdmissionRequest, errors: readonly FieldError[]): void {
  if (errors.length > 0) throw invalid(group, "CertificateSigningRequest", request.name, errors);
}

const final = new Set(["Approved", "Denied", "Failed"]);
const typesOf = ({ status }: CertificateSigningRequest): string[] => (status?.conditions ?? []).map(({ type }) => type);

function conditionErrors(next: CertificateSigningRequest, old: CertificateSigningRequest): FieldError[] {
  const errors: FieldError[] = [];
  const types = typesOf(next);
  const all = new Set(types);
  const seen = new Set<string>();
  for (const [index, { type, status }] of (next.status?.conditions ?? []).entries()) {
    const at = `status.conditions[${index}]`;
    if (final.has(type) && status !== "True") {
      errors.push(fieldInvalid(`${at}.status`, status, `must be "True" for ${type} conditions`));
    }
    if (type === "Denied" && all.has("Approved")) {
      errors.push(fieldInvalid(`${at}.type`, type, "Approved and Denied conditions are mutually exclusive"));
    }
    if (seen.has(type)) errors.push(fieldInvalid(`${at}.type`, type, "must be unique"));
    seen.add(type);
  }
  for (const type of typesOf(old)) {
    if (!final.has(type) || all.has(type)) continue;
    errors.push(fieldInvalid("status.conditions", types, `updates may not remove a condition of type "${type}"`));
  }
  return errors;
}

/** Approving has a path of its own. */
function decisionErrors(next: CertificateSigningRequest, old: CertificateSigningRequest): FieldError[] {
  const before = new Set(typesOf(old));
  return typesOf(next)
    .filter((type) => (type === "Approved" || type === "Denied") && !before.has(type))
    .map((type) => fieldInvalid("status.conditions", type, `updates may not add a condition of type "${type}"`));
}

function certificateErrors(next: CertificateSigningRequest, old: CertificateSigningRequest): FieldError[] {
  const now = next.status?.certificate ?? "";
  const before = old.status?.certificate ?? "";
  const path = "status.certificate";
  if (before !== "" && now !== before) {
    return [
      fieldInvalid(path, now, "updates may not set certificate content if existing certificate content is present"),
    ];
  }
  if (now === "" || now === before) return [];
  const text = Buffer.from(now, "base64").toString("latin1");
  const block = /-----BEGIN ([A-Z0-9 ]+)-----\n/.exec(text)?.[1];
  return block === "CERTIFICATE"
    ? []
    : [fieldInvalid(path, "<certificate data>", "must contain at least one CERTIFICATE PEM block")];
}
