// Token secrets that were made for accounts by old clusters and that nobody has used for a year: first marked as invalid, so
// that who still needs one finds out and can take the mark off, and deleted after another year. Only secrets that their
// account names are meant; one that somebody made by hand stays. When a token was used the API server writes on its secret.
// Upstream counterpart: pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go, legacytokentracking.
import type { Service } from "#base/service.ts";
import type { Pod, Secret, ServiceAccount } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { configMaps, pods, secrets, serviceAccounts } from "#model/resources.ts";
import { isAlreadyExists, isConflict, isNotFound } from "#model/status.ts";
import { invalidSinceLabel, lastUsedLabel } from "#model/token-secrets.ts";
import { type ControllerDeps, waitFor } from "../runtime/controller.ts";
import { createPeriodicController } from "../runtime/periodic-controller.ts";
import { deleteIfThere } from "../runtime/writes.ts";

const trackingName = "kube-apiserver-legacy-service-account-token-tracking";
const dayMs = 24 * 3_600_000;
const nameAnnotation = "kubernetes.io/service-account.name";
const uidAnnotation = "kubernetes.io/service-account.uid";

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
const dayPattern = /^\d{4}-\d{2}-\d{2}$/;
const isDay = (text: string | undefined): text is string =>
  text !== undefined && dayPattern.test(text) && !Number.isNaN(Date.parse(text));

/** What is to be done about a secret. `isMounted`: a pod has it as a volume or variable. */
export function judgeTokenSecret(
  secret: Secret,
  account: ServiceAccount | undefined,
  isMounted: boolean,
  { nowMs, unusedMs }: { readonly nowMs: number; readonly unusedMs: number },
): "keep" | "mark" | "delete" {
  const since = dayOf(nowMs - unusedMs);
  const { creationTimestamp = "", labels = {}, annotations = {} } = secret.metadata;
  if (isDeleting(secret) || !(Date.parse(creationTimestamp) < nowMs - unusedMs)) return "keep";
  const lastUsed = labels[lastUsedLabel];
  if (lastUsed !== undefined && (!isDay(lastUsed) || lastUsed >= since)) return "keep";
  const uid = annotations[uidAnnotation] ?? "";
  const isItsOwn = account !== undefined && (uid === "" || uid === uidOf(account));
  if (!isItsOwn || !account.secrets?.some(({ name }) => name === nameOf(secret)) || isMounted) return "keep";
  const invalidSince = labels[invalidSinceLabel];
  if (!isDay(invalidSince)) return "mark";
  return invalidSince >= since ? "keep" : "delete";
}

/** Names of the secrets that a pod reads, wherever it may name one. */
function* secretNamesOf(pod: Pod): Iterable<string | undefined> {
  for (const reference of pod.spec.imagePullSecrets ?? []) yield reference.name;
  for (const volume of pod.spec.volumes ?? []) {
    yield volume.secret?.secretName;
    yield volume.csi?.nodePublishSecretRef?.name;
    for (const source of volume.projected?.sources ?? []) yield source.secret?.name;
  }
  const { containers, initContainers = [], ephemeralContainers = [] } = pod.spec;
  for (const { env = [], envFrom = [] } of [...containers, ...initContainers, ...ephemeralContainers]) {
    for (const variable of env) yield variable.valueFrom?.secretKeyRef?.name;
    for (const source of envFrom) yield source.secretRef?.name;
  }
}

/** `unusedMs`: from the last use to the mark, and from the mark to the end. */
export function createLegacyTokenCleaner(deps: ControllerDeps, { unusedMs }: { readonly unusedMs: number }): Service {
  const { client, clock } = deps;
  const store = deps.informers.informer(secrets, { fieldSelector: "type=kubernetes.io/service-account-token" });
  const accountStore = deps.informers.informer(serviceAccounts);
  const podStore = deps.informers.informer(pods);

  /** Since when uses are written down; starts with the first round ever. */
  async function trackedSinceMs(): Promise<number | undefined> {
    const namespace = "kube-system";
    try {
      const { data } = await client.get(configMaps, trackingName, namespace);
      const since = data?.["since"];
      // The first day may have been tracked in part.
      return isDay(since) ? Date.parse(since) + dayMs : undefined;
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    const data = { since: dayOf(clock.now()) };
    try {
      await client.create(configMaps, { metadata: { name: trackingName, namespace }, data });
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
    return undefined;
  }

  async function clean(secret: Secret): Promise<void> {
    const namespace = namespaceOf(secret);
    const account = accountStore.get(`${namespace}/${secret.metadata.annotations?.[nameAnnotation] ?? ""}`);
    const isMounted = podStore.list(namespace).some((pod) => [...secretNamesOf(pod)].includes(nameOf(secret)));
    const verdict = judgeTokenSecret(secret, account, isMounted, { nowMs: clock.now(), unusedMs });
    if (verdict === "keep") return;
    const { uid, resourceVersion = "" } = secret.metadata;
    try {
      if (verdict === "delete") {
        await deleteIfThere(client, secrets, secret, { preconditions: { resourceVersion } });
      } else {
        const labels = { [invalidSinceLabel]: dayOf(clock.now()) };
        await client.patch(secrets, { name: nameOf(secret), namespace }, { metadata: { uid, labels } });
      }
      deps.log.info("unused token secret", { secret: `${namespace}/${nameOf(secret)}`, what: verdict });
    } catch (error) {
      // Tomorrow is another day.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }

  return createPeriodicController(
    {
      name: "legacy-serviceaccount-token-cleaner-controller",
      periodMs: dayMs,
      triggers: [waitFor(store), waitFor(accountStore), waitFor(podStore)],
      async round() {
        const sinceMs = await trackedSinceMs();
        if (sinceMs === undefined || clock.now() < sinceMs + unusedMs) return;
        for (const secret of store.list()) await clean(secret);
      },
    },
    deps,
  );
}
