import { expect, test } from "vitest";
import { skewProblem } from "./version-skew.ts";

test.each([
  ["v1.32.3+mote0", "v1.32.9+k3s1", undefined],
  ["v1.29.0", "v1.32.3", undefined],
  ["v1.28.9", "v1.32.3", /older than its server .* update the node to v1.32/],
  ["v1.33.0+mote1", "v1.32.3", /newer than its server .*: update the server first, or install v1.32 on the node/],
  ["unknown", "v1.32.3", undefined],
  ["v1.33.0", "", undefined],
])("node %s, server %s", (node, server, message) => {
  const problem = skewProblem(node, server);
  if (message) expect(problem).toMatch(message);
  else expect(problem).toBe(undefined);
});
