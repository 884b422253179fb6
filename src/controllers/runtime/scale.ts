// Which resource a kind stands for, and its scale, as autoscalers and budgets ask: of built-in kinds by the table of
// resources, of all others by asking the server's discovery, so that custom resources with a scale are like deployments.
// Upstream counterpart: the RESTMapper and the scale client.
import type { Client } from "#client/client.ts";
import type { Scale } from "#model/gen/autoscaling-v1.ts";
import { allResources } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";

export interface Mapping {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
}

/** Preferred first; rejects where there is none. Versions are not looked at: a kind has one scale in all of them. */
export async function mappingsOf(client: Client, apiVersion: string, kind: string): Promise<readonly Mapping[]> {
  const parts = apiVersion.split("/");
  if (parts.length > 2) throw new Error(`unexpected GroupVersion string: ${apiVersion}`);
  const group = parts.length === 2 ? parts[0]! : "";
  const builtIn = allResources.filter((row) => row.group === group && row.kind === kind);
  const found = builtIn.length > 0 ? builtIn : await discovered(client, group, kind);
  if (found.length === 0) {
    throw new Error(`no matches for kind ${JSON.stringify(kind)} in group ${JSON.stringify(group)}`);
  }
  return found;
}

interface Group {
  readonly versions?: readonly { readonly version: string }[];
  readonly preferredVersion?: { readonly version: string };
}
interface Resources {
  readonly resources?: readonly { readonly name: string; readonly kind: string }[];
}

async function discovered(client: Client, group: string, kind: string): Promise<Mapping[]> {
  if (group === "") return [];
  const ask = async <T>(path: string): Promise<T | undefined> => {
    try {
      return (await client.transport.request({ method: "GET", path })) as unknown as T;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  };
  const about = await ask<Group>(`/apis/${encodeURIComponent(group)}`);
  const preferred = about?.preferredVersion?.version;
  const versions = (about?.versions ?? []).map(({ version }) => version);
  versions.sort((a, b) => Number(b === preferred) - Number(a === preferred));
  const out: Mapping[] = [];
  for (const version of versions) {
    const list = await ask<Resources>(`/apis/${encodeURIComponent(group)}/${encodeURIComponent(version)}`);
    const found = list?.resources?.find((one) => one.kind === kind && !one.name.includes("/"));
    if (found) out.push({ group, version, plural: found.name });
  }
  return out;
}

export interface FoundScale {
  readonly scale: Scale;
  readonly path: string;
}

/** The first mapping that has a scale; rejects with the first failure. */
export async function readScale(
  client: Client,
  mappings: readonly Mapping[],
  namespace: string,
  name: string,
): Promise<FoundScale> {
  let first: unknown;
  for (const mapping of mappings) {
    const path = scalePath(mapping, namespace, name);
    try {
      const scale = (await client.transport.request({ method: "GET", path })) as unknown as Scale;
      return { scale, path };
    } catch (error) {
      first ??= error;
    }
  }
  throw first;
}

export async function writeScale(client: Client, { scale, path }: FoundScale, replicas: number): Promise<void> {
  await client.transport.request({
    method: "PUT",
    path,
    body: { ...scale, spec: { ...scale.spec, replicas } },
  });
}

function scalePath({ group, version, plural }: Mapping, namespace: string, name: string): string {
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  return `${root}/namespaces/${encodeURIComponent(namespace)}/${plural}/${encodeURIComponent(name)}/scale`;
}
