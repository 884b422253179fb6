// Who to be when an image is pulled: credentials by registry patterns, from pull secrets, registries.yaml and credential
// provider programs, and the matching of a pattern against an image. The most specific pattern comes first; all that match
// are tried. Counterpart: pkg/credentialprovider (keyring, plugin).

import type { Clock } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { readFileIfExists } from "#platform/files.ts";
import type { Commands } from "#platform/processes.ts";
import { parseYaml } from "#wire/yaml.ts";

export interface Credentials {
  readonly username: string;
  readonly password: string;
  readonly identityToken?: string;
  /** The only server they are for; absent: whichever asks. */
  readonly server?: string;
}

/** An image's registry and path: names without a host are Docker's. */
export function imageLocation(image: string): { readonly host: string; readonly path: string } {
  const name = image.split("@")[0]!.replace(/:[^:/]+$/, "");
  const [first = "", ...rest] = name.split("/");
  if (rest.length > 0 && (/[.:]/.test(first) || first === "localhost")) return { host: first, path: rest.join("/") };
  return { host: "docker.io", path: rest.length === 0 ? `library/${name}` : name };
}

/** `registry.io`, `*.registry.io:8080/team`: parts of the host may be globs, the path is a prefix. */
export function patternMatches(pattern: string, image: string): boolean {
  const { host, path } = imageLocation(image);
  const [given = "", ...rest] = pattern.replace(/^https?:\/\//, "").split("/");
  // Docker's own key, and the version path that old files carry.
  const wanted = given === "index.docker.io" || given === "registry-1.docker.io" ? "docker.io" : given;
  const prefix = rest
    .join("/")
    .replace(/^v[12]\/?$/, "")
    .replace(/\/$/, "");
  const [hostName = "", hostPort = ""] = host.split(":");
  const [wantedName = "", wantedPort = ""] = wanted.split(":");
  if (wantedPort !== hostPort) return false;
  const parts = hostName.split(".");
  const globs = wantedName.split(".");
  if (parts.length !== globs.length) return false;
  if (!globs.every((glob, i) => globFits(glob, parts[i]!))) return false;
  return prefix === "" || path === prefix || path.startsWith(`${prefix}/`) || path.startsWith(prefix);
}

/** `*` stands for anything. Not by a regular expression: patterns come from secrets, and twenty stars would take for ever. */
function globFits(glob: string, text: string): boolean {
  const [head = "", ...rest] = glob.split("*");
  const tail = rest.pop();
  if (tail === undefined) return text === glob;
  if (!text.startsWith(head)) return false;
  let at = head.length;
  for (const part of rest) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.length - tail.length >= at && text.endsWith(tail);
}

/** Those that fit the image, most specific first. */
export function matchCredentials(all: ReadonlyMap<string, Credentials>, image: string): Credentials[] {
  return [...all]
    .filter(([pattern]) => patternMatches(pattern, image))
    .sort(([a], [b]) => b.length - a.length)
    .map(([, credentials]) => credentials);
}

interface Login {
  readonly username?: string;
  readonly password?: string;
  /** Both, with a colon between them, in base64. */
  readonly auth?: string;
}
interface DockerAuth extends Login {
  readonly identitytoken?: string;
}

export function loginOf({ username, password, auth }: Login): { readonly username: string; readonly password: string } {
  const [user, ...rest] = auth ? Buffer.from(auth, "base64").toString("utf8").split(":") : [];
  return { username: username ?? user ?? "", password: password ?? rest.join(":") };
}

/** Of a docker config secret; a broken one gives none, and the pull fails with the registry's own words. */
export function secretCredentials(secret: Secret | undefined): ReadonlyMap<string, Credentials> {
  const out = new Map<string, Credentials>();
  const raw = secret?.data?.[".dockerconfigjson"] ?? secret?.data?.[".dockercfg"];
  if (!raw) return out;
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(raw, "base64").toString("utf8"));
  } catch {
    return out;
  }
  if (typeof parsed !== "object" || parsed === null) return out;
  const auths = ("auths" in parsed ? parsed.auths : parsed) as Record<string, DockerAuth> | undefined;
  for (const [server, entry] of Object.entries(auths ?? {})) {
    if (typeof entry !== "object" || entry === null) continue;
    out.set(server, {
      ...loginOf(entry),
      ...(entry.identitytoken ? { identityToken: entry.identitytoken } : {}),
    });
  }
  return out;
}

interface Provider {
  readonly name: string;
  readonly matchImages: readonly string[];
  readonly defaultCacheDuration?: string;
  readonly apiVersion: string;
  readonly args?: readonly string[];
  readonly env?: readonly { readonly name: string; readonly value: string }[];
}

/** Asks the programs of a CredentialProviderConfig, and keeps their answers as long as they allow. */
export class CredentialProviders {
  readonly #configPath: string;
  #providers: readonly Provider[] | undefined;
  readonly #binFolder: string;
  readonly #deps: { readonly commands: Commands; readonly clock: Clock; readonly log: Logger };
  readonly #kept = new Map<string, { readonly untilMs: number; readonly auths: ReadonlyMap<string, Credentials> }>();

  constructor(
    configPath: string,
    binFolder: string,
    deps: { readonly commands: Commands; readonly clock: Clock; readonly log: Logger },
  ) {
    this.#configPath = configPath;
    this.#binFolder = binFolder;
    this.#deps = deps;
  }

  async credentials(image: string): Promise<Credentials[]> {
    const out: Credentials[] = [];
    this.#providers ??= await readProviders(this.#configPath);
    for (const provider of this.#providers) {
      if (!provider.matchImages.some((pattern) => patternMatches(pattern, image))) continue;
      try {
        out.push(...matchCredentials(await this.#ask(provider, image), image));
      } catch (error) {
        // The image may be public, or another provider may know.
        this.#deps.log.warn("credential provider failed", { provider: provider.name, error: messageOf(error) });
      }
    }
    return out;
  }

  async #ask(provider: Provider, image: string): Promise<ReadonlyMap<string, Credentials>> {
    const { commands, clock } = this.#deps;
    const { host } = imageLocation(image);
    const keys = [`${provider.name} image ${image}`, `${provider.name} registry ${host}`, `${provider.name} global`];
    for (const key of keys) {
      const known = this.#kept.get(key);
      if (known && clock.monotonicMs() < known.untilMs) return known.auths;
    }
    const request = { kind: "CredentialProviderRequest", apiVersion: provider.apiVersion, image };
    const result = await commands.run(`${this.#binFolder}/${provider.name}`, provider.args ?? [], {
      input: JSON.stringify(request),
      env: Object.fromEntries((provider.env ?? []).map(({ name, value }) => [name, value])),
      timeoutMs: providerTimeoutMs,
      maxOutputBytes: maxAnswerBytes,
    });
    if (result.code !== 0) throw new Error(`exit ${result.code}: ${result.stderr.trim().slice(0, 500)}`);
    const answer = JSON.parse(result.stdout) as {
      kind?: string;
      cacheKeyType?: string;
      cacheDuration?: string;
      auth?: Record<string, { username?: string; password?: string }>;
    };
    if (answer.kind !== "CredentialProviderResponse") throw new Error(`it answered a ${answer.kind}`);
    const auths = new Map(
      Object.entries(answer.auth ?? {}).map(([pattern, { username = "", password = "" }]) => [
        pattern,
        { username, password },
      ]),
    );
    const lifeMs = parseDurationNanoseconds(answer.cacheDuration ?? provider.defaultCacheDuration ?? "0s") / 1e6;
    const which = ["Image", "Registry", "Global"].indexOf(answer.cacheKeyType ?? "");
    if (lifeMs > 0 && which >= 0) this.#keep(keys[which]!, { untilMs: clock.monotonicMs() + lifeMs, auths });
    return auths;
  }

  #keep(key: string, entry: { readonly untilMs: number; readonly auths: ReadonlyMap<string, Credentials> }): void {
    this.#kept.set(key, entry);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= maxKept) break;
      this.#kept.delete(oldest);
    }
  }
}

const providerTimeoutMs = 60_000;
const maxAnswerBytes = 1024 * 1024;
/** One per image at most. */
const maxKept = 200;

/** The providers of a CredentialProviderConfig file. */
async function readProviders(path: string): Promise<readonly Provider[]> {
  const bytes = await readFileIfExists(path);
  const refuse = (why: string) => new AppError("NODE_CREDENTIALS", `${path}: ${why}`, { path });
  if (!bytes) throw refuse("there is no such file");
  const config = parseYaml(bytes.toString("utf8")) as { kind?: string; providers?: Provider[] } | null;
  if (config?.kind !== "CredentialProviderConfig") throw refuse("a CredentialProviderConfig is expected");
  for (const provider of config.providers ?? []) {
    if (!/^[\w.-]+$/.test(provider.name ?? ""))
      throw refuse(`providers: ${JSON.stringify(provider.name)} is not the name of a program`);
    if (!provider.matchImages?.length) throw refuse(`provider ${provider.name} needs matchImages`);
    if (!/^credentialprovider\.kubelet\.k8s\.io\/v1(alpha1|beta1)?$/.test(provider.apiVersion ?? "")) {
      throw refuse(`provider ${provider.name} has apiVersion ${JSON.stringify(provider.apiVersion)}`);
    }
  }
  return config.providers ?? [];
}
