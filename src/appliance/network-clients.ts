// Programs that keep a link connected (udhcpc, wpa_supplicant). They run in sessions of their own and outlive this process,
// so that a restarted mote finds the network as it was. A file in memory says which process serves which link: an adapter
// that was plugged in again is another link to the kernel, and its old client would wait for ever.
import { isRunning, signalProcess, startDaemon } from "#platform/daemons.ts";
import { readFileIfExists } from "#platform/files.ts";
import { removeFile, writePlainFile } from "#platform/folders.ts";

export interface Client {
  /** Names its file, `<name>.pid`. */
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  /** Number of the hardware it serves. */
  readonly index: number;
}

export interface NetworkClients {
  /** Starts it unless it runs; one that serves another link of that name ends first. */
  keep(client: Client): Promise<void>;
  /** Ends what `keep` started under that name. */
  end(name: string, program: string): Promise<void>;
}

export function networkClients(folder: string): NetworkClients {
  const pathOf = (name: string) => `${folder}/${name}.pid`;
  const known = async (name: string) => {
    const [pid, index] = ((await readFileIfExists(pathOf(name)))?.toString("utf8") ?? "").split(" ").map(Number);
    return { pid: pid ?? 0, index };
  };
  async function end(name: string, program: string): Promise<void> {
    const { pid } = await known(name);
    if (pid > 0 && (await isRunning(pid, program))) signalProcess(pid, "SIGTERM");
    await removeFile(pathOf(name));
  }
  return {
    end,
    async keep({ name, program, args, index }) {
      const before = await known(name);
      if (before.pid > 0 && (await isRunning(before.pid, program))) {
        if (before.index === index) return;
        await end(name, program);
      }
      // What they say on every renewal is nobody's concern; a file would only grow.
      const pid = await startDaemon(program, args, "/dev/null");
      await writePlainFile(pathOf(name), `${pid} ${index}`, 0o644);
    },
  };
}
