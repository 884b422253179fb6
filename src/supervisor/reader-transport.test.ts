import { expect, test } from "vitest";
import type { Transport } from "#client/transport.ts";
import { readerTransport } from "./reader-transport.ts";

const as = (name: string): Transport => ({
  request: async () => ({ kind: name }) as never,
  async *watch(_request, _signal, onOpen) {
    onOpen?.();
    yield { type: "BOOKMARK", object: { kind: name } as never };
  },
});
const reader = readerTransport({ controller: as("controller"), proxy: as("proxy") });

// What k3s v1.32 lets each of the two read.
test.each([
  ["/api/v1/services", "proxy"],
  ["/api/v1/namespaces/default/services", "proxy"],
  ["/api/v1/nodes", "proxy"],
  ["/api/v1/nodes/n1", "proxy"],
  ["/apis/discovery.k8s.io/v1/endpointslices", "proxy"],
  ["/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", "proxy"],
  ["/api/v1/namespaces", "controller"],
  ["/api/v1/namespaces/services", "controller"],
  ["/api/v1/pods", "controller"],
  ["/apis/networking.k8s.io/v1/networkpolicies", "controller"],
])("%s as the node's %s", async (path, who) => {
  const request = { method: "GET", path } as const;
  expect(await reader.request(request)).toEqual({ kind: who });
  let opened = 0;
  for await (const { object } of reader.watch(request, new AbortController().signal, () => opened++))
    expect(object).toEqual({ kind: who });
  // Else an informer takes a watch that was quiet for one that failed.
  expect(opened).toBe(1);
});
