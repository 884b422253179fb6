// `--datastore-endpoint` of an external etcd: one or more addresses, told apart by commas, as k3s takes them. Everything
// that looks like an endpoint of k3s and is none of ours is refused by name rather than taken for a file.
import { datastoreError } from "./errors.ts";

export interface EtcdEndpoint {
  /** As given, for people. */
  readonly url: string;
  readonly target: { readonly socketPath: string } | { readonly host: string; readonly port: number };
  readonly secure: boolean;
}

const defaultPort = 2379;
const etcdSchemes = /^(https?|unix):\/\//;

/** True when the text names an etcd, well or badly. */
export const isEtcdEndpoint = (text: string): boolean => etcdSchemes.test(text);

/** Throws DATASTORE_BAD_REQUEST with what is allowed. */
export function parseEtcdEndpoints(text: string): readonly EtcdEndpoint[] {
  const endpoints = text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map(parseOne);
  if (endpoints.length === 0) throw refusal(text);
  if (endpoints.some(({ secure }) => secure) !== endpoints.every(({ secure }) => secure)) {
    throw datastoreError(
      "DATASTORE_BAD_REQUEST",
      `datastore endpoint "${text}": either all addresses begin with https:// or none does`,
    );
  }
  return endpoints;
}

function parseOne(url: string): EtcdEndpoint {
  if (url.startsWith("unix:///")) return { url, target: { socketPath: url.slice("unix://".length) }, secure: false };
  const [, scheme, ipv6, name, port] =
    /^(https?):\/\/(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?\/?$/.exec(url) ?? [];
  const number = port === undefined ? defaultPort : Number(port);
  if (scheme === undefined || number < 1 || number > 65535) throw refusal(url);
  return { url, target: { host: (ipv6 ?? name)!, port: number }, secure: scheme === "https" };
}

function refusal(text: string): Error {
  return datastoreError(
    "DATASTORE_BAD_REQUEST",
    `datastore endpoint "${text}" is not an address of etcd; use https://HOST:2379, several with commas between them`,
  );
}
