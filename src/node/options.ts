// What the node agent must be told and what it is given.
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { Taint } from "#model/gen/core-v1.ts";
import type { Commands } from "#platform/processes.ts";
import type { NodeConfiguration } from "./configuration.ts";
import type { ContainerdOptions } from "./containerd.ts";
import type { CredentialProviders } from "./credentials.ts";
import type { Unpacking } from "./images/unpacking.ts";
import type { NodeMemory } from "./memory.ts";
import type { ProgramPlaces } from "./programs.ts";

export interface NodeAgentOptions {
  readonly nodeName: string;
  /** One of each address family that the cluster has, its first family first. Read anew each time: they may change. */
  readonly nodeIps: readonly string[];
  /** Where the node is reached from outside; none: others may say. */
  readonly externalIps?: readonly string[];
  /** `<data>/agent`: pods/ lies below. */
  readonly dataFolder: string;
  /** Volumes of the storage class local-path. Default `<dataFolder>/storage`. */
  readonly storageFolder?: string;
  /** Where CSI drivers register and find pods' volumes. Default /var/lib/kubelet, as their manifests have it. */
  readonly kubeletFolder?: string;
  /** Drivers in containers mount there for other pods: its mounts must be shared. Default false. */
  readonly sharesMounts?: boolean;
  /** Default /var/log/pods. */
  readonly podLogFolder?: string;
  /** One of each family; none: the control plane chooses. */
  readonly podCidrs: readonly string[];
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  readonly containerd: ContainerdOptions;
  /** Where to look for what a node needs; default: that is not looked at. */
  readonly programs?: ProgramPlaces;
  /** Default: upstream's defaults. */
  readonly configuration?: NodeConfiguration;
  readonly labels?: Readonly<Record<string, string>>;
  /** Kept on the Node as they are here, null: not there. */
  readonly ownLabels?: Readonly<Record<string, string | null>>;
  readonly taints?: readonly Taint[];
  /** Folder of static pods; default none. */
  readonly staticPodFolder?: string;
  /** registries.yaml; default none. */
  readonly registriesFile?: string;
  /** Default /etc/resolv.conf, or systemd-resolved's own where that is a stub. */
  readonly resolvConf?: string;
  /** Port of the node API, shown in the Node object. Default 10250. */
  readonly port?: number;
  /** `v1.32.3+mote0`. */
  readonly version: string;
  /** RuntimeDefault for containers that do not ask for a seccomp profile. Default true. */
  readonly seccompDefault?: boolean;
}

export interface NodeAgentDeps {
  readonly client: Client;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly commands: Commands;
  readonly events: EventSink;
  /** Imports the shipped images; called once containerd answers, before the first sandbox. */
  readonly ensureImages?: (socketPath: string, unpacking: Unpacking) => Promise<unknown>;
  /** Asked when the agent is told to end: whether the whole machine goes down, so that pods must end too. */
  readonly isMachineStopping?: () => Promise<boolean>;
  readonly credentialProviders?: CredentialProviders | undefined;
  /** Tells of a change of `nodeIps`. */
  readonly onNodeIps?: (changed: () => void) => () => void;
  /** Where the API is elsewhere: what the node begins with while it is away. `client` and `events` go by its transport. */
  readonly memory?: NodeMemory | undefined;
}

export const defaults = { port: 10250, podLogFolder: "/var/log/pods", kubeletFolder: "/var/lib/kubelet" } as const;
