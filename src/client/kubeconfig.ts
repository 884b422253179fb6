// Kubeconfig files, the part of them that mote writes and reads: clusters, users with certificate, token or basic
// identity files, contexts. Exec plugins and auth providers are refused by name rather than ignored.
// Upstream counterpart: client-go tools/clientcmd/api/v1.
import { AppError } from "#base/errors.ts";
import { parseYaml, stringifyYaml } from "#wire/yaml.ts";

/** What is needed to connect, with the files that the kubeconfig names already read. PEM texts. */
export interface ConnectionConfig {
  readonly server: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
  readonly serverName?: string;
  readonly insecureSkipTlsVerify: boolean;
  readonly namespace: string;
}

export interface KubeconfigEntry {
  readonly server: string;
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
  /** Name of cluster, user and context; k3s uses "default". */
  readonly name: string;
}

/** The text of a kubeconfig with one cluster, one user and one context, which is current. */
export function formatKubeconfig(entry: KubeconfigEntry): string {
  const { name } = entry;
  const user: Record<string, string> = {};
  if (entry.cert !== undefined) user["client-certificate-data"] = toBase64(entry.cert);
  if (entry.key !== undefined) user["client-key-data"] = toBase64(entry.key);
  if (entry.token !== undefined) user["token"] = entry.token;
  return stringifyYaml({
    apiVersion: "v1",
    clusters: [{ cluster: { "certificate-authority-data": toBase64(entry.ca), server: entry.server }, name }],
    contexts: [{ context: { cluster: name, user: name }, name }],
    "current-context": name,
    kind: "Config",
    preferences: {},
    users: [{ name, user }],
  });
}

/** Resolves the current context, or `context`. `readFile` gets paths as written. Rejects with KUBECONFIG_INVALID. */
export async function readKubeconfig(
  text: string,
  options: { readonly context?: string; readonly readFile: (path: string) => Promise<string> },
): Promise<ConnectionConfig> {
  const config = record(parseYaml(text), "kubeconfig");
  const contextName = options.context ?? stringAt(config, "current-context");
  if (!contextName) throw invalidConfig("current-context is not set");
  const context = entryOf(config, "contexts", "context", contextName);
  const cluster = entryOf(config, "clusters", "cluster", stringAt(context, "cluster") ?? "");
  const user = entryOf(config, "users", "user", stringAt(context, "user") ?? "");
  for (const unsupported of ["exec", "auth-provider", "username", "as"]) {
    if (user[unsupported] !== undefined) throw invalidConfig(`user field ${unsupported} is not supported`);
  }
  const server = stringAt(cluster, "server");
  if (!server) throw invalidConfig("cluster has no server");
  const pem = async (from: Record<string, unknown>, field: string): Promise<string | undefined> => {
    const data = stringAt(from, `${field}-data`);
    if (data) return Buffer.from(data, "base64").toString("utf8");
    const path = stringAt(from, field);
    return path ? options.readFile(path) : undefined;
  };
  const tokenFile = stringAt(user, "tokenFile");
  const token = tokenFile ? (await options.readFile(tokenFile)).trim() : stringAt(user, "token");
  const found = {
    ca: await pem(cluster, "certificate-authority"),
    cert: await pem(user, "client-certificate"),
    key: await pem(user, "client-key"),
    token,
    serverName: stringAt(cluster, "tls-server-name"),
  };
  return {
    server,
    insecureSkipTlsVerify: cluster["insecure-skip-tls-verify"] === true,
    namespace: stringAt(context, "namespace") || "default",
    ...Object.fromEntries(Object.entries(found).filter(([, value]) => value)),
  };
}

function entryOf(config: Record<string, unknown>, list: string, field: string, name: string): Record<string, unknown> {
  const entries = config[list];
  const found = Array.isArray(entries) ? entries.find((e: unknown) => isRecord(e) && e["name"] === name) : undefined;
  if (!found) throw invalidConfig(`${list} has no entry named ${JSON.stringify(name)}`);
  return record((found as Record<string, unknown>)[field], `${list}[${name}].${field}`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (!isRecord(value)) throw invalidConfig(`${what} is not an object`);
  return value;
}

function stringAt(from: Record<string, unknown>, field: string): string | undefined {
  const value = from[field];
  return typeof value === "string" ? value : undefined;
}

const invalidConfig = (why: string): AppError => new AppError("KUBECONFIG_INVALID", `invalid kubeconfig: ${why}`);
const toBase64 = (text: string): string => Buffer.from(text, "utf8").toString("base64");
