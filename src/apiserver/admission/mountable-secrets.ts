// A service account annotated `kubernetes.io/enforce-mountable-secrets: "true"` lets its pods use the Secrets it names and
// no others: in volumes, variables, whole environments and pull secrets, of ephemeral containers too, which once was the
// way around it. Upstream: plugin/pkg/admission/serviceaccount, limitSecretReferences.
import type { Container, EphemeralContainer, Pod, ServiceAccount } from "#model/gen/core-v1.ts";
import { forbidden } from "#model/status.ts";
import type { AdmissionPlugin } from "./plugin.ts";

const annotation = "kubernetes.io/enforce-mountable-secrets";
/** What Go's ParseBool takes for true. */
const truths: ReadonlySet<string> = new Set(["1", "t", "T", "true", "TRUE", "True"]);

export function createMountableSecrets(): AdmissionPlugin {
  return {
    name: "ServiceAccount",
    handles: ({ operation, resource, subresource }) =>
      resource.group === "" &&
      resource.plural === "pods" &&
      (operation === "CREATE" ? subresource === "" : operation === "UPDATE" && subresource === "ephemeralcontainers"),
    async validate({ object, operation, namespace, name }, context) {
      const pod = object as Pod | undefined;
      const accountName = pod?.spec?.serviceAccountName ?? "";
      if (!pod || accountName === "") return;
      const account = await context.get<ServiceAccount>("serviceaccounts", namespace, accountName);
      if (!account || !truths.has(account.metadata.annotations?.[annotation] ?? "")) return;
      const problem = operation === "CREATE" ? problemOfPod(pod, account) : problemOfEphemeral(pod, account);
      if (problem !== undefined) throw forbidden({ group: "", resource: "pods" }, name, problem);
    },
  };
}

const namesOf = (references: readonly { readonly name?: string }[] | undefined): ReadonlySet<string> =>
  new Set((references ?? []).map(({ name = "" }) => name));

function problemOfPod({ spec }: Pod, account: ServiceAccount): string | undefined {
  const mountable = namesOf(account.secrets);
  const owner = account.metadata.name ?? "";
  for (const { secret } of spec.volumes ?? []) {
    if (!secret || mountable.has(secret.secretName ?? "")) continue;
    return `volume with secret.secretName="${secret.secretName ?? ""}" is not allowed because service account ${owner} does not reference that secret`;
  }
  const problem =
    problemOfContainers("init container", spec.initContainers ?? [], mountable, owner) ??
    problemOfContainers("container", spec.containers, mountable, owner);
  if (problem !== undefined) return problem;
  const pullable = namesOf(account.imagePullSecrets);
  for (const [i, { name = "" }] of (spec.imagePullSecrets ?? []).entries()) {
    if (pullable.has(name)) continue;
    return `imagePullSecrets[${i}].name="${name}" is not allowed because service account ${owner} does not reference that imagePullSecret`;
  }
  return undefined;
}

const problemOfEphemeral = ({ spec }: Pod, account: ServiceAccount): string | undefined =>
  problemOfContainers(
    "ephemeral container",
    spec.ephemeralContainers ?? [],
    namesOf(account.secrets),
    account.metadata.name ?? "",
  );

function problemOfContainers(
  kind: string,
  containers: readonly (Container | EphemeralContainer)[],
  mountable: ReadonlySet<string>,
  owner: string,
): string | undefined {
  for (const { name, env, envFrom } of containers) {
    const used = [
      ...(env ?? []).map((entry) => ({
        what: `envVar ${entry.name}`,
        secret: entry.valueFrom?.secretKeyRef && (entry.valueFrom.secretKeyRef.name ?? ""),
      })),
      ...(envFrom ?? []).map((entry) => ({ what: "envFrom", secret: entry.secretRef && (entry.secretRef.name ?? "") })),
    ];
    for (const { what, secret } of used) {
      if (secret === undefined || mountable.has(secret)) continue;
      return `${kind} ${name} with ${what} referencing secret.secretName="${secret}" is not allowed because service account ${owner} does not reference that secret`;
    }
  }
  return undefined;
}
