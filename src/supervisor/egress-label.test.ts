// The label by which a node says what it takes through its tunnel: there or not, as the cluster's mode has it. That it stays
// so is the node agent's doing (src/node/node-marks.test.ts).
import { expect, test } from "vitest";
import { egressLabels } from "./egress-label.ts";
import type { EgressMode } from "./tunnel/egress.ts";

test.each<[EgressMode, "true" | null]>([
  ["agent", null],
  ["disabled", null],
  ["pod", "true"],
  ["cluster", "true"],
])("mode %s: %s", (mode, wanted) => {
  expect(egressLabels(mode)).toEqual({ "egress.k3s.io/cluster": wanted });
});
