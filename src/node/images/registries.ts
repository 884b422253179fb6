// registries.yaml, in k3s's form: mirrors and credentials of image registries. Mirrors and TLS become containerd's hosts.toml
// files; credentials are handed over with each pull. Read once at start. What containerd cannot do (rewrites) is said, not
// ignored. Upstream counterpart: k3s's pkg/agent/containerd registries; github.com/rancher/wharfie.
import { AppError, messageOf } from "#base/errors.ts";
import { listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import { removeTree, writePlainFile } from "#platform/folders.ts";
import { parseYaml } from "#wire/yaml.ts";
import { type Credentials, imageLocation, loginOf } from "../credentials.ts";

interface Tls {
  readonly ca_file?: string;
  readonly cert_file?: string;
  readonly key_file?: string;
  readonly insecure_skip_verify?: boolean;
}
interface HostConfig {
  readonly auth?: {
    readonly username?: string;
    readonly password?: string;
    readonly auth?: string;
    readonly identity_token?: string;
  };
  readonly tls?: Tls;
}
interface Mirror {
  readonly endpoint?: readonly string[];
  readonly rewrite?: Readonly<Record<string, string>>;
}
export interface Registries {
  readonly mirrors: Readonly<Record<string, Mirror>>;
  readonly configs: Readonly<Record<string, HostConfig>>;
}

export const noRegistries: Registries = { mirrors: {}, configs: {} };
/** First line of files this module wrote and may remove again. */
const mark = "# Written by mote from registries.yaml; changes are lost.";

/** Undefined where there is no such file. */
export async function readRegistries(path: string): Promise<Registries | undefined> {
  const bytes = await readFileIfExists(path);
  if (!bytes) return undefined;
  try {
    return parseRegistries(parseYaml(bytes.toString("utf8")));
  } catch (error) {
    throw new AppError("NODE_REGISTRIES", `${path}: ${messageOf(error)}`, { path });
  }
}

export function parseRegistries(value: unknown): Registries {
  if (value === null || value === undefined) return noRegistries;
  const top = mapOf(value, "the file");
  for (const key of Object.keys(top)) {
    if (key !== "mirrors" && key !== "configs") throw new Error(`${key} is not known; use mirrors and configs`);
  }
  const mirrors = mapOf(top["mirrors"] ?? {}, "mirrors");
  for (const [host, mirror] of Object.entries(mirrors)) {
    const { endpoint = [] } = mapOf(mirror ?? {}, `mirrors.${host}`);
    if (!Array.isArray(endpoint)) throw new Error(`mirrors.${host}.endpoint must be a list of URLs`);
    for (const url of endpoint) endpointOf(String(url));
  }
  const configs = mapOf(top["configs"] ?? {}, "configs");
  for (const [host, config] of Object.entries(configs)) mapOf(config ?? {}, `configs.${host}`);
  return { mirrors: mirrors as Registries["mirrors"], configs: configs as Registries["configs"] };
}

function mapOf(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${what} must be a map`);
  return value as Record<string, unknown>;
}

const isLocal = (host: string): boolean => /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/.test(host);

function endpointOf(text: string): URL {
  const hasScheme = /^https?:\/\//.test(text);
  const host = text.split("/")[0] ?? "";
  try {
    return new URL(hasScheme ? text : `${isLocal(host) ? "http" : "https"}://${text}`);
  } catch {
    throw new Error(`${JSON.stringify(text)} is not the URL of a registry`);
  }
}

/** Where a registry itself answers. */
const ownUrl = (host: string): string =>
  host === "docker.io" ? "https://registry-1.docker.io" : `${isLocal(host) ? "http" : "https"}://${host}`;

/** hosts.toml by folder name below certs.d, and what could not be expressed. Pure. */
export function hostsFiles(registries: Registries): { files: ReadonlyMap<string, string>; warnings: string[] } {
  const files = new Map<string, string>();
  const warnings: string[] = [];
  const hosts = new Set([...Object.keys(registries.mirrors), ...Object.keys(registries.configs)]);
  for (const host of hosts) {
    const mirror = registries.mirrors[host];
    if (mirror?.rewrite && Object.keys(mirror.rewrite).length > 0) {
      warnings.push(`mirrors.${host}.rewrite: containerd cannot rewrite names; it is left out`);
    }
    const lines = [mark];
    // `*` stands for every registry, whose own address containerd knows.
    if (host !== "*") lines.push(`server = ${JSON.stringify(ownUrl(host))}`);
    for (const text of mirror?.endpoint ?? []) {
      const url = endpointOf(text);
      const path = url.pathname.replace(/\/+$/, "");
      const hasOwnPath = path !== "" && path !== "/v2";
      lines.push("", `[host.${JSON.stringify(`${url.origin}${hasOwnPath ? path : ""}`)}]`);
      lines.push(`  capabilities = ["pull", "resolve"]`);
      if (hasOwnPath) lines.push("  override_path = true");
      lines.push(...tlsLines(registries.configs[url.host]?.tls));
    }
    const own = registries.configs[host]?.tls;
    if (own && host !== "*") {
      lines.push(
        "",
        `[host.${JSON.stringify(ownUrl(host))}]`,
        `  capabilities = ["pull", "resolve"]`,
        ...tlsLines(own),
      );
    }
    if (lines.length > 2 || host !== "*") files.set(host === "*" ? "_default" : host, `${lines.join("\n")}\n`);
  }
  return { files, warnings };
}

function tlsLines(tls: Tls | undefined): string[] {
  if (!tls) return [];
  const lines: string[] = [];
  if (tls.ca_file) lines.push(`  ca = ${JSON.stringify(tls.ca_file)}`);
  if (tls.cert_file && tls.key_file) {
    lines.push(`  client = [[${JSON.stringify(tls.cert_file)}, ${JSON.stringify(tls.key_file)}]]`);
  }
  if (tls.insecure_skip_verify) lines.push("  skip_verify = true");
  return lines;
}

/** Who to be for an image: at its own registry, and at the mirrors that stand in for it. Pure. */
export function registryCredentials(registries: Registries, image: string): Credentials[] {
  const { host } = imageLocation(image);
  const own = credentialsOf(registries.configs[host]);
  const mirror = registries.mirrors[host] ?? registries.mirrors["*"];
  const ofMirrors = (mirror?.endpoint ?? []).flatMap((text) => {
    const url = endpointOf(text);
    const found = credentialsOf(registries.configs[url.host]);
    // Named, so that no other registry is ever shown them.
    return found ? [{ ...found, server: url.origin }] : [];
  });
  return [...ofMirrors, ...(own ? [own] : [])];
}

function credentialsOf(config: HostConfig | undefined): Credentials | undefined {
  const auth = config?.auth;
  if (!auth) return undefined;
  return { ...loginOf(auth), ...(auth.identity_token ? { identityToken: auth.identity_token } : {}) };
}

/** Makes the folder say what `registries` says; files of others stay. */
export async function writeHostsFiles(folder: string, registries: Registries): Promise<readonly string[]> {
  const { files, warnings } = hostsFiles(registries);
  for (const entry of await listFolder(folder)) {
    if (!entry.isDirectory() || files.has(entry.name)) continue;
    const text = (await readFileIfExists(`${folder}/${entry.name}/hosts.toml`))?.toString("utf8") ?? "";
    if (text.startsWith(mark)) await removeTree(`${folder}/${entry.name}`);
  }
  for (const [host, text] of files) {
    const path = `${folder}/${host}/hosts.toml`;
    if ((await readFileIfExists(path))?.toString("utf8") === text) continue;
    await makeFolder(`${folder}/${host}`, 0o755);
    await writePlainFile(path, text, 0o600);
  }
  return warnings;
}
