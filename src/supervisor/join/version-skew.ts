// Which versions of node and server go together: a node may be older than its server by up to three minor versions, and never
// newer. Upstream: the version skew policy for kubelets.

const maxOlder = 3;

function minorOf(version: string): number | undefined {
  const [, major, minor] = /^v?(\d+)\.(\d+)\./.exec(version) ?? [];
  // Two majors have never met.
  return major === "1" && minor !== undefined ? Number(minor) : undefined;
}

/** Why they do not go together, and what to do; undefined: they do, or nothing is known of them. */
export function skewProblem(node: string, server: string): string | undefined {
  const [nodeMinor, serverMinor] = [minorOf(node), minorOf(server)];
  if (nodeMinor === undefined || serverMinor === undefined) return undefined;
  if (nodeMinor > serverMinor) {
    return `this node runs ${node}, which is newer than its server (${server}): update the server first, or install v1.${serverMinor} on the node`;
  }
  if (serverMinor - nodeMinor > maxOlder) {
    return `this node runs ${node}, which is more than ${maxOlder} minor versions older than its server (${server}): update the node to v1.${serverMinor}`;
  }
  return undefined;
}
