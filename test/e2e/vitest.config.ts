import { defineConfig } from "vitest/config";

// One real cluster after the other, in order: these files share the machine's containerd, cgroups and cores.
export default defineConfig({
  test: {
    include: ["test/e2e/**/*.e2e.ts"],
    testTimeout: 120_000,
    hookTimeout: 300_000,
    fileParallelism: false,
    pool: "forks",
    sequence: { concurrent: false },
    bail: 0,
  },
});
