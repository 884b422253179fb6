// What a node keeps of its membership: authorities, certificates with keys, settings. Names are k3s's (DATA-DIR/agent).
// Files are written only when they change: every write is flushed.
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import type { KeyPair } from "../pki.ts";

export class ClientFiles {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async read(name: string): Promise<string | undefined> {
    return (await readFileIfExists(`${this.#folder}/${name}`))?.toString("utf8");
  }

  async write(name: string, text: string): Promise<void> {
    if ((await this.read(name)) === text) return;
    await makeFolder(this.#folder);
    await writeFileDurable(`${this.#folder}/${name}`, text, 0o600);
  }

  async readPair(name: string): Promise<KeyPair | undefined> {
    const [certificate, key] = await Promise.all([this.read(`${name}.crt`), this.read(`${name}.key`)]);
    return certificate === undefined || key === undefined ? undefined : { certificate, key };
  }

  /** The key first: one without its certificate is asked for again. */
  async writePair(name: string, pair: KeyPair): Promise<void> {
    await this.write(`${name}.key`, pair.key);
    await this.write(`${name}.crt`, pair.certificate);
  }
}
