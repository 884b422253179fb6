// What certificates.k8s.io's own signers sign, and what is approved without asking anybody. Pure. Upstream counterpart:
// pkg/controller/certificates/{signer,approver} and pkg/apis/certificates/v1/helpers.go.
import type { CertificateSigningRequest } from "#model/gen/certificates-v1.ts";
import { parseSigningRequest } from "#wire/pkcs10.ts";

export const signerNames = {
  client: "kubernetes.io/kube-apiserver-client",
  kubeletClient: "kubernetes.io/kube-apiserver-client-kubelet",
  kubeletServing: "kubernetes.io/kubelet-serving",
  legacy: "kubernetes.io/legacy-unknown",
} as const;

const nodesGroup = "system:nodes";
const nodePrefix = "system:node:";
const encipherment = "key encipherment";
const signature = "digital signature";

export const pemOf = (request: CertificateSigningRequest): string =>
  Buffer.from(request.spec.request ?? "", "base64").toString("latin1");

export const conditionOf = (request: CertificateSigningRequest, type: "Approved" | "Denied" | "Failed") =>
  request.status?.conditions?.find((condition) => condition.type === type);

type Parsed = NonNullable<ReturnType<typeof parseSigningRequest>>;

/** `sign` by that authority; `fail` for a request that its signer must not sign; `ignore` where the signer is not ours. */
export type SigningPlan =
  | { readonly do: "sign"; readonly authority: "client" | "server" }
  | { readonly do: "fail"; readonly message: string }
  | { readonly do: "ignore" };

export function planSigning(request: CertificateSigningRequest): SigningPlan {
  const { signerName, usages = [] } = request.spec;
  if (!(Object.values(signerNames) as string[]).includes(signerName)) return { do: "ignore" };
  const parsed = parseSigningRequest(pemOf(request));
  if (!parsed?.isSignatureValid) return { do: "fail", message: "unable to parse csr" };
  switch (signerName) {
    case signerNames.client: {
      const allowed = [signature, encipherment, "client auth"];
      const wrong = usages.filter((usage) => !allowed.includes(usage));
      if (wrong.length > 0 || !usages.includes("client auth")) {
        return { do: "fail", message: `invalid usages for client certificate: ${goList(usages)}` };
      }
      return { do: "sign", authority: "client" };
    }
    case signerNames.kubeletClient: {
      const message = kubeletClientProblem(parsed, usages);
      return message === undefined ? { do: "sign", authority: "client" } : { do: "fail", message };
    }
    case signerNames.kubeletServing: {
      const message = kubeletServingProblem(parsed, usages);
      return message === undefined ? { do: "sign", authority: "server" } : { do: "fail", message };
    }
    default:
      // Whoever approved it knew why.
      return { do: "sign", authority: "client" };
  }
}

const goList = (values: readonly string[]): string => `[${values.join(" ")}]`;
const isNodesOnly = ({ organizations }: Parsed): boolean =>
  organizations.length === 1 && organizations[0] === nodesGroup;
const areUsages = (usages: readonly string[], purpose: string): boolean => {
  const wanted = [signature, purpose];
  const rest = usages.filter((usage) => usage !== encipherment);
  return rest.length === wanted.length && wanted.every((usage) => rest.includes(usage));
};

export function kubeletClientProblem(parsed: Parsed, usages: readonly string[]): string | undefined {
  if (!isNodesOnly(parsed)) return "subject organization is not system:nodes";
  if (parsed.dnsNames.length > 0) return "DNS subjectAltNames are not allowed";
  if (parsed.emailAddresses.length > 0) return "Email subjectAltNames are not allowed";
  if (parsed.ips.length > 0) return "IP subjectAltNames are not allowed";
  if (parsed.uris.length > 0) return "URI subjectAltNames are not allowed";
  if (!parsed.commonName.startsWith(nodePrefix)) return "subject common name does not begin with system:node:";
  if (!areUsages(usages, "client auth"))
    return `usages did not match ${goList([signature, encipherment, "client auth"])}`;
  return undefined;
}

/** Nodes know a server by such a name: nothing that one of them has asked for may have it. */
const isOfServers = (name: string): boolean => /^(?:kubernetes(?:\..*)?|(?:.*\.)?localhost|\*.*)$/i.test(name);

function kubeletServingProblem(parsed: Parsed, usages: readonly string[]): string | undefined {
  if (!isNodesOnly(parsed)) return "subject organization is not system:nodes";
  if (parsed.dnsNames.length === 0 && parsed.ips.length === 0) return "DNS or IP subjectAltName is required";
  if (parsed.dnsNames.some(isOfServers)) return "DNS subjectAltNames of servers are not allowed";
  if (parsed.emailAddresses.length > 0) return "Email subjectAltNames are not allowed";
  if (parsed.uris.length > 0) return "URI subjectAltNames are not allowed";
  if (!parsed.commonName.startsWith(nodePrefix)) return "subject common name does not begin with system:node:";
  if (!areUsages(usages, "server auth"))
    return `usages did not match ${goList([signature, encipherment, "server auth"])}`;
  return undefined;
}

/** Which right makes a kubelet's own request good, in the order in which they are asked for. */
export interface ApprovalQuestion {
  readonly subresource: "selfnodeclient" | "nodeclient";
  readonly message: string;
}

export function approvalQuestions(request: CertificateSigningRequest): readonly ApprovalQuestion[] {
  const { signerName, usages = [], username } = request.spec;
  if (signerName !== signerNames.kubeletClient) return [];
  if (conditionOf(request, "Approved") || conditionOf(request, "Denied") || request.status?.certificate) return [];
  const parsed = parseSigningRequest(pemOf(request));
  if (!parsed || kubeletClientProblem(parsed, usages) !== undefined) return [];
  const ending = "kubelet client certificate after SubjectAccessReview.";
  const own: ApprovalQuestion = { subresource: "selfnodeclient", message: `Auto approving self ${ending}` };
  const first: ApprovalQuestion = { subresource: "nodeclient", message: `Auto approving ${ending}` };
  return parsed.commonName === username ? [own, first] : [first];
}

/** How long requests are kept once nothing more will come of them. */
const keptMs = { pending: 24 * 3600_000, done: 3600_000 } as const;

/** Milliseconds until the request may go; zero or less: now. */
export function cleanAfterMs(request: CertificateSigningRequest, nowMs: number): number {
  const created = Date.parse(request.metadata.creationTimestamp ?? "");
  let dueMs = created + keptMs.pending;
  for (const condition of request.status?.conditions ?? []) {
    const isIssued = condition.type === "Approved" && request.status?.certificate;
    if (condition.type === "Approved" && !isIssued) continue;
    const since = Date.parse(condition.lastUpdateTime ?? condition.lastTransitionTime ?? "") || created;
    dueMs = Math.min(dueMs, since + keptMs.done);
  }
  // Approved and waiting for its signer: as long as one that is pending.
  return dueMs - nowMs;
}
