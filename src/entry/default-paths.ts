// Where things are when no flag says so.

/** Who runs the command: the folders it may write follow from that, as k3s has them under $HOME without root. */
export interface Runner {
  readonly isRoot: boolean;
  readonly home: string | undefined;
}

export function defaultPaths({ isRoot, home }: Runner): { dataDir: string; kubeconfig: string } {
  return isRoot || !home
    ? { dataDir: "/var/lib/mote", kubeconfig: "/etc/mote/kubeconfig.yaml" }
    : { dataDir: `${home}/.mote`, kubeconfig: `${home}/.mote/kubeconfig.yaml` };
}
