// Makes sure a container's image is there, by pull policy, with back-off between failed pulls. An image that is present is
// never pulled unless the policy says Always: an edge node must start its pods without a registry.
// Texts and reasons are the kubelet's image manager's.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Container, Pod, Secret } from "#model/gen/core-v1.ts";
import type { Image } from "#wire/gen/cri.ts";
import { type Credentials, matchCredentials, secretCredentials } from "../credentials.ts";
import type { Cri } from "../cri.ts";
import { BackOff } from "./back-off.ts";
import type { Waiting } from "./plan.ts";

export type ImageOutcome =
  | { readonly ok: true; readonly image: Image }
  | { readonly ok: false; readonly waiting: Waiting; readonly retryAtMs: number };

export interface ImagePullerDeps {
  readonly cri: Cri;
  readonly clock: Clock;
  readonly backOff: BackOff;
  readonly event: (type: "Normal" | "Warning", reason: string, message: string) => void;
  readonly secret: (name: string) => Promise<Secret | undefined>;
  readonly credentials: (image: string) => Promise<readonly Credentials[]>;
  readonly signal: AbortSignal;
}

export const createPullBackOff = (): BackOff => new BackOff({ initialMs: 10_000, maxMs: 300_000 });
/** When no pull can help, look again at the kubelet's sync pace. */
const recheckMs = 10_000;

/** Registry, path in lower case, tag, digest: distribution's grammar of references, and bare ids. */
const imageName =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9.-]*[a-zA-Z0-9]|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\/)?[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$/;

export function pullPolicy(container: Container): string {
  if (container.imagePullPolicy) return container.imagePullPolicy;
  const image = container.image ?? "";
  const tag = image.includes("@") ? "digest" : (/:([^/:]+)$/.exec(image)?.[1] ?? "latest");
  return tag === "latest" ? "Always" : "IfNotPresent";
}

export async function ensureImage(pod: Pod, container: Container, deps: ImagePullerDeps): Promise<ImageOutcome> {
  const { cri, clock, event } = deps;
  const name = container.image ?? "";
  const policy = pullPolicy(container);
  if (!imageName.test(name)) {
    const message = `Failed to apply default image tag "${name}": couldn't parse image name "${name}": invalid reference format`;
    event("Warning", "InspectFailed", message);
    event("Warning", "Failed", "Error: InvalidImageName");
    return { ok: false, waiting: { reason: "InvalidImageName", message }, retryAtMs: clock.now() + recheckMs };
  }
  const present = await cri.imageStatus(name);
  if (present && policy !== "Always") {
    event("Normal", "Pulled", `Container image "${name}" already present on machine`);
    return { ok: true, image: present };
  }
  if (!present && policy === "Never") {
    event("Warning", "ErrImageNeverPull", `Container image "${name}" is not present with pull policy of Never`);
    const message = `Container image "${name}" is not present with pull policy of Never`;
    return { ok: false, waiting: { reason: "ErrImageNeverPull", message }, retryAtMs: clock.now() + recheckMs };
  }
  const key = `${pod.metadata.uid}/${name}`;
  const startedMs = clock.monotonicMs();
  event("Normal", "Pulling", `Pulling image "${name}"`);
  try {
    await pullWithSecrets(pod, name, deps);
    const image = await cri.imageStatus(name);
    if (!image) throw new Error(`image "${name}" is not there after it was pulled`);
    deps.backOff.forget(key);
    const took = `${((clock.monotonicMs() - startedMs) / 1000).toFixed(3)}s`;
    event(
      "Normal",
      "Pulled",
      `Successfully pulled image "${name}" in ${took} (${took} including waiting). Image size: ${Number(image.size)} bytes.`,
    );
    return { ok: true, image };
  } catch (error) {
    deps.signal.throwIfAborted();
    const nowMs = clock.now();
    deps.backOff.next(key, nowMs, nowMs);
    const retryAtMs = nowMs + deps.backOff.delayMs(key, nowMs);
    event("Warning", "Failed", `Failed to pull image "${name}": ${messageOf(error)}`);
    event("Warning", "Failed", "Error: ErrImagePull");
    return { ok: false, waiting: { reason: "ErrImagePull", message: messageOf(error) }, retryAtMs };
  }
}

/** What a container waits with between two tries. */
export const pullWaiting = (container: Container): Waiting => ({
  reason: "ImagePullBackOff",
  message: `Back-off pulling image "${container.image ?? ""}"`,
});

/** With everything that fits the image, the pod's own first; without anything the registry decides. */
async function pullWithSecrets(pod: Pod, image: string, deps: ImagePullerDeps): Promise<void> {
  const secrets = new Map<string, Credentials>();
  for (const reference of pod.spec.imagePullSecrets ?? []) {
    const own = secretCredentials(await deps.secret(reference.name ?? ""));
    for (const [pattern, credentials] of own) if (!secrets.has(pattern)) secrets.set(pattern, credentials);
  }
  const all = [...matchCredentials(secrets, image), ...(await deps.credentials(image))];
  let failure: unknown;
  for (const { username, password, identityToken, server } of all) {
    try {
      const auth = {
        ...{ username, password },
        ...(identityToken ? { identityToken } : {}),
        ...(server ? { serverAddress: server } : {}),
      };
      await deps.cri.pullImage(image, auth, deps.signal);
      return;
    } catch (error) {
      deps.signal.throwIfAborted();
      failure = error;
    }
  }
  if (all.length > 0) throw failure;
  await deps.cri.pullImage(image, undefined, deps.signal);
}
