// What a node needs of its machine beside mote, and what to install where it is missing: told at the start, once for each,
// and where no container can run without it, as the reason for which the Node is not Ready, until it is there.
// Upstream counterpart: the kubelet's runtime state, which knows what the runtime says of itself; it says nothing of these.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { exists } from "#platform/files.ts";

export interface ProgramPlaces {
  /** Where programs are looked for: the folders of PATH. */
  readonly folders: readonly string[];
  /** The file itself. */
  readonly containerd: string;
  /** Undefined: others bring the network. */
  readonly cniFolder: string | undefined;
  /** Another runtime than runc may be all that runs here. */
  readonly needsRunc: boolean;
}

type Condition = "RuntimeReady" | "NetworkReady";

interface Row {
  /** Files of which each is needed. */
  readonly programs: readonly string[];
  readonly package: string;
  readonly folders: (places: ProgramPlaces) => readonly string[] | undefined;
  readonly without: string;
  /** The condition of the runtime that this is to the Node; undefined: the node is Ready all the same. */
  readonly condition?: Condition;
}

const path = ({ folders }: ProgramPlaces) => folders;
const folderOf = (file: string): string => file.replace(/\/[^/]*$/, "");

/** Packages as Debian names them. */
const table: readonly Row[] = [
  {
    ...{ programs: ["containerd"], package: "containerd", condition: "RuntimeReady" },
    folders: ({ containerd }) => [folderOf(containerd)],
    without: "no container can run",
  },
  {
    ...{ programs: ["runc"], package: "runc", condition: "RuntimeReady" },
    folders: ({ folders, needsRunc }) => (needsRunc ? folders : undefined),
    without: "no container can start",
  },
  {
    ...{ programs: ["bridge", "host-local", "loopback", "portmap"], condition: "NetworkReady" },
    package: "containernetworking-plugins",
    folders: ({ cniFolder }) => (cniFolder === undefined ? undefined : [cniFolder]),
    without: "no pod has a network",
  },
  { programs: ["ip"], package: "iproute2", folders: path, without: "no pod of another node can be reached" },
  { programs: ["nft"], package: "nftables", folders: path, without: "no Service can be reached" },
  { programs: ["conntrack"], package: "conntrack", folders: path, without: "old connections to Services stay wrong" },
];

export interface MissingProgram {
  readonly package: string;
  readonly condition: Condition | undefined;
  /** `runc is not installed: no container can start (apt-get install runc)`. */
  readonly sentence: string;
}

export async function missingPrograms(places: ProgramPlaces): Promise<readonly MissingProgram[]> {
  const missing: MissingProgram[] = [];
  for (const row of table) {
    const folders = row.folders(places);
    if (folders === undefined) continue;
    const absent: string[] = [];
    for (const program of row.programs) {
      const found = await Promise.all(folders.map((folder) => exists(`${folder}/${program}`)));
      if (!found.includes(true)) absent.push(program);
    }
    if (absent.length === 0) continue;
    const place = row.condition === "NetworkReady" ? ` in ${folders.join(", ")}` : "";
    const is = absent.length === 1 ? "is" : "are";
    const sentence = `${absent.join(", ")} ${is} not installed${place}: ${row.without} (apt-get install ${row.package})`;
    missing.push({ package: row.package, condition: row.condition, sentence });
  }
  return missing;
}

/** While nobody asks, nothing is looked at; a node that is not Ready asks twice a second. */
const lookMs = 5_000;
const reasons = { RuntimeReady: "RuntimeNotReady", NetworkReady: "NetworkPluginNotReady" } as const;

export class Programs {
  readonly #places: ProgramPlaces | undefined;
  readonly #clock: Clock;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #missing: readonly MissingProgram[] = [];

  /** Undefined: nothing is asked of the machine. */
  constructor(places: ProgramPlaces | undefined, { clock }: { readonly clock: Clock }) {
    this.#places = places;
    this.#clock = clock;
  }

  /** One line for each that is missing. */
  async tell(log: Logger): Promise<void> {
    for (const { sentence, condition } of await this.#look()) {
      if (condition === undefined) log.warn(sentence);
      else log.error(sentence);
    }
  }

  async lacks(name: string): Promise<boolean> {
    return (await this.#look()).some((one) => one.package === name);
  }

  /** Why the Node is not Ready, in the words of the runtime's own conditions. */
  async problem(): Promise<string | undefined> {
    const found = (await this.#look()).find(({ condition }) => condition !== undefined);
    if (found?.condition === undefined) return undefined;
    const what = found.condition === "NetworkReady" ? "container runtime network" : "container runtime";
    const { condition, sentence } = found;
    return `${what} not ready: ${condition}=false reason:${reasons[condition]} message:${sentence}`;
  }

  async #look(): Promise<readonly MissingProgram[]> {
    if (this.#places === undefined || this.#clock.monotonicMs() - this.#lookedMs < lookMs) return this.#missing;
    this.#lookedMs = this.#clock.monotonicMs();
    this.#missing = await missingPrograms(this.#places);
    return this.#missing;
  }
}
