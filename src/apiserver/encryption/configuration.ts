// EncryptionConfiguration (apiserver.config.k8s.io/v1), read strictly: what is not known, given twice or hidden behind an
// earlier rule is refused with its path, because a rule that does nothing leaves secrets in plain text. Secrets are never
// part of a message. Pure. Upstream counterpart: apis/apiserver/validation and options/encryptionconfig.
import { AppError, messageOf } from "#base/errors.ts";
import { parseYaml } from "#wire/yaml.ts";
import { type CipherType, secretBytes } from "./ciphers.ts";

export interface EncryptionKey {
  readonly name: string;
  readonly secret: Uint8Array;
}

export type Provider =
  | { readonly type: "identity" }
  | { readonly type: CipherType; readonly keys: readonly EncryptionKey[] };

export interface EncryptionRule {
  /** `secrets`, `deployments.apps`, `*.apps`, `*.` (core) or `*.*`. */
  readonly resources: readonly string[];
  /** The first one writes, all read. */
  readonly providers: readonly Provider[];
}

export interface EncryptionConfiguration {
  readonly rules: readonly EncryptionRule[];
}

/** More is a mistake; upstream has no bound of its own. */
export const maxConfigurationBytes = 1024 * 1024;

/** YAML or JSON. Throws APISERVER_ENCRYPTION with everything that is wrong. */
export function parseEncryptionConfiguration(text: string): EncryptionConfiguration {
  let value: unknown;
  try {
    value = parseYaml(text);
  } catch (error) {
    throw refused(messageOf(error));
  }
  const problems: string[] = [];
  const root = new Reader(value, "", problems);
  const top = root.object(["apiVersion", "kind", "resources"]);
  const [apiVersion, kind] = [top?.["apiVersion"]?.value, top?.["kind"]?.value];
  if (top && (apiVersion !== "apiserver.config.k8s.io/v1" || kind !== "EncryptionConfiguration")) {
    const shown = `${String(kind)} of ${String(apiVersion)}`;
    problems.push(`an EncryptionConfiguration of apiserver.config.k8s.io/v1 is expected, not ${shown}`);
  }
  const rules = (top?.["resources"]?.list() ?? []).map((rule) => ruleOf(rule, problems));
  if (top && rules.length === 0) problems.push("resources: Required value: at least one resources is required");
  problems.push(...maskedRules(rules));
  if (problems.length > 0) throw refused(problems.slice(0, maxProblems).join("; "));
  return { rules };
}

const maxProblems = 20;

export const refused = (why: string): AppError => new AppError("APISERVER_ENCRYPTION", why);

/** `deployments.apps`: the part behind the first dot is the group, as in upstream's ParseGroupResource. */
export function splitResource(name: string): { readonly resource: string; readonly group: string } {
  const dot = name.indexOf(".");
  return dot < 0 ? { resource: name, group: "" } : { resource: name.slice(0, dot), group: name.slice(dot + 1) };
}

const canonical = (name: string): string => {
  const { resource, group } = splitResource(name);
  return `${resource}.${group}`;
};

/** The providers of a resource as it is stored: the closest rule counts, and rules that name the same are joined. */
export function providersFor(
  { rules }: EncryptionConfiguration,
  resource: { readonly plural: string; readonly storageGroup: string },
): readonly Provider[] | undefined {
  for (const wanted of [`${resource.plural}.${resource.storageGroup}`, `*.${resource.storageGroup}`, "*.*"]) {
    const found = rules.filter((rule) => rule.resources.some((name) => canonical(name) === wanted));
    if (found.length > 0) return found.flatMap(({ providers }) => providers);
  }
  return undefined;
}

function ruleOf(reader: Reader, problems: string[]): EncryptionRule {
  const rule = reader.object(["resources", "providers"]);
  const resources: string[] = [];
  for (const name of rule?.["resources"]?.list() ?? []) {
    const text = name.text();
    if (text === undefined) continue;
    const problem = resourceProblem(text);
    if (problem !== undefined) problems.push(`${name.path}: Invalid value: ${JSON.stringify(text)}: ${problem}`);
    resources.push(text);
  }
  const where = `${reader.path}.resources`;
  if (rule && resources.length === 0) problems.push(`${where}: Required value: at least one ${where} is required`);
  problems.push(...overlaps(resources, where));
  const providers = (rule?.["providers"]?.list() ?? []).map((provider) => providerOf(provider, problems));
  const whom = `${reader.path}.providers`;
  if (rule && providers.length === 0) problems.push(`${whom}: Required value: at least one ${whom} is required`);
  return { resources, providers: providers.filter((provider) => provider !== undefined) };
}

function resourceProblem(name: string): string | undefined {
  const { group } = splitResource(name);
  if (name === "") return "a resource is expected";
  if (name === "*") return "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources";
  if (/[A-Z]/.test(name)) return "resource name should not contain capital letters";
  if (name.startsWith("*.") && group.startsWith("*") && group !== "*") return "a group is expected behind '*.'";
  if (
    /[^a-z0-9.*-]/.test(name) ||
    name
      .slice(1)
      .replace(/^\.\*$/, "")
      .includes("*")
  ) {
    return "a resource such as 'secrets', 'deployments.apps', '*.apps', '*.' or '*.*' is expected";
  }
  if (group === "extensions") return "'extensions' group has been removed and cannot be used for encryption";
  if (name === "*.events.k8s.io" || name === "events.events.k8s.io") {
    return `'${name}' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file`;
  }
  if (notServed.has(name)) return "resources which do not have REST API/s cannot be encrypted";
  return undefined;
}

/** Upstream keeps allocations under these; they were never resources of the API. */
const notServed = new Set(["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"]);

/** Within one list. */
function overlaps(names: readonly string[], path: string): string[] {
  const all = names.map(canonical);
  if (new Set(all).size < all.length) {
    return [`${path}: Invalid value: ${JSON.stringify(names)}: the same resource cannot be specified multiple times`];
  }
  const isMasked = all.some((name) => {
    const wildcard = `*.${splitResource(name).group}`;
    return (name !== "*.*" && all.includes("*.*")) || (name !== wildcard && all.includes(wildcard));
  });
  return isMasked
    ? [
        `${path}: Invalid value: ${JSON.stringify(names)}: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked`,
      ]
    : [];
}

/** A rule behind one that takes all of its group would never be reached. */
function maskedRules(rules: readonly EncryptionRule[]): string[] {
  const problems: string[] = [];
  const wildcards = new Set<string>();
  for (const { resources } of rules) {
    for (const name of resources) {
      const { group } = splitResource(name);
      const by = wildcards.has(`*.${group}`) ? `*.${group}` : wildcards.has("*.*") ? "*.*" : undefined;
      if (by !== undefined) problems.push(`resource "${name}" is masked by earlier rule "${by}"`);
    }
    for (const name of resources) if (name.startsWith("*.")) wildcards.add(name);
  }
  return problems;
}

const providerTypes = ["aescbc", "aesgcm", "identity", "kms", "secretbox"] as const;

function providerOf(reader: Reader, problems: string[]): Provider | undefined {
  const given = reader.object(providerTypes);
  if (!given) return undefined;
  const types = providerTypes.filter((type) => given[type] !== undefined);
  const [type] = types;
  if (types.length > 1) {
    problems.push(
      `${reader.path}: Invalid value: more than one provider specified in a single element, should split into different list elements`,
    );
    return undefined;
  }
  switch (type) {
    case undefined:
      problems.push(
        `${reader.path}: Invalid value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity`,
      );
      return undefined;
    case "identity":
      given[type]?.object([]);
      return { type };
    case "kms":
      problems.push(`${reader.path}.kms: not supported: use aesgcm, aescbc, secretbox or identity`);
      return undefined;
    default:
      return { type, keys: keysOf(type, given[type]!, problems) };
  }
}

function keysOf(type: CipherType, reader: Reader, problems: string[]): readonly EncryptionKey[] {
  const section = reader.object(["keys"]);
  const keys: EncryptionKey[] = [];
  const path = `${reader.path}.keys`;
  const entries = section?.["keys"]?.list() ?? [];
  if (section && entries.length === 0) problems.push(`${path}: Required value: at least one ${path} is required`);
  for (const entry of entries) {
    const key = entry.object(["name", "secret"]);
    if (!key) continue;
    const [name = "", secret = ""] = [key["name"]?.text(), key["secret"]?.text()];
    for (const [field, text] of Object.entries({ name, secret })) {
      if (text !== "") continue;
      problems.push(`${entry.path}.${field}: Required value: ${field} is a mandatory field for a key`);
    }
    const bytes = decodeBase64(secret);
    if (secret === "") continue;
    const wrong = `${entry.path}.secret: Invalid value: "REDACTED":`;
    const lengths = secretBytes[type];
    if (!bytes) problems.push(`${wrong} secrets must be base64 encoded`);
    else if (!lengths.includes(bytes.length)) {
      const expected = `[${lengths.join(" ")}]`;
      problems.push(`${wrong} secret is not of the expected length, got ${bytes.length}, expected one of ${expected}`);
    } else keys.push({ name, secret: bytes });
  }
  return keys;
}

/** As Go's StdEncoding: padded, line breaks aside nothing foreign. Node's own reader skips what it does not know. */
function decodeBase64(text: string): Uint8Array | undefined {
  const bare = text.replace(/[\r\n]/g, "");
  return /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(bare)
    ? new Uint8Array(Buffer.from(bare, "base64"))
    : undefined;
}

/** A value with its path, which tells what is not as expected. */
class Reader {
  readonly value: unknown;
  readonly path: string;
  readonly #problems: string[];

  constructor(value: unknown, path: string, problems: string[]) {
    this.value = value;
    this.path = path;
    this.#problems = problems;
  }

  /** The members by name; those that are null count as absent. */
  object(known: readonly string[]): Readonly<Record<string, Reader | undefined>> | undefined {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.#say(value === null ? "an object is expected, not null" : "an object is expected");
      return undefined;
    }
    const out: Record<string, Reader> = {};
    for (const [name, member] of Object.entries(value)) {
      const path = this.path === "" ? name : `${this.path}.${name}`;
      if (!known.includes(name)) this.#problems.push(`unknown field ${JSON.stringify(path)}`);
      else if (member !== null) out[name] = new Reader(member, path, this.#problems);
    }
    return out;
  }

  list(): readonly Reader[] {
    if (!Array.isArray(this.value)) {
      this.#say("a list is expected");
      return [];
    }
    return this.value.map((item, i) => new Reader(item, `${this.path}[${i}]`, this.#problems));
  }

  text(): string | undefined {
    if (typeof this.value === "string") return this.value;
    this.#say("a string is expected");
    return undefined;
  }

  #say(why: string): void {
    this.#problems.push(this.path === "" ? why : `${this.path}: ${why}`);
  }
}
