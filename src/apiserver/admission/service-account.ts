// ServiceAccount: a pod that names no account gets `default`; the account must exist; its token, the cluster's authority
// and the namespace are mounted into every container as one projected volume. Upstream:
// plugin/pkg/admission/serviceaccount.
import { type Random, randomSuffix } from "#base/clock.ts";
import type { Container, Pod, ServiceAccount, Volume } from "#model/gen/core-v1.ts";
import { badRequest, forbidden } from "#model/status.ts";
import type { StrategyContext } from "../strategy.ts";
import type { AdmissionPlugin } from "./plugin.ts";

const tokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount";
const volumePrefix = "kube-api-access-";
/** An hour and seven seconds: upstream's mark for "asked for by admission, not by the user". */
const tokenExpirationSeconds = 3607;
const mirrorAnnotation = "kubernetes.io/config.mirror";

export function createServiceAccount(dependencies: { readonly random: Random }): AdmissionPlugin {
  return {
    name: "ServiceAccount",
    handles: ({ operation, resource, subresource }) =>
      operation === "CREATE" && resource.group === "" && resource.plural === "pods" && subresource === "",
    async mutate(request, context) {
      const pod = request.object as Pod | undefined;
      if (!pod?.spec || pod.metadata.annotations?.[mirrorAnnotation] !== undefined) return;
      if (!pod.spec.serviceAccountName) pod.spec.serviceAccountName = "default";
      pod.spec.serviceAccount = pod.spec.serviceAccountName;
      const name = pod.spec.serviceAccountName;
      const account = await findAccount(request.namespace, name, dependencies.random, context);
      if (!account) {
        const why = `error looking up service account ${request.namespace}/${name}: serviceaccount "${name}" not found`;
        throw forbidden({ group: "", resource: "pods" }, request.name, why);
      }
      const wantsToken = pod.spec.automountServiceAccountToken ?? account.automountServiceAccountToken ?? true;
      if (wantsToken) mountToken(pod, dependencies.random);
      if ((pod.spec.imagePullSecrets ?? []).length === 0 && account.imagePullSecrets) {
        pod.spec.imagePullSecrets = account.imagePullSecrets.map((reference) => ({ ...reference }));
      }
    },
    async validate(request) {
      const pod = request.object as Pod | undefined;
      if (pod?.metadata.annotations?.[mirrorAnnotation] === undefined) return;
      if (pod.spec.serviceAccountName) throw badRequest("a mirror pod may not reference service accounts");
      const projected = pod.spec.volumes?.flatMap((volume) => volume.projected?.sources ?? []) ?? [];
      if (projected.some((source) => source.serviceAccountToken)) {
        throw badRequest("a mirror pod may not use ServiceAccountToken volume projections");
      }
    },
  };
}

/** A new namespace gets its `default` account a moment later; a pod that comes with it waits that long, as upstream. */
const defaultAttempts = 10;

async function findAccount(
  namespace: string,
  name: string,
  random: Random,
  context: StrategyContext,
): Promise<ServiceAccount | undefined> {
  const attempts = name === "default" ? defaultAttempts : 1;
  for (let attempt = 1; ; attempt++) {
    const account = await context.get<ServiceAccount>("serviceaccounts", namespace, name);
    if (account || attempt >= attempts) return account;
    await context.clock.sleep(100 + random.float() * 100);
  }
}

function mountToken(pod: Pod, random: Random): void {
  const containers: Container[] = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
  const needy = containers.filter((c) => !c.volumeMounts?.some((mount) => mount.mountPath === tokenMountPath));
  if (needy.length === 0) return;
  let name = pod.spec.volumes?.find((volume) => volume.name?.startsWith(volumePrefix) && volume.projected)?.name;
  if (name === undefined) {
    name = volumePrefix + randomSuffix(random);
    pod.spec.volumes = [...(pod.spec.volumes ?? []), tokenVolume(name)];
  }
  for (const container of needy) {
    container.volumeMounts = [...(container.volumeMounts ?? []), { name, readOnly: true, mountPath: tokenMountPath }];
  }
}

function tokenVolume(name: string): Volume {
  return {
    name,
    projected: {
      defaultMode: 0o644,
      sources: [
        { serviceAccountToken: { expirationSeconds: tokenExpirationSeconds, path: "token" } },
        { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
        {
          downwardAPI: {
            items: [{ path: "namespace", fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } }],
          },
        },
      ],
    },
  };
}
