// The servers that a node knew when it was last told, so that it can start while the one it was given is dead. Form and name
// are k3s's (DATA-DIR/agent/etc). A list that belongs to another --server is not used.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";

const fileName = "k3s-agent-load-balancer.json";
/** More servers than anybody has, and less than a broken answer may fill the file with. */
export const maxServers = 100;

export class ServersFile {
  readonly #folder: string;
  readonly #server: string;
  readonly #log: Logger;
  #kept: readonly string[] = [];
  #written: Promise<void> = Promise.resolve();

  constructor(options: { readonly folder: string; readonly server: string }, deps: { readonly log: Logger }) {
    this.#folder = options.folder;
    this.#server = options.server;
    this.#log = deps.log;
  }

  async read(): Promise<readonly string[]> {
    const text = (await readFileIfExists(`${this.#folder}/${fileName}`))?.toString("utf8");
    if (text === undefined) return [];
    try {
      const { ServerURL: url, ServerAddresses: addresses } = JSON.parse(text) as Readonly<Record<string, unknown>>;
      if (url === this.#server && Array.isArray(addresses)) this.#kept = addressesIn(addresses);
    } catch (error) {
      // It is made again with the next answer of a server.
      this.#log.warn("the list of servers cannot be read", { error: messageOf(error) });
    }
    return this.#kept;
  }

  /** Flushes only what is new. One after the other: a list may come from two sides at once, and the last one counts. */
  write(addresses: readonly string[]): Promise<void> {
    if ([...addresses].sort().join() === [...this.#kept].sort().join()) return this.#written;
    this.#kept = addresses;
    const text = `${JSON.stringify({ ServerURL: this.#server, ServerAddresses: addresses })}\n`;
    const flush = async () => {
      try {
        await makeFolder(this.#folder);
        await writeFileDurable(`${this.#folder}/${fileName}`, text, 0o600);
      } catch (error) {
        // The next list is written, though it be the same.
        if (this.#kept === addresses) this.#kept = [];
        throw error;
      }
    };
    this.#written = this.#written.then(flush, flush);
    return this.#written;
  }
}

/** Those that are HOST:PORT. */
export function addressesIn(list: unknown): readonly string[] {
  if (!Array.isArray(list)) return [];
  const found = list.filter((one): one is string => typeof one === "string" && splitAddress(one) !== undefined);
  return [...new Set(found)].slice(0, maxServers);
}

export function splitAddress(address: string): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:/[\]\s]+)):(\d{1,5})$/.exec(address) ?? [];
  const host = bracketed ?? plain;
  return host === undefined || Number(port) < 1 || Number(port) > 65_535 ? undefined : { host, port: Number(port) };
}
