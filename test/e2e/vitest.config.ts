import { defineConfig } from "vitest/config";

// One real cluster after the other, in order: these files share the machine's containerd, cgroups and cores.
export default defineConfig({
  test: {
    include: ["test/e2e/**/*.e2e.ts"],
    // Above what the waits of a test come to on a machine that is slow: they say what they have waited for.
    testTimeout: 600_000,
    hookTimeout: 900_000,
    fileParallelism: false,
    pool: "forks",
    sequence: { concurrent: false },
    bail: 0,
  },
});
