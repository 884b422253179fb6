// Endpoint slices as they were remembered, put right for the pods of this node: after a boot these have other addresses, and
// nobody else can say so while there is no server. Endpoints on other nodes stay as they were known. Pure.
import { isDeepStrictEqual } from "node:util";
import { familyOfIp } from "#base/ip-range.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";

export interface LocalPod {
  readonly ips: readonly string[];
  readonly isReady: boolean;
}

export interface LocalView {
  readonly nodeName: string;
  /** By uid; undefined while nothing of the pod runs. */
  readonly pod: (uid: string) => LocalPod | undefined;
  /** Whether the slice's service wants its pods before they are ready. */
  readonly takesUnready: (slice: EndpointSlice) => boolean;
}

export function localPodOf({ status }: Pod): LocalPod | undefined {
  const ips = (status?.podIPs ?? []).flatMap(({ ip }) => ip ?? []);
  const isReady = status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True") ?? false;
  return ips.length === 0 ? undefined : { ips, isReady };
}

/** The same slice where nothing is to be put right. */
export function withLocalPods(slice: EndpointSlice, view: LocalView): EndpointSlice {
  const endpoints = (slice.endpoints ?? []).map((endpoint) => {
    const uid = endpoint.targetRef?.kind === "Pod" ? endpoint.targetRef.uid : undefined;
    if (endpoint.nodeName !== view.nodeName || uid === undefined) return endpoint;
    const pod = view.pod(uid);
    const address = pod?.ips.find((ip) => familyOfIp(ip) === slice.addressType);
    if (!pod || address === undefined) {
      // Its address may be another pod's by now.
      return { ...endpoint, conditions: { ready: false, serving: false, terminating: false } };
    }
    const ready = pod.isReady || view.takesUnready(slice);
    return { ...endpoint, addresses: [address], conditions: { ready, serving: pod.isReady, terminating: false } };
  });
  return isDeepStrictEqual(endpoints, slice.endpoints ?? []) ? slice : { ...slice, endpoints };
}
