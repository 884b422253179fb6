// A name belongs to the device whose password the server keeps, and with a Node its password goes: `kubectl delete node` frees
// the name. A node that runs has registered anew within seconds, and then takes its name again, unless another device was quicker. k3s's agents do so
// when they start.
import type { InformerFactory } from "#client/informer.ts";
import { nameOf } from "#model/object.ts";
import { nodes } from "#model/resources.ts";
import type { Membership } from "./join-client.ts";

export function claimWithNode(
  nodeName: string,
  informers: InformerFactory,
  membership: Pick<Membership, "claim" | "hasJoinedBefore" | "nowMs">,
): void {
  const startedMs = membership.nowMs();
  let known: string | undefined;
  informers.informer(nodes).addHandler({
    add(node) {
      if (nameOf(node) !== nodeName) return;
      const { uid = "", creationTimestamp = "" } = node.metadata;
      // At the first sight of it: made by this start of a node that was there before. RFC 3339 has whole seconds.
      const isOfThisStart = membership.hasJoinedBefore && Date.parse(creationTimestamp) >= startedMs - 1000;
      const isNew = known === undefined ? isOfThisStart : uid !== known;
      known = uid;
      if (isNew) membership.claim();
    },
  });
}
