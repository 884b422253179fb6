// Makes sure a container's image is there, by pull policy, with back-off between failed pulls. An image that is present is
// never pulled unless the policy says Always: an edge node must start its pods without a registry.
// Texts and reasons are the kubelet's image manager's.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Container, Pod, Secret } from "#model/gen/core-v1.ts";
import type { Image } from "#wire/gen/cri.ts";
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
  readonly signal: AbortSignal;
}

export const createPullBackOff = (): BackOff => new BackOff({ initialMs: 10_000, maxMs: 300_000 });
/** When no pull can help, look again at the kubelet's sync pace. */
const recheckMs = 10_000;

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

async function pullWithSecrets(pod: Pod, image: string, deps: ImagePullerDeps): Promise<void> {
  let failure: unknown;
  let tried = 0;
  for (const reference of pod.spec.imagePullSecrets ?? []) {
    const secret = await deps.secret(reference.name ?? "");
    for (const auth of credentialsFor(secret, image)) {
      tried++;
      try {
        await deps.cri.pullImage(image, auth, deps.signal);
        return;
      } catch (error) {
        deps.signal.throwIfAborted();
        failure = error;
      }
    }
  }
  if (tried > 0) throw failure;
  await deps.cri.pullImage(image, undefined, deps.signal);
}

interface DockerAuth {
  readonly username?: string;
  readonly password?: string;
  readonly auth?: string;
}

/** Entries of a docker config secret whose registry the image comes from. */
export function credentialsFor(secret: Secret | undefined, image: string): { username: string; password: string }[] {
  const raw = secret?.data?.[".dockerconfigjson"] ?? secret?.data?.[".dockercfg"];
  if (!raw) return [];
  let parsed: { auths?: Record<string, DockerAuth> } | Record<string, DockerAuth>;
  try {
    parsed = JSON.parse(Buffer.from(raw, "base64").toString("utf8"));
  } catch {
    // A broken secret gives no credentials; the pull then fails with the registry's own words.
    return [];
  }
  const auths = ("auths" in parsed ? parsed.auths : parsed) as Record<string, DockerAuth> | undefined;
  const first = image.split("/")[0] ?? "";
  const host = image.includes("/") && /[.:]|^localhost$/.test(first) ? first : "docker.io";
  const out: { username: string; password: string }[] = [];
  for (const [server, entry] of Object.entries(auths ?? {})) {
    const name = server.replace(/^https?:\/\//, "").split("/")[0];
    if (name !== host && !(host === "docker.io" && name === "index.docker.io")) continue;
    const [username, ...rest] = entry.auth ? Buffer.from(entry.auth, "base64").toString("utf8").split(":") : [];
    out.push({ username: entry.username ?? username ?? "", password: entry.password ?? rest.join(":") });
  }
  return out;
}
