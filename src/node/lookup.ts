// What the node API (logs, exec, attach, port-forward) may ask of the node agent: which container is meant, where its
// log lies, and the runtime calls that open streams. The agent implements it; src/node/server consumes it.
import type { Pod } from "#model/gen/core-v1.ts";

export interface ContainerLookup {
  /** CRI id of the newest instance. */
  readonly containerId: string;
  readonly podUid: string;
  readonly containerName: string;
  readonly state: "created" | "running" | "exited";
  /** Restart count of the newest instance. */
  readonly attempt: number;
  /** Absolute path of the CRI log of the newest instance (or of the one before it); undefined where there is none. */
  logPath(previous?: boolean): string | undefined;
}

export interface ExecResult {
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly exitCode: number;
}

export interface StreamRequest {
  readonly containerId: string;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

/** The part of CRI that the node API needs. URLs point at containerd's stream server on the loopback address. */
export interface StreamRuntime {
  /** Ends the program when its time is over (0: never) or `signal` aborts. */
  execSync(
    containerId: string,
    command: readonly string[],
    timeoutSeconds: number,
    signal?: AbortSignal,
  ): Promise<ExecResult>;
  exec(request: StreamRequest & { readonly command: readonly string[] }): Promise<string>;
  attach(request: StreamRequest): Promise<string>;
  portForward(request: { readonly podSandboxId: string; readonly ports: readonly number[] }): Promise<string>;
}

export interface PodLookup {
  /** The pod's container; without a name the only one or the first. Undefined: no such pod here or not created yet. */
  container(namespace: string, pod: string, container?: string): ContainerLookup | undefined;
  /** CRI id of the pod's ready sandbox, for port-forward. */
  sandbox(namespace: string, pod: string): { readonly sandboxId: string; readonly podUid: string } | undefined;
  /** Pods bound to this node, with the status the agent last computed. */
  pods(): readonly Pod[];
  readonly runtime: StreamRuntime;
}
