// Whose serving certificate that is which somebody shows in a node's place. A node is known by its name, which the supervisor
// puts into certificates when it was proven, and not by its address, which changes and which a node says itself: a moved
// node is reached before it has a certificate that names where it is. Who is certified as another node, or as a server, is
// refused wherever it answers. Upstream counterpart: none; there the address alone counts, which is all that certificates from
// elsewhere have.
import type { X509Certificate } from "node:crypto";
import { isIp } from "#model/validation/names.ts";
import { isForServers } from "#wire/certificate-chain.ts";

export interface NodeIdentity {
  readonly name: string;
  /** Of every kind that its Node has. */
  readonly addresses: readonly string[];
}

/** Of certificates that a kubelet asked certificates.k8s.io for; those of k3s and mote are called as the node. */
const nodePrefix = "system:node:";
const nodeGroup = "system:nodes";
/** What every certificate of a server names, and no node's does. */
const serverName = "kubernetes";

/** What is wrong with a certificate that an authority of servers has signed; undefined: it is the node's. */
export function nodeIdentityProblem(leaf: X509Certificate, { name, addresses }: NodeIdentity): string | undefined {
  if (!isForServers(leaf)) {
    return `the certificate that node ${name} shows is not meant for servers`;
  }
  const subject = leaf.toLegacyObject().subject as unknown as Readonly<Record<string, string | string[] | undefined>>;
  const commonName = [subject["CN"] ?? ""].flat().at(-1) ?? "";
  // Node throws at a name with a zero in it, which a Node may well say it has.
  const names = (host: string): boolean =>
    host !== "" && !host.includes("\0") && leaf.checkHost(host, { subject: "never", wildcards: false }) !== undefined;
  // Who is sent here comes as an administrator: a node that says it lives where a server does would lend that to others.
  if (names(serverName)) return `the certificate that node ${name} shows is that of a server`;
  const isAnothers = (of: string) => `the certificate that node ${name} shows is that of node ${of}`;
  if (commonName.startsWith(nodePrefix) && [subject["O"]].flat().includes(nodeGroup)) {
    const of = commonName.slice(nodePrefix.length);
    return of === name ? undefined : isAnothers(of);
  }
  if (names(name)) return undefined;
  // Nodes of k3s and mote say whatever address they like: only their names are proven.
  if (names(commonName) && !addresses.includes(commonName)) return isAnothers(commonName);
  const isAddressed = addresses.some((one) => (isIp(one) ? leaf.checkIP(one) !== undefined : names(one)));
  return isAddressed ? undefined : `the certificate that node ${name} shows names neither it nor an address of it`;
}
