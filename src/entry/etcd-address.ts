// Addresses that the etcd API is served at, of `mote kine --listen-address` and `mote server --etcd-listen`.
import { resolve } from "node:path";
import { usageError } from "#cli/flags.ts";
import type { GrpcServerOptions } from "#platform/grpc-server.ts";

export interface EtcdAddress {
  readonly listen: GrpcServerOptions["listen"];
  readonly secure: boolean;
  readonly url: string;
}

/** `secureByDefault`: for an address that names no scheme, or tcp. */
export function parseEtcdAddress(flag: string, text: string, secureByDefault: boolean): EtcdAddress {
  const [, scheme = "http", rest = ""] = /^(?:(unix|http|https|tcp):\/\/)?(.+)$/.exec(text) ?? [];
  if (scheme === "unix")
    return { listen: { socketPath: resolve(rest) }, secure: false, url: `unix://${resolve(rest)}` };
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:/[\]]*)):(\d{1,5})$/.exec(rest) ?? [];
  if (port === undefined || Number(port) > 65_535) {
    throw usageError(`--${flag}: "${text}" is not allowed; use unix:///FILE, http://HOST:PORT or https://HOST:PORT`);
  }
  const host = bracketed ?? (plain || "0.0.0.0");
  const secure = scheme === "https" || (scheme !== "http" && secureByDefault);
  return { listen: { host, port: Number(port) }, secure, url: `${secure ? "https" : "http"}://${rest}` };
}

/** As above, but what anybody on the network could read or write is refused: the store holds every Secret. */
export function parseGuardedEtcdAddress(flag: string, text: string): EtcdAddress {
  if (!/^(unix:\/\/\/.|https:\/\/)/.test(text)) {
    throw usageError(`${flag}: "${text}" is not allowed; use unix:///FILE or https://HOST:PORT`);
  }
  return parseEtcdAddress(flag, text, true);
}
