// Whether a certificate leads to an authority that is known by its key. Dates do not count: a device that was in a drawer
// for ten years, or whose clock is wrong, has nothing but that key to go by, and a key does not age. Invariant: every step
// is a signature by an authority; what somebody only sent along is believed for nothing else.
import type { X509Certificate } from "node:crypto";

/** Steps from a leaf to an authority: more than any chain of authorities that each vouched for the next. */
const maxSteps = 24;
/**
 * Signatures that are looked at for one leaf: ten generations of authorities need ten. Whoever sends certificates along makes their
 * keys and so says what each costs here, and without a bound two dozen were worth five hundred.
 */
const maxSignatures = 100;

/** `others`: what was sent along. `anchors`: the authorities that are known. */
export function leadsTo(
  leaf: X509Certificate,
  others: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
): boolean {
  const known = anchors.filter(({ ca }) => ca);
  const candidates = [...known, ...others.filter(({ ca }) => ca)];
  const isKnown = (one: X509Certificate) => known.some((anchor) => anchor.publicKey.equals(one.publicKey));
  // Authorities may vouch for each other in a circle.
  const seen = new Set<X509Certificate>();
  let signatures = 0;
  const isSigned = (one: X509Certificate, by: X509Certificate) =>
    one.checkIssued(by) && signatures++ < maxSignatures && one.verify(by.publicKey);
  const climb = (from: X509Certificate, steps: number): boolean =>
    steps < maxSteps &&
    candidates.some((parent) => {
      if (seen.has(parent) || !isSigned(from, parent)) return false;
      seen.add(parent);
      return isKnown(parent) || climb(parent, steps + 1);
    });
  return climb(leaf, 0);
}

const serverAuth = "1.3.6.1.5.5.7.3.1";
const anyPurpose = "2.5.29.37.0";

/** Whether it is meant for servers; one that names no purpose is meant for all. */
export function isForServers(leaf: X509Certificate): boolean {
  const purposes: readonly string[] | undefined = leaf.keyUsage;
  return !purposes || purposes.includes(serverAuth) || purposes.includes(anyPurpose);
}

/** Whether it may speak for a server of this name. */
export function isServerNamed(leaf: X509Certificate, host: string): boolean {
  if (!isForServers(leaf)) return false;
  const isAddress = host.includes(":") || /^[0-9.]+$/.test(host);
  return (isAddress ? leaf.checkIP(host) : leaf.checkHost(host, { subject: "never" })) !== undefined;
}
